package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// jobServer is a server with two monitors: one is used here, the other one is
// watched. Its node o is an image over 2 MiB of data.
type jobServer struct {
	folder  string
	process *daemon.Process
	conn    net.Conn
	lines   *bufio.Reader
}

// jobServers runs a test with our server and with the reference's.
func jobServers(t *testing.T, test func(t *testing.T, s *jobServer)) {
	for _, p := range []struct {
		name    string
		program func(t *testing.T) []string
	}{
		{"ours", func(*testing.T) []string { return []string{binary, "storage-daemon"} }},
		{"reference", func(t *testing.T) []string { return daemon.Reference(t).Storage }},
	} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, newJobServer(t, p.program(t)))
		})
	}
}

func newJobServer(t *testing.T, command []string) *jobServer {
	t.Helper()
	s := &jobServer{folder: shortDir(t)}
	writeFile(t, filepath.Join(s.folder, "base.raw"), strings.Repeat("a", 2<<20))
	options := append(command[1:],
		"--chardev", "socket,id=c0,path=qmp.sock,server=on,wait=off", "--monitor", "c0",
		"--chardev", "socket,id=c1,path=watched.sock,server=on,wait=off", "--monitor", "c1")
	s.process = startAs(t, command[0], s.folder, options...)
	awaitSocket(t, s.process, s.folder, "watched.sock")
	s.conn, s.lines = dial(t, filepath.Join(s.folder, "qmp.sock"))
	s.run(t, `qmp_capabilities`, `{}`)
	s.run(t, `blockdev-create`, `{"job-id": "c0", "options": {"driver": "file", "filename": "o.qcow2", "size": 0}}`)
	s.awaitEvent(t, `"concluded", "id": "c0"`)
	s.run(t, `blockdev-add`, `{"driver": "file", "node-name": "f", "filename": "o.qcow2"}`)
	s.run(t, `blockdev-create`, `{"job-id": "c1", "options": {"driver": "qcow2", "file": "f", "size": 2097152, "backing-file": "base.raw", "backing-fmt": "raw"}}`)
	s.awaitEvent(t, `"concluded", "id": "c1"`)
	s.run(t, `job-dismiss`, `{"id": "c0"}`)
	s.run(t, `blockdev-add`, `{"driver": "qcow2", "node-name": "o", "file": "f"}`)
	return s
}

// run runs a command that succeeds, and returns what the server said.
func (s *jobServer) run(t *testing.T, name, arguments string) string {
	t.Helper()
	if _, err := fmt.Fprintf(s.conn, `{"execute": %q, "arguments": %s}`, name, arguments); err != nil {
		t.Fatal(err)
	}
	said := ""
	for line := ""; !strings.HasPrefix(line, `{"return": `); said += line {
		if line = readLine(t, s.lines); strings.Contains(line, `"error": {`) {
			t.Fatalf("%s %s: %s", name, arguments, line)
		}
	}
	return said
}

// awaitEvent waits for a line; earlier ones are forgotten.
func (s *jobServer) awaitEvent(t *testing.T, part string) {
	t.Helper()
	for !strings.Contains(readLine(t, s.lines), part) {
	}
}

// stream begins to fill node o, so slowly that it does not come to an end.
func (s *jobServer) stream(t *testing.T) {
	t.Helper()
	s.run(t, `block-stream`, `{"job-id": "j0", "device": "o", "speed": 1}`)
}

// pause pauses the job and waits until it is.
func (s *jobServer) pause(t *testing.T) {
	t.Helper()
	if said := s.run(t, `job-pause`, `{"id": "j0"}`); !strings.Contains(said, `"paused"`) {
		s.awaitEvent(t, `"paused"`)
	}
}

// hurry lets the job end.
func (s *jobServer) hurry(t *testing.T) {
	t.Helper()
	s.run(t, `block-job-set-speed`, `{"device": "j0", "speed": 0}`)
}

// watcher is a "qmpblock jobs --watch" that runs.
type watcher struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{}

	mu   sync.Mutex
	seen strings.Builder
	more chan struct{} // something was seen
}

// watch watches a server. Its output goes to what the start function gives.
func (s *jobServer) watch(t *testing.T, start func(*exec.Cmd) (io.ReadCloser, error)) *watcher {
	t.Helper()
	w := &watcher{cmd: exec.Command(binary, "jobs", "--watch", "--every", "20ms", "watched.sock"),
		ended: make(chan struct{}), more: make(chan struct{}, 1)}
	w.cmd.Dir, w.cmd.Stderr = s.folder, &w.stderr
	out, err := start(w.cmd)
	if err != nil {
		t.Fatal(err)
	}
	go w.read(out)
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		<-w.ended
	})
	return w
}

func piped(c *exec.Cmd) (io.ReadCloser, error) {
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return out, c.Start()
}

func onTerminal(c *exec.Cmd) (io.ReadCloser, error) {
	terminal, tty, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		return nil, err
	}
	c.Stdout = tty
	return terminal, c.Start()
}

// read keeps what is printed. A terminal that nobody has open any more is an
// error, which is the end all the same.
func (w *watcher) read(out io.ReadCloser) {
	defer close(w.ended)
	buf := make([]byte, 4096)
	for {
		n, err := out.Read(buf)
		w.mu.Lock()
		w.seen.Write(buf[:n])
		w.mu.Unlock()
		select {
		case w.more <- struct{}{}:
		default:
		}
		if err != nil {
			out.Close()
			_ = w.cmd.Wait() // ends looks at the status
			return
		}
	}
}

func (w *watcher) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.String()
}

// await waits until something was printed.
func (w *watcher) await(t *testing.T, pattern string) {
	t.Helper()
	want := regexp.MustCompile(pattern)
	limit := time.After(patience)
	for !want.MatchString(w.text()) {
		select {
		case <-w.more:
		case <-limit:
			t.Fatalf("awaited %q, got\n%s%s", pattern, w.text(), &w.stderr)
		}
	}
}

// ends waits for the end and compares the exit status and the error.
func (w *watcher) ends(t *testing.T, status int, stderr string) {
	t.Helper()
	select {
	case <-w.ended:
	case <-time.After(patience):
		t.Fatalf("it does not end\n%s", w.text())
	}
	if got := w.cmd.ProcessState.ExitCode(); got != status || w.stderr.String() != stderr {
		t.Errorf("it ended with %d, %q", got, &w.stderr)
	}
}

func TestJobsTable(t *testing.T) {
	t.Parallel()
	jobServers(t, func(t *testing.T, s *jobServer) {
		s.stream(t)
		s.pause(t)
		got := call(t, s.folder, "jobs", "watched.sock")
		want := regexp.MustCompile(`^ID  TYPE    STATUS     DONE  PROGRESS +LIMIT    NOTE
c1  create  concluded  100%  1/1 +-        completed
j0  stream  paused     \d+% +\d.*/2.0 MiB  1.0 b/s  -
$`)
		if got.status != 0 || got.err != "" || !want.MatchString(got.out) {
			t.Errorf("%+v", got)
		}
	})
}

func TestWatchJobs(t *testing.T) {
	t.Parallel()
	jobServers(t, func(t *testing.T, s *jobServer) {
		w := s.watch(t, piped)
		w.await(t, `^c1 create concluded 1/1 completed\n`)
		s.stream(t)
		w.await(t, `j0 stream running [1-9]\d*/2097152\n`)
		s.pause(t)
		w.await(t, `j0 stream paused`)
		s.run(t, `job-resume`, `{"id": "j0"}`)
		s.hurry(t)
		w.await(t, `j0 stream concluded`)
		s.run(t, `blockdev-add`, `{"driver": "null-co", "node-name": "target", "size": 2097152}`)
		s.run(t, `blockdev-backup`, `{"job-id": "b0", "device": "o", "target": "target", "sync": "full", "speed": 1}`)
		w.await(t, `b0 backup running [1-9]\d*/2097152\n`)
		s.run(t, `job-cancel`, `{"id": "b0"}`)
		w.await(t, `b0 backup concluded`)
		s.run(t, `blockdev-create`, `{"job-id": "f", "options": {"driver": "file", "filename": "no/where", "size": 1}}`)
		w.await(t, `f create concluded`)
		if err := s.process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		w.ends(t, 0, "")
		want := regexp.MustCompile(`^c1 create concluded 1/1 completed
j0 stream created 0/0
j0 stream running 0/0
(j0 stream running \d+/2097152
)+(j0 stream paused \d+/2097152
)+(j0 stream running \d+/2097152
)+(j0 stream waiting \d+/2097152
)+(j0 stream pending \d+/2097152
)+j0 stream concluded 2097152/2097152 completed
b0 backup created 0/\d+
(b0 backup (running|paused) \d+/\d+
)+(b0 backup aborting \d+/2097152.*
)+b0 backup concluded \d+/2097152 cancelled
f create created 0/0
(f create running 0/\d
)+(f create aborting \d/\d.*
)+f create concluded 1/1 failed: Could not create 'no/where': No such file or directory
$`)
		if !want.MatchString(w.text()) {
			t.Errorf("it said\n%s", w.text())
		}
	})
}

// TestWatchJobsEnd looks at the ends that are no server's regular one.
func TestWatchJobsEnd(t *testing.T) {
	t.Parallel()
	jobServers(t, func(t *testing.T, s *jobServer) {
		w := s.watch(t, piped)
		s.stream(t)
		w.await(t, `j0 stream running [1-9]`)
		if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		w.ends(t, 0, "")
		w = s.watch(t, piped)
		w.await(t, `j0 stream running [1-9]`)
		s.process.Kill()
		w.ends(t, 1, "qmpblock: the server went away with 1 jobs unfinished\n")
	})
}

func TestWatchJobsOnTerminal(t *testing.T) {
	t.Parallel()
	jobServers(t, func(t *testing.T, s *jobServer) {
		w := s.watch(t, onTerminal)
		w.await(t, `c1 create +\[=+\] +100% 1/1 completed\r\n`)
		s.stream(t)
		w.await(t, `j0 stream +\[=*>-+\] +\d+% \S+ [KM]iB/2\.0 MiB \S+ \S+/s( \S+ left)?\r\n`)
		s.pause(t)
		w.await(t, `j0 stream +\[=*>-+\] .* paused\r\n`)
		s.run(t, `job-resume`, `{"id": "j0"}`)
		s.run(t, `blockdev-create`, `{"job-id": "f", "options": {"driver": "file", "filename": "no/where", "size": 1}}`)
		w.await(t, `f: Could not create 'no/where': No such file or directory\r\n`)
		w.await(t, `f create +\[.*\] +\d+% 1/1 failed\r\n`)
		s.hurry(t)
		w.await(t, `j0 stream +\[=+\] +100% 2.0 MiB/2.0 MiB completed\r\n`)
		if err := s.process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		w.ends(t, 0, "")
	})
}

// TestJobsOfNoServer asks what does not answer as QMP servers do.
func TestJobsOfNoServer(t *testing.T) {
	t.Parallel()
	for greeting, want := range map[string]string{
		"":                  "EOF",
		`{"hello": 1}`:      "this is no QMP server",
		`SSH-2.0`:           "invalid character 'S' looking for beginning of value",
		`{"QMP": {}}` + "{": "unexpected EOF",
	} {
		folder := shortDir(t)
		l, err := net.Listen("unix", filepath.Join(folder, "s"))
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, greeting)
			_ = conn.(*net.UnixConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}()
		got := call(t, folder, "jobs", "s")
		if got != (result{err: "qmpblock: s: " + want + "\n", status: 1}) {
			t.Errorf("greeted with %q: %+v", greeting, got)
		}
		l.Close()
		<-served
	}
}
