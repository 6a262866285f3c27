// Package nbd_test holds the NBD server against everybody who may talk to it:
// the reference's server with the same bytes, real clients, clients that break
// the rules, and load.
//
//   - pair_test.go, handshake_test.go, request_test.go, random_test.go: the same
//     bytes go to the reference and to ours, and what comes back is compared;
//   - tools_test.go: programs that were written for other servers;
//   - peers_test.go, fuzz_test.go: clients that lie, stall and vanish;
//   - load_test.go, stop_test.go, memory_test.go: what users count on.
package nbd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// patience bounds what should take milliseconds.
const patience = 10 * time.Second

// buildDir gets the program, once somebody needs it.
var buildDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if buildDir, err = os.MkdirTemp("", "q"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(buildDir)
	status := m.Run()
	if err := goleak.Find(); err != nil && status == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// build is the program under test.
var build = sync.OnceValues(func() (*daemon.Program, error) {
	root, err := daemon.Root()
	if err != nil {
		return nil, err
	}
	return daemon.Ours(root, buildDir)
})

func ours(tb testing.TB) *daemon.Program {
	tb.Helper()
	p, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// shortDir is a folder whose path leaves room for the name of a socket.
func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// storage runs a storage daemon in a folder until the test ends; the NBD
// server listens on n.sock and QMP on m.sock.
func storage(tb testing.TB, program *daemon.Program, dir string, options ...string) *daemon.Process {
	tb.Helper()
	command := append(program.Storage[:len(program.Storage):len(program.Storage)],
		"--chardev", "socket,id=c0,path="+dir+"/m.sock,server=on,wait=off", "--monitor", "c0")
	p, err := daemon.Start(append(command, options...), dir, os.Environ())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Kill)
	if err := p.AwaitSocket(filepath.Join(dir, "m.sock"), patience); err != nil {
		tb.Fatalf("%s: %v\n%s", program.Name, err, p.Output())
	}
	return p
}

// instance is a daemon in this process, with an NBD server on n.sock in the
// returned folder.
type instance struct {
	*control.Instance
	tb  testing.TB
	dir string

	mu         sync.Mutex
	complaints []string
}

// serve makes a daemon and runs commands, given as names and JSON in turn.
func serve(tb testing.TB, commands ...string) *instance {
	tb.Helper()
	i := &instance{tb: tb, dir: shortDir(tb)}
	i.Instance = control.New(control.Config{Complain: i.complain})
	i.Start()
	tb.Cleanup(i.Close)
	i.do("nbd-server-start", `{"addr": {"type": "unix", "data": {"path": %q}}}`, i.socket())
	for ; len(commands) > 1; commands = commands[2:] {
		i.do(commands[0], "%s", commands[1])
	}
	return i
}

func (i *instance) socket() string { return filepath.Join(i.dir, "n.sock") }

func (i *instance) complain(line string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.complaints = append(i.complaints, line)
}

// try runs a command.
func (i *instance) try(command, format string, args ...any) ([]byte, error) {
	v, err := qjson.Parse(fmt.Appendf(nil, format, args...))
	if err != nil {
		return nil, err
	}
	return i.Execute(context.Background(), command, v)
}

// do runs a command that must succeed.
func (i *instance) do(command, format string, args ...any) []byte {
	i.tb.Helper()
	out, err := i.try(command, format, args...)
	if err != nil {
		i.tb.Fatalf("%s: %v", command, err)
	}
	return out
}

// ask is do without arguments.
func (i *instance) ask(command string) []byte {
	i.tb.Helper()
	return i.do(command, "{}")
}

// sparseFile makes a file of the given length without data.
func sparseFile(tb testing.TB, path string, size int64) {
	tb.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// pattern is n bytes that tell where they belong, and are never zero.
func pattern(offset int64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		at := offset + int64(i)
		b[i] = byte(at*7+at>>9*13) | 1
	}
	return b
}
