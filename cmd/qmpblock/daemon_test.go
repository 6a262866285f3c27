package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/trace"
)

func TestPidfile(t *testing.T) {
	t.Parallel()
	folder := shortDir(t)
	options := []string{"storage-daemon", "--chardev", "socket,id=c,path=qmp.sock,server=on,wait=off", "--monitor", "c", "--pidfile", "pid"}
	p := start(t, folder, options...)
	awaitSocket(t, p, folder, "qmp.sock")
	if pid := readPid(t, folder); pid != p.Pid() {
		t.Errorf("process %d, in the file %d", p.Pid(), pid)
	}
	second := call(t, folder, "storage-daemon", "--pidfile", "pid")
	want := "qmpblock: cannot create PID file: Cannot lock pid file: Resource temporarily unavailable\n"
	if second != (result{err: want, status: 1}) {
		t.Errorf("a second daemon: %+v", second)
	}
	if pid := readPid(t, folder); pid != p.Pid() {
		t.Errorf("the second daemon changed the file to %d", pid)
	}
	stop(t, p)
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func readPid(t *testing.T, folder string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestDaemonize ends a daemon that is no child of ours any more.
func TestDaemonize(t *testing.T) {
	t.Parallel()
	folder := shortDir(t)
	// Orphans become our children, so that we can wait for them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	// The path of the socket is absolute: the folder changes, and one that is
	// not would stay behind, as the reference's does.
	r := call(t, folder, "storage-daemon", "--daemonize", "--pidfile", "pid",
		"--chardev", "socket,id=c,path="+folder+"/qmp.sock,server=on,wait=off", "--monitor", "c",
		"--blockdev", "driver=null-co,node-name=n")
	if r != (result{}) {
		t.Fatalf("going to the background: %+v", r)
	}
	pid := readPid(t, folder)
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	defer unix.Close(process)
	var status unix.WaitStatus
	reap := sync.OnceFunc(func() {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			t.Error(err)
		}
	})
	defer reap()
	defer unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0)

	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("it is in session %d, %v", session, err)
	}
	if cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("it is in folder %s, %v", cwd, err)
	}
	// It is up: no waiting for the socket.
	conn, lines := dial(t, filepath.Join(folder, "qmp.sock"))
	if greeting := readLine(t, lines); !strings.HasPrefix(greeting, `{"QMP": `) {
		t.Errorf("greeting %s", greeting)
	}
	conn.Close()
	if err := unix.PidfdSendSignal(process, unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	if !ended(t, process) {
		t.Fatal("it does not end")
	}
	if reap(); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("it ended with %#x", status)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// ended waits for the end of a process.
func ended(t *testing.T, pidfd int) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll(fds, int(time.Until(end).Milliseconds()))
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	}
}

func dial(t *testing.T, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

func readLine(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	return line
}

func TestJSONRPC(t *testing.T) {
	t.Parallel()
	folder := shortDir(t)
	p := start(t, folder, "storage-daemon", "--jsonrpc", "unix:rpc.sock")
	awaitSocket(t, p, folder, "rpc.sock")
	conn, lines := dial(t, filepath.Join(folder, "rpc.sock"))
	for _, c := range []struct{ method, want string }{
		{"query-version", `"result":{"qemu":{"micro":2,"minor":0,"major":10}`},
		{"query-status", `"error":{"code":-32601,"message":"The command query-status has not been found"`},
	} {
		if _, err := conn.Write([]byte(`{"jsonrpc": "2.0", "id": 1, "method": "` + c.method + `"}` + "\n")); err != nil {
			t.Fatal(err)
		}
		if answer := readLine(t, lines); !strings.Contains(answer, c.want) {
			t.Errorf("%s: %s", c.method, answer)
		}
	}
	stop(t, p)
	if _, err := lines.ReadString('\n'); err == nil {
		t.Error("the connection outlives the server")
	}
}

func TestTraceHelp(t *testing.T) {
	t.Parallel()
	want := strings.Join(trace.Points(), "\n") + "\n"
	for _, args := range [][]string{
		{"--trace", "help"},
		{"storage-daemon", "--trace", "help"},
		{"storage-daemon", "-T", "?"},
		{"system", "-trace", "help"},
	} {
		if got := call(t, shortDir(t), args...); got != (result{out: want}) {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// logLine is what every line of a log has.
type logLine struct {
	Level   string `json:"level"`
	Time    string `json:"time"`
	Message string `json:"message"`
	Command string `json:"command"`
}

func logLines(t *testing.T, text string) []logLine {
	t.Helper()
	var lines []logLine
	for line := range strings.Lines(text) {
		var l logLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339, l.Time); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// TestTrace takes its patterns from a file; the lines are JSON where nobody
// reads them as they come.
func TestTrace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, option, file string }{
		{"stderr", "events=events", ""},
		{"file", "events=events,file=trace.log", "trace.log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			folder := shortDir(t)
			writeFile(t, filepath.Join(folder, "events"), "# commands only\n\n  qmp_command_*\n")
			p := start(t, folder, "storage-daemon", "--trace", c.option, "--log-level", "disabled", "--jsonrpc", "unix:rpc.sock")
			awaitSocket(t, p, folder, "rpc.sock")
			conn, lines := dial(t, filepath.Join(folder, "rpc.sock"))
			if _, err := conn.Write([]byte(`{"jsonrpc": "2.0", "id": 1, "method": "query-version"}` + "\n")); err != nil {
				t.Fatal(err)
			}
			readLine(t, lines)
			stop(t, p)
			text := p.Output()
			if c.file != "" {
				if text != "" {
					t.Errorf("on stderr: %s", text)
				}
				b, err := os.ReadFile(filepath.Join(folder, c.file))
				if err != nil {
					t.Fatal(err)
				}
				text = string(b)
			}
			got := logLines(t, text)
			if len(got) != 2 || got[0].Command != "query-version" || got[1].Command != "query-version" {
				t.Errorf("traced\n%s", text)
			}
		})
	}
}

func TestUnknownTracePoint(t *testing.T) {
	t.Parallel()
	folder := shortDir(t)
	p := start(t, folder, "storage-daemon", "--trace", "nonsense", "--jsonrpc", "unix:rpc.sock")
	awaitSocket(t, p, folder, "rpc.sock")
	stop(t, p)
	if got := p.Output(); !strings.HasPrefix(got, "qmpblock: --trace nonsense: warning: ") || strings.Count(got, "\n") != 1 {
		t.Errorf("it says %q", got)
	}
}

// TestPidfileOfOld finds a pidfile that nobody holds any more, as after a
// crash, and one that is removed between being opened and being locked.
func TestPidfileOfOld(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	writeFile(t, path, "1234567890\n")
	old, err := openLocked(path)
	if err != nil {
		t.Fatal(err)
	}
	if !names(path, old) {
		t.Error("the path does not lead to the file")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if names(path, old) {
		t.Error("the path leads to a file that is gone")
	}
	writeFile(t, path, "1234567890\n")
	if names(path, old) {
		t.Error("the path leads to another file's descriptor")
	}
	old.Close()

	p, err := createPidFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if pid := readPid(t, filepath.Dir(path)); pid != os.Getpid() {
		t.Errorf("the file says %d", pid)
	}
	p.remove()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

// TestServe runs the server for newcomers with sockets of its own choice.
func TestServe(t *testing.T) {
	t.Parallel()
	folder := shortDir(t)
	p := start(t, folder, "--qmp", "a,b.sock", "--qmp", "c.sock", "--jsonrpc", "unix:rpc.sock")
	awaitSocket(t, p, folder, "rpc.sock")
	for _, name := range []string{"a,b.sock", "c.sock"} {
		_, lines := dial(t, filepath.Join(folder, name))
		if greeting := readLine(t, lines); !strings.HasPrefix(greeting, `{"QMP": `) {
			t.Errorf("greeting on %s: %s", name, greeting)
		}
	}
	for _, want := range []string{"QMP on a,b.sock.", "QMP on c.sock.", "JSON-RPC 2.0 on unix:rpc.sock"} {
		if !strings.Contains(p.Output(), want+" ") && !strings.Contains(p.Output(), want+"\n") {
			t.Errorf("no %q in\n%s", want, p.Output())
		}
	}
	stop(t, p)
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
