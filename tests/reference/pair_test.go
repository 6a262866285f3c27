// Package reference holds our daemon against the reference: the same input
// goes to both, and the bytes that come back are compared.
//
// The transcripts are compared by tests/qmp, which replays each against both.
// Here the input is made up: random commands with valid and broken arguments
// ([TestCommands]), bytes that are hardly JSON any more ([TestMalformed]), and
// histories of jobs ([TestJobs]).
// A difference is reduced to the requests that it takes, and printed as a
// transcript.
//
// What can be told in full stands in tables, recorded from the reference with
// -rewrite: pairs of operations on a chain ([TestPairs]), and all that commands
// and failures do to jobs in each of their states ([TestStates]).
package reference

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
	"github.com/qmpblock/qmpblock/tests/qmp/transcript"
)

const (
	startLimit = 20 * time.Second
	replyLimit = 10 * time.Second
)

// item is one piece of input.
type item struct {
	// pieces are written one after the other.
	pieces []string
	// broken input may leave the reader within a message, from which the
	// byte FF frees it.
	broken bool
}

func request(text string) item { return item{pieces: []string{text + "\n"}} }

// String writes the item as lines of a transcript.
func (i item) String() string {
	if !i.broken && len(i.pieces) == 1 {
		return "-> " + strings.TrimSuffix(i.pieces[0], "\n")
	}
	var lines []string
	for _, piece := range i.pieces {
		lines = append(lines, fmt.Sprintf("->raw %q", piece))
	}
	return strings.Join(lines, "\n")
}

// side is one of the two daemons, in a folder of its own.
type side struct {
	dir     string
	process *daemon.Process
	conn    net.Conn
	in      *bufio.Reader
	synced  int
}

// setup fills a folder with the files that requests speak of.
func setup(dir string) error {
	for name, size := range map[string]int64{"a.raw": 1 << 20, "b.raw": 65536, "odd.raw": 1000, "log.raw": 1 << 20} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		if err := os.Truncate(path, size); err != nil {
			return err
		}
	}
	return nil
}

func start(program *daemon.Program) (*side, error) {
	// t.TempDir would make the socket's path too long.
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		return nil, err
	}
	s := &side{dir: dir}
	if err := s.open(program); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *side) open(program *daemon.Program) error {
	if err := setup(s.dir); err != nil {
		return err
	}
	socket := filepath.Join(s.dir, "qmp.sock")
	command := append(program.Storage[:len(program.Storage):len(program.Storage)],
		"--chardev", "socket,path="+socket+",server=on,wait=off,id=c0", "--monitor", "c0")
	var err error
	if s.process, err = daemon.Start(command, s.dir, os.Environ()); err != nil {
		return err
	}
	if err := s.process.AwaitSocket(socket, startLimit); err != nil {
		return err
	}
	if s.conn, err = net.DialTimeout("unix", socket, replyLimit); err != nil {
		return err
	}
	s.in = bufio.NewReader(s.conn)
	_ = s.conn.SetReadDeadline(time.Now().Add(replyLimit))
	_, err = s.in.ReadString('\n') // the greeting
	return err
}

func (s *side) close() error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.process != nil {
		s.process.Kill()
	}
	return os.RemoveAll(s.dir)
}

// exchange sends an item and returns what comes for it: everything in front
// of the reply to a request that follows it.
func (s *side) exchange(i item) ([]string, error) {
	_ = s.conn.SetDeadline(time.Now().Add(replyLimit))
	for _, piece := range i.pieces {
		if _, err := s.conn.Write([]byte(piece)); err != nil {
			return nil, err
		}
	}
	s.synced++
	mark := fmt.Sprintf("synced %d", s.synced)
	sync := fmt.Sprintf("{\"execute\":\"query-block-jobs\",\"id\":%q}\n", mark)
	if i.broken {
		sync = "\xff\n" + sync
	}
	if _, err := s.conn.Write([]byte(sync)); err != nil {
		return nil, err
	}
	var lines []string
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return lines, fmt.Errorf("after %q: %w", lines, err)
		}
		if strings.Contains(line, `"id": "`+mark+`"`) {
			return lines, nil
		}
		lines = append(lines, s.clean(line))
	}
}

func (s *side) clean(line string) string {
	return transcript.Normalize(strings.ReplaceAll(line, s.dir, "${DIR}"))
}

// alive tells whether the daemon still answers.
func (s *side) alive() bool {
	_, err := s.exchange(item{})
	return err == nil
}

// difference is where two daemons disagree.
type difference struct {
	at         int // index of the item
	want, came string
}

func (d *difference) String() string {
	return fmt.Sprintf("the reference:\n    %s\nours:\n    %s", d.want, d.came)
}

// errReference is returned when the reference does not survive the input: it
// has bugs which we do not imitate.
var errReference = errors.New("the reference died")

// compare plays items on both and returns the first difference, nil if there
// is none.
func compare(ours, reference *daemon.Program, items []item) (*difference, error) {
	theirs, err := start(reference)
	if err != nil {
		return nil, err
	}
	defer theirs.close()
	us, err := start(ours)
	if err != nil {
		return nil, err
	}
	defer us.close()
	for at, i := range items {
		want, err := theirs.exchange(i)
		if err != nil {
			return nil, fmt.Errorf("%w of %s: %v", errReference, i, err)
		}
		came, err := us.exchange(i)
		if err != nil {
			came = append(came, fmt.Sprintf("<%v>", err))
		}
		if w, c := strings.Join(want, "    "), strings.Join(came, "    "); w != c {
			return &difference{at: at, want: w, came: c}, nil
		}
	}
	if !us.alive() {
		return &difference{at: len(items) - 1, want: "<goes on>", came: "<does not answer any more>"}, nil
	}
	return nil, nil
}

// reduce removes what the difference does not need: halves, quarters … single
// items, as long as some difference remains.
func reduce(ours, reference *daemon.Program, items []item, found *difference) ([]item, *difference) {
	items = items[:found.at+1]
	for size := len(items) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(items); {
			rest := append(append([]item{}, items[:from]...), items[from+size:]...)
			d, err := compare(ours, reference, rest)
			if err != nil || d == nil {
				from += size
				continue
			}
			items, found = rest[:d.at+1], d
		}
	}
	return items, found
}

// asTranscript writes a reduced conversation in the format of tests/qmp.
func asTranscript(items []item, found *difference) string {
	var b strings.Builder
	b.WriteString("# found by a random run\n!truncate -s 1M a.raw log.raw; truncate -s 64k b.raw; truncate -s 1000 odd.raw\n")
	for _, i := range items {
		b.WriteString(i.String() + "\n")
	}
	for _, line := range strings.Split(strings.ReplaceAll(found.want, "\r", ""), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString("<- " + line + "\n")
		}
	}
	return b.String()
}

// check compares one conversation and reports a difference.
func check(t *testing.T, ours, reference *daemon.Program, items []item) {
	t.Helper()
	found, err := compare(ours, reference, items)
	if errors.Is(err, errReference) {
		t.Log(err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if found == nil {
		return
	}
	items, found = reduce(ours, reference, items, found)
	t.Errorf("%v\n\nreduced, as a transcript:\n\n%s", found, asTranscript(items, found))
}
