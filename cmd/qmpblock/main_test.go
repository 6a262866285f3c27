package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// patience bounds what should take milliseconds.
const patience = 20 * time.Second

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "q")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	binary = filepath.Join(folder, "qmpblock")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%s\n", out, err)
		return 1
	}
	return m.Run()
}

// shortDir is a folder whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// start runs the program in a folder until the test ends.
func start(t *testing.T, folder string, args ...string) *daemon.Process {
	t.Helper()
	return startAs(t, binary, folder, args...)
}

func startAs(t *testing.T, program, folder string, args ...string) *daemon.Process {
	t.Helper()
	p, err := daemon.Start(append([]string{program}, args...), folder, append(os.Environ(), "TMPDIR="+folder))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// awaitSocket waits until a server listens in the folder.
func awaitSocket(t *testing.T, p *daemon.Process, folder, name string) {
	t.Helper()
	if err := p.AwaitSocket(filepath.Join(folder, name), patience); err != nil {
		t.Fatalf("%s\n%s", err, p.Output())
	}
}

// stop ends a server as a person does, which is no failure.
func stop(t *testing.T, p *daemon.Process) {
	t.Helper()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if status, err := p.Wait(patience); status != 0 || err != nil {
		t.Errorf("the server ended with %d, %v\n%s", status, err, p.Output())
	}
}

// result is what a run of the program left.
type result struct {
	out, err string
	status   int
}

// call runs the program to its end.
func call(t *testing.T, folder string, args ...string) result {
	t.Helper()
	return callAs(t, binary, folder, args...)
}

func callAs(t *testing.T, program, folder string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Stdout, c.Stderr = folder, &stdout, &stderr
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		err  string
	}{
		{[]string{"nonsense"}, `qmpblock: unknown command "nonsense" for "qmpblock"`},
		{[]string{"--nonsense"}, "qmpblock: unknown flag: --nonsense"},
		{[]string{"--log-level", "loud"}, "qmpblock: 'loud' is not a log level"},
		{[]string{"io", "disk0"}, "qmpblock: requires at least 2 arg(s), only received 1"},
		{[]string{"io", "--qmp", "missing.sock", "disk0", "length"}, "qmpblock: dial unix missing.sock: connect: no such file or directory"},
		{[]string{"jobs"}, "qmpblock: accepts 1 arg(s), received 0"},
		{[]string{"jobs", "--watch", "missing.sock"}, "qmpblock: dial unix missing.sock: connect: no such file or directory"},
		{[]string{"jobs", "--watch", "--every", "0s", "missing.sock"}, "qmpblock: --every must be more than nothing"},
		{[]string{"log-writes", "replay", "log"}, `qmpblock: required flag(s) "onto" not set`},
		{[]string{"system", "-nonsense", "x"}, "qmpblock: -nonsense: invalid option"},
		{[]string{"system", "word"}, "qmpblock: word: invalid option"},
		{[]string{"system", "-blockdev"}, "qmpblock: -blockdev: requires an argument"},
		{[]string{"system", "-log-level", "loud"}, "qmpblock: --log-level loud: 'loud' is not a log level"},
		{[]string{"storage-daemon", "--log-level", "loud"}, "qmpblock: --log-level loud: 'loud' is not a log level"},
		{[]string{"storage-daemon", "word"}, "qmpblock: word: Unexpected argument"},
		{[]string{"storage-daemon", "--nonsense"}, binary + ": unrecognized option '--nonsense'"},
		{[]string{"storage-daemon", "--jsonrpc", "here"},
			"qmpblock: --jsonrpc here: JSON-RPC address 'here' must be unix:PATH or ws:HOST:PORT"},
		{[]string{"storage-daemon", "--pidfile", "missing/pid"},
			"qmpblock: cannot create PID file: Could not create 'missing/pid': No such file or directory"},
		{[]string{"storage-daemon", "--trace", "events=missing"}, "qmpblock:missing: No such file or directory"},
		{[]string{"storage-daemon", "--daemonize", "--blockdev", "driver=nonsense"},
			"qmpblock: --blockdev driver=nonsense: Parameter 'driver' does not accept value 'nonsense'"},
		{[]string{"storage-daemon", "--daemonize", "--chardev", "stdio,id=c"},
			"qmpblock: --chardev stdio,id=c: cannot use stdio with -daemonize"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			folder := shortDir(t)
			got := call(t, folder, c.args...)
			if got.status != 1 || got.out != "" || got.err != c.err+"\n" {
				t.Errorf("got %+v, want %q", got, c.err)
			}
			if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestCalledByName looks at the program under the names of those it stands in
// for.
func TestCalledByName(t *testing.T) {
	t.Parallel()
	folder := shortDir(t)
	for name, want := range map[string]string{
		"qemu-storage-daemon": "qemu-storage-daemon version 10.0.2 ",
		"qemu-system-x86_64":  "QEMU emulator version 10.0.2 ",
	} {
		link := filepath.Join(folder, name)
		if err := os.Symlink(binary, link); err != nil {
			t.Fatal(err)
		}
		if got := callAs(t, link, folder, "--version"); got.status != 0 || !strings.HasPrefix(got.out, want) {
			t.Errorf("%s --version: %+v", name, got)
		}
		if got := callAs(t, link, folder, "--help"); got.status != 0 || !strings.HasPrefix(got.out, "Usage: "+name+" [options]\n") {
			t.Errorf("%s --help: %+v", name, got)
		}
	}
	link := filepath.Join(folder, "qemu-storage-daemon")
	if got := callAs(t, link, folder, "--blockdev"); got.err != link+": option '--blockdev' requires an argument\n" {
		t.Errorf("a missing argument: %+v", got)
	}
	p := startAs(t, link, folder,
		"--chardev", "socket,id=c,path=qmp.sock,server=on,wait=off", "--monitor", "c")
	awaitSocket(t, p, folder, "qmp.sock")
	stop(t, p)
	if text := p.Output(); text != "" {
		t.Errorf("it says %q", text)
	}
}
