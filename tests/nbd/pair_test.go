package nbd_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// pair is the reference and our daemon with the same exports, each in a folder
// of its own.
type pair struct {
	t       *testing.T
	dirs    [2]string
	daemons [2]*daemon.Process
}

// sides names the two in messages; the reference is the first.
var sides = [2]string{"reference", "ours"}

// startPair starts both. In options and in the text of files' makers DIR stands
// for the folder.
func startPair(t *testing.T, prepare func(dir string), options ...string) *pair {
	t.Helper()
	programs := [2]*daemon.Program{daemon.Reference(t), ours(t)}
	p := &pair{t: t}
	for i, program := range programs {
		dir := shortDir(t)
		prepare(dir)
		p.dirs[i] = dir
		mine := make([]string, len(options))
		for k, o := range options {
			mine[k] = strings.ReplaceAll(o, "DIR", dir)
		}
		p.daemons[i] = storage(t, program, dir, mine...)
	}
	return p
}

// connection is one to each of the two.
type connection struct{ ends [2]*wire }

// connect connects to both and compares the greetings.
func (p *pair) connect(t *testing.T) *connection {
	t.Helper()
	c := &connection{}
	for i, dir := range p.dirs {
		conn, err := net.Dial("unix", filepath.Join(dir, "n.sock"))
		if err != nil {
			t.Fatalf("%s: %v\n%s", sides[i], err, p.daemons[i].Output())
		}
		c.ends[i] = newWire(conn)
	}
	t.Cleanup(c.close)
	if diff := c.compare(greeting); diff != nil {
		t.Fatal(diff)
	}
	return c
}

func greeting(w *wire) ([]byte, error) { return w.bytes(18) }

func (c *connection) close() {
	for _, w := range c.ends {
		w.Close()
	}
}

// setMode is what the two sides have agreed on.
func (c *connection) setMode(m nbd.Mode) {
	for _, w := range c.ends {
		w.mode = m
	}
}

// send writes to both. That one does not listen any more shows when its answer
// is read.
func (c *connection) send(b []byte) {
	for _, w := range c.ends {
		_ = w.SetWriteDeadline(time.Now().Add(patience))
		_, _ = w.Write(b)
	}
}

// answer is what one side said to something.
type answer struct {
	raw []byte
	end string // "" if complete, "closed", "waits"
}

func (a answer) String() string { return fmt.Sprintf("%q %s", a.raw, a.end) }

// difference is where the two disagree.
type difference struct{ want, came answer }

func (d *difference) Error() string {
	return fmt.Sprintf("the reference:\n    %v\nours:\n    %v", d.want, d.came)
}

// quiet is how long a side may say nothing until it counts as waiting, if the
// other says nothing either.
const quiet = 250 * time.Millisecond

// compare reads an answer from both; nil if they say the same.
func (c *connection) compare(read func(*wire) ([]byte, error)) *difference {
	a := c.answers(read)
	if string(a[0].raw) == string(a[1].raw) && a[0].end == a[1].end {
		return nil
	}
	return &difference{a[0], a[1]}
}

// answers reads from both at the same time.
func (c *connection) answers(read func(*wire) ([]byte, error)) (answers [2]answer) {
	type result struct {
		side int
		answer
	}
	results := make(chan result)
	for i, w := range c.ends {
		_ = w.SetReadDeadline(time.Now().Add(patience))
		go func() {
			raw, err := read(w)
			results <- result{i, answer{raw, endOf(err)}}
		}()
	}
	missing := 2
	for missing > 0 {
		select {
		case r := <-results:
			answers[r.side] = r.answer
			missing--
		case <-time.After(quiet):
			if missing == 2 {
				for _, w := range c.ends {
					_ = w.SetReadDeadline(time.Now())
				}
			}
			for ; missing > 0; missing-- {
				r := <-results
				answers[r.side] = r.answer
			}
		}
	}
	return answers
}

// endOf names how an answer ended. How the connection was closed depends on
// what was still unread, and so on time.
func endOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "waits"
	case errors.Is(err, nbd.ErrMagic):
		return "speaks in tongues"
	}
	return "closed"
}

// readOptionReplies and the like say how an answer is read.
func readOptionReplies(w *wire) ([]byte, error) {
	raw, _, err := w.optionReplies()
	return raw, err
}

func readReply(r nbd.Request) func(*wire) ([]byte, error) {
	return func(w *wire) ([]byte, error) {
		raw, _, err := w.reply(r)
		return raw, err
	}
}

func readBytes(n int) func(*wire) ([]byte, error) {
	return func(w *wire) ([]byte, error) { return w.bytes(n) }
}

// readRest reads up to the end of the connection.
func readRest(w *wire) ([]byte, error) {
	var all []byte
	for {
		b, err := w.bytes(1)
		all = append(all, b...)
		if err != nil {
			return all, err
		}
	}
}

// sameFiles compares what the two have written.
func (p *pair) sameFiles(names ...string) {
	p.t.Helper()
	for _, name := range names {
		var content [2][]byte
		for i, dir := range p.dirs {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				p.t.Fatal(err)
			}
			content[i] = b
		}
		if string(content[0]) != string(content[1]) {
			p.t.Errorf("%s is another one than the reference's", name)
		}
	}
}

// sameComplaints ends both and compares what they have printed, apart from the
// order in which clients came to their ends.
func (p *pair) sameComplaints(t *testing.T) {
	t.Helper()
	var lines [2][]string
	for i, d := range p.daemons {
		if err := d.Stop(); err != nil {
			t.Errorf("%s: %v", sides[i], err)
		}
		for line := range strings.Lines(d.Output()) {
			_, text, _ := strings.Cut(line, ": ") // behind the program's name
			lines[i] = append(lines[i], text)
		}
		slices.Sort(lines[i])
	}
	if diff := cmp.Diff(lines[0], lines[1]); diff != "" {
		t.Errorf("complaints (-reference +ours)\n%s", diff)
	}
}
