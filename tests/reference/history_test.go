package reference

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var histories = flag.Int("histories", 40, "how many random histories of jobs")

const (
	// settleLimit is how long jobs may take until they wait for somebody.
	settleLimit = 10 * time.Second
	// settlePoll is how often they are looked at.
	settlePoll = time.Millisecond
	// wakeLimit is how long a job may sleep that has something to do: more than the
	// tenth of a second that speeds are counted in.
	wakeLimit = 150 * time.Millisecond
	// aborts is the lowest exit status of a program that a signal ended.
	aborts = 128
)

// step is one thing that happens in a history of jobs: a command, or a request
// of a client of NBD.
type step struct {
	command string
	io      *transfer
	// late: what the command does to a job shows after a while.
	late bool
}

// transfer is a request of a client of an export.
type transfer struct {
	export string
	op     string // read, write, zero or discard
	offset uint64
	bytes  uint64
	fill   byte
}

// String writes the step as a line of a transcript.
func (s step) String() string {
	if s.io == nil {
		return "-> " + s.command
	}
	op := fmt.Sprintf("%s %d %d", s.io.op, s.io.offset, s.io.bytes)
	switch s.io.op {
	case "write":
		op = fmt.Sprintf("write -P %d %d %d", s.io.fill, s.io.offset, s.io.bytes)
	case "zero":
		op = fmt.Sprintf("write -z %d %d", s.io.offset, s.io.bytes)
	}
	return fmt.Sprintf("!qemu-io -f raw -c '%s' 'nbd+unix:///%s?socket=n.sock'", op, s.io.export)
}

// imageScript makes the images of histories. All have content of their own,
// and most are of one size. v1 to v3 can stand for n1 to n3.
const imageScript = `set -e
qemu-img create -q -f qcow2 n0.qcow2 1M
qemu-img create -q -f qcow2 -b n0.qcow2 -F qcow2 n1.qcow2
qemu-img create -q -f qcow2 -b n1.qcow2 -F qcow2 n2.qcow2
qemu-img create -q -f qcow2 -b n2.qcow2 -F qcow2 n3.qcow2
qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k -b n0.qcow2 -F qcow2 v1.qcow2
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=32k -b n1.qcow2 -F qcow2 v2.qcow2 1536k
qemu-img create -q -f qcow2 -o lazy_refcounts=on,cluster_size=128k -b n2.qcow2 -F qcow2 v3.qcow2 1003008
for n in 1 2 3; do
	qemu-io -c "write -q -P $((n + 80)) $((n * 64 + 30))k 70k" -c "write -q -z $((500 + n * 100))k 100k" -c "write -q -P $((n + 84)) 900k 1k" v$n.qcow2
done
for n in 0 1 2 3; do
	qemu-io -c "write -q -P $((n + 1)) $((n * 64))k 128k" -c "write -q -P $((n + 17)) $((640 + n * 64))k 64k" n$n.qcow2
done
qemu-img convert -f qcow2 -O raw n0.qcow2 n0.raw
qemu-img convert -f qcow2 -O raw n0.qcow2 short.raw
truncate -s 704k short.raw
truncate -s 1M t.raw
qemu-img create -q -f qcow2 t.qcow2 1M
qemu-img create -q -f qcow2 o.qcow2 1M
qemu-img create -q -f qcow2 big.qcow2 2M
qemu-img create -q -f qcow2 -o cluster_size=4k w.qcow2 1M
qemu-img bitmap --add -g 4k w.qcow2 bi
qemu-io -c "write -q -P 33 100k 300k" -c abort w.qcow2 >/dev/null 2>&1 || true
qemu-img bitmap --add w.qcow2 b1
qemu-img bitmap --add --disable -g 4k w.qcow2 b2
qemu-io -c "write -q -P 34 600k 30k" w.qcow2
cp n0.raw q0.raw
cp n0.raw q1.raw
`

func makeImages(t *testing.T) (dir string) {
	t.Helper()
	for _, tool := range []string{"qemu-img", "qemu-io"} {
		if _, err := exec.LookPath(tool); err != nil {
			daemon.Missing(t, "no "+tool)
		}
	}
	dir = t.TempDir()
	sh := exec.Command("sh", "-c", imageScript)
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// TestJobs plays random histories: jobs that are begun, watched, changed and
// ended while bitmaps, snapshots, transactions and clients of an export change
// what they work on. Between two steps the jobs come to rest, so that each step
// finds them where the one before has left them.
func TestJobs(t *testing.T) {
	t.Parallel()
	reference := daemon.Reference(t)
	p := &pairOfDaemons{ours: chosen(t), reference: reference, images: makeImages(t)}
	for n := range *histories {
		t.Run(fmt.Sprintf("seed=%d/%d", *seed, n), func(t *testing.T) {
			t.Parallel()
			p.check(t, history(rand.New(rand.NewPCG(*seed, uint64(n))), *length/2))
		})
	}
}

// pairOfDaemons are the two programs, and the images that each gets copies of.
type pairOfDaemons struct {
	ours, reference *daemon.Program
	images          string
}

// past is what a daemon made of a history: for each step the lines that came,
// and the images in the end.
type past struct {
	program *daemon.Program
	steps   [][]string
	dir     string
	// aborted: the daemon did not survive being told to quit. There is no end then.
	aborted bool
}

func (h *past) forget() { _ = os.RemoveAll(h.dir) }

// errUnsettled is returned when jobs neither end nor wait.
var errUnsettled = errors.New("jobs do not come to rest")

// play plays steps. The past that it returns with an error ends in front of the
// step that led to it.
func (p *pairOfDaemons) play(program *daemon.Program, steps []step) (*past, error) {
	s, err := start(program)
	if err != nil {
		return nil, err
	}
	// The folder is kept for the comparison of images.
	defer s.process.Kill()
	defer s.conn.Close()
	h := &past{dir: s.dir, program: program}
	if err := os.CopyFS(s.dir, os.DirFS(p.images)); err != nil {
		return h, err
	}
	if _, err := s.do(step{command: `{"execute": "qmp_capabilities"}`}); err != nil {
		return h, err
	}
	for _, one := range steps {
		lines, err := s.do(one)
		if err != nil {
			return h, fmt.Errorf("%s: %w\n%s", one, err, strings.Join(lines, ""))
		}
		h.steps = append(h.steps, lines)
	}
	lines, status, err := s.quitJobs()
	if h.aborted = status >= aborts; !h.aborted {
		h.steps = append(h.steps, append(lines, fmt.Sprintf("exit status %d\n", status)))
	}
	return h, err
}

// do does a step and returns what came until all jobs had come to rest, and how
// they stand then.
func (s *side) do(one step) ([]string, error) {
	var lines []string
	if one.io != nil {
		result := one.io.do(filepath.Join(s.dir, "n.sock"))
		lines = append(lines, result+"\n")
	} else {
		_ = s.conn.SetDeadline(time.Now().Add(replyLimit))
		if _, err := s.conn.Write([]byte(one.command + "\n")); err != nil {
			return nil, err
		}
		for {
			line, err := s.in.ReadString('\n')
			if err != nil {
				return lines, err
			}
			lines = append(lines, s.clean(line))
			if !strings.Contains(line, `"event": `) {
				break
			}
		}
	}
	later, err := s.settle(one.late)
	return append(lines, later...), err
}

// settle waits until the jobs rest: twice in a row, with nothing between, the
// answers about them are the same while all threads of the daemon sleep.
func (s *side) settle(late bool) (lines []string, err error) {
	last, since := "", time.Now()
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for end := time.Now().Add(settleLimit); ; <-tick.C {
		events, state, err := s.state()
		lines = append(lines, events...)
		if err != nil {
			return lines, err
		}
		if len(events) > 0 || state != last {
			last, since = state, time.Now()
		} else if settled(state, late, time.Since(since)) && s.process.Rests() {
			return append(lines, strings.SplitAfter(state, "\n")...), nil
		}
		if time.Now().After(end) {
			return lines, fmt.Errorf("%w: %s", errUnsettled, state)
		}
	}
}

// state asks how the jobs stand, and returns what came before the answers.
func (s *side) state() (events []string, state string, err error) {
	_ = s.conn.SetDeadline(time.Now().Add(replyLimit))
	for _, query := range []string{"query-jobs", "query-block-jobs"} {
		if _, err := fmt.Fprintf(s.conn, "{\"execute\": %q, \"id\": 0}\n", query); err != nil {
			return events, "", err
		}
		for {
			line, err := s.in.ReadString('\n')
			if err != nil {
				return events, "", err
			}
			if line = s.clean(line); !strings.Contains(line, `"event": `) {
				state += line
				break
			}
			events = append(events, line)
		}
	}
	return events, state, nil
}

// settled tells whether the answers about jobs, the same for some time, are of such as
// rest: a running one must have a speed that holds it. One that may not have done
// anything yet gets time to wake.
func settled(state string, late bool, same time.Duration) bool {
	all, limits, _ := strings.Cut(state, "\n")
	speeds := map[string]int64{}
	for job := range returned(limits) {
		speeds[job.Get("device").Str()] = job.Get("speed").Int()
	}
	for job := range returned(all) {
		if !job.Get("status").Is("running") {
			continue
		}
		if speeds[job.Get("id").Str()] == 0 {
			return false
		}
		late = late || job.Get("current-progress").Int() == 0
	}
	return !late || same >= wakeLimit
}

// returned are the elements of a reply.
func returned(reply string) iter.Seq[qjson.Value] {
	v, err := qjson.Parse([]byte(strings.TrimSpace(reply)))
	if err != nil {
		return func(func(qjson.Value) bool) {}
	}
	return v.Get("return").Elems()
}

// quitJobs ends the daemon and returns the last words and its exit status.
func (s *side) quitJobs() (lines []string, status int, err error) {
	_ = s.conn.SetDeadline(time.Now().Add(replyLimit))
	if _, err := s.conn.Write([]byte("{\"execute\": \"quit\"}\n")); err != nil {
		return nil, 0, err
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			break
		}
		lines = append(lines, s.clean(line))
	}
	status, err = s.process.Wait(replyLimit)
	return lines, status, err
}

// do is the request of a new client. What it returns is the same whatever the
// server is.
func (x *transfer) do(socket string) string {
	conn, err := net.DialTimeout("unix", socket, replyLimit)
	if err != nil {
		return "no server"
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(replyLimit))
	session, err := nbd.ClientHandshake(conn, nbd.ClientConfig{Export: x.export, Mode: nbd.Structured})
	if err != nil {
		return "no export"
	}
	c := nbd.NewClient(session)
	defer c.Close()
	switch x.op {
	case "read":
		data := make([]byte, x.bytes)
		err = c.Read(x.offset, [][]byte{data})
		if err == nil {
			return fmt.Sprintf("read %x", sha256.Sum256(data))
		}
	case "write":
		err = c.Write(x.offset, [][]byte{bytes.Repeat([]byte{x.fill}, int(x.bytes))}, 0)
	case "zero":
		err = c.WriteZeroes(x.offset, x.bytes, 0)
	case "discard":
		err = c.Trim(x.offset, x.bytes, 0)
	}
	return fmt.Sprintf("%s: %v", x.op, errors.Join(err, c.Flush()))
}

// divergence is where two pasts differ.
type divergence struct {
	at         int // index of the step; behind the last are the end and the images
	want, came string
}

func (d *divergence) String() string {
	return fmt.Sprintf("the reference:\n%s\nours:\n%s", d.want, d.came)
}

// compare returns where ours differs from the reference's past, nil if it does
// not.
func (h *past) compare(ours *past) *divergence {
	for at, want := range h.steps {
		var came []string
		if at < len(ours.steps) {
			came = ours.steps[at]
		}
		if !slices.Equal(want, came) {
			return &divergence{at, strings.Join(want, ""), strings.Join(came, "")}
		}
	}
	if h.aborted {
		return nil
	}
	if text := compareImages(h.dir, ours.dir); text != "" {
		return &divergence{len(h.steps), "", text}
	}
	return nil
}

// compareImages tells how the images in two folders differ, "" if they do not.
// Both must be in order, and hold and say the same; where in their files that is
// does not matter.
func compareImages(theirs, ours string) string {
	var b strings.Builder
	for _, name := range filesOf(theirs, ours) {
		want, err1 := os.ReadFile(filepath.Join(theirs, name))
		came, err2 := os.ReadFile(filepath.Join(ours, name))
		switch {
		case err1 != nil || err2 != nil:
			fmt.Fprintf(&b, "%s: %v, %v\n", name, err1, err2)
			continue
		case bytes.Equal(want, came):
			continue
		}
		format := "raw"
		if bytes.HasPrefix(want, []byte("QFI\xfb")) {
			format = "qcow2"
		}
		for _, tool := range imageTools(format, name) {
			if w, c := run(theirs, tool), run(ours, tool); w != c {
				fmt.Fprintf(&b, "%s:\n%s\n%s\n", strings.Join(tool, " "), w, c)
			}
		}
		if text := compareContent(format, filepath.Join(theirs, name), filepath.Join(ours, name)); text != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, text)
		}
	}
	return b.String()
}

// filesOf are the names of the regular files in folders.
func filesOf(dirs ...string) []string {
	var names []string
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir) // what is not there is told when it is read
		for _, e := range entries {
			if e.Type().IsRegular() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// imageTools are commands that tell of an image what must be the same.
func imageTools(format, name string) [][]string {
	if format == "raw" {
		return nil
	}
	return [][]string{
		{"qemu-img", "check", "-q", "-f", format, name},
		{"qemu-img", "info", "-f", format, name},
	}
}

var fileLength = regexp.MustCompile(`(disk size|file length): .*`)

// run is what a tool says, the lengths of files aside.
func run(dir string, words []string) string {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return fmt.Sprint(fileLength.ReplaceAllString(strings.ReplaceAll(string(out), dir, ""), "$1"), err)
}

// compareContent compares what two images hold themselves.
func compareContent(format, theirs, ours string) string {
	alone := func(path string) string {
		if format == "raw" {
			return fmt.Sprintf(`json:{"driver": "raw", "file": {"driver": "file", "filename": %q}}`, path)
		}
		return fmt.Sprintf(`json:{"driver": %q, "backing": null, "file": {"driver": "file", "filename": %q}}`, format, path)
	}
	if out, err := exec.Command("qemu-img", "compare", alone(theirs), alone(ours)).CombinedOutput(); err != nil {
		return string(out)
	}
	return ""
}

// runs is how often a history, or a situation of jobs, is repeated that makes a difference.
const runs = 6

// differ plays steps on both. A difference counts only where the reference does
// the same each time, and ours never: what depends on how fast threads are is
// nobody's promise.
func (p *pairOfDaemons) differ(steps []step) (*divergence, []step, error) {
	want, err := p.play(p.reference, steps)
	if want != nil {
		defer want.forget()
	}
	if err != nil && want != nil && len(want.steps) <= len(steps) && len(want.steps) > 0 {
		// It has died, or hangs: what was before that counts.
		return p.differ(steps[:len(want.steps)])
	}
	if err != nil {
		return nil, steps, fmt.Errorf("%w: %v", errReference, err)
	}
	var found *divergence
	for range runs {
		came, err := p.play(p.ours, steps)
		if came == nil {
			return nil, steps, err
		}
		if err != nil {
			came.steps = append(came.steps, []string{err.Error()})
		}
		d := want.compare(came)
		came.forget()
		if d == nil {
			return nil, steps, nil
		}
		if found == nil || d.at > found.at {
			found = d
		}
	}
	for range runs {
		again, err := p.play(p.reference, steps)
		if again == nil {
			return nil, steps, err
		}
		d := want.compare(again)
		again.forget()
		if d != nil && d.at <= found.at {
			return nil, steps, nil
		}
	}
	return found, steps, nil
}

// reduce removes steps that the difference does not need.
func (p *pairOfDaemons) reduce(steps []step, found *divergence) ([]step, *divergence) {
	steps = steps[:min(len(steps), found.at+1)]
	for size := max(1, len(steps)/2); size > 0; size /= 2 {
		for from := 0; from+size <= len(steps); {
			rest := slices.Concat(steps[:from], steps[from+size:])
			d, rest, err := p.differ(rest)
			if err != nil || d == nil {
				from += size
				continue
			}
			steps, found = rest[:min(len(rest), d.at+1)], d
		}
	}
	return steps, found
}

// check plays one history and reports a difference.
func (p *pairOfDaemons) check(t *testing.T, steps []step) {
	t.Helper()
	found, steps, err := p.differ(steps)
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
	steps, found = p.reduce(steps, found)
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String() + "\n")
	}
	t.Errorf("%v\nreduced, as a transcript (its images are those of imageScript):\n\n%s", found, b.String())
}
