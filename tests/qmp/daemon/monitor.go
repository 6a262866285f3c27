package daemon

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Monitor is the QMP monitor of a daemon that runs for one test, over a pair of
// connected sockets: no file, and nothing to wait for.
type Monitor struct {
	tb MonitorTB
	// Process is the daemon.
	Process *Process

	conn *net.UnixConn
	in   *bufio.Reader
}

// MonitorTB is what a monitor needs of a *testing.T.
type MonitorTB interface {
	TB
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// replyLimit is how long a message of the daemon may take.
const replyLimit = time.Minute

// StorageMonitor starts the storage daemon in a folder ("": this one) and
// negotiates. The daemon ends with the test.
func (p *Program) StorageMonitor(tb MonitorTB, dir string, options ...string) *Monitor {
	tb.Helper()
	monitor := []string{"--chardev", "socket,id=c0,fd=3", "--monitor", "c0"}
	return startMonitor(tb, dir, p.Storage, monitor, options)
}

// SystemMonitor is the same for the system emulator, stopped and without
// default devices. A program that has none skips the test.
func (p *Program) SystemMonitor(tb MonitorTB, dir string, options ...string) *Monitor {
	tb.Helper()
	if p.System == nil {
		Missing(tb, p.Name+" has no system emulator")
	}
	monitor := []string{"-nodefaults", "-display", "none", "-S", "-chardev", "socket,id=c0,fd=3", "-mon", "chardev=c0,mode=control"}
	return startMonitor(tb, dir, p.System, monitor, options)
}

func startMonitor(tb MonitorTB, dir string, words ...[]string) *Monitor {
	tb.Helper()
	conn, theirs, err := socketPair()
	if err != nil {
		tb.Fatal(err)
	}
	defer theirs.Close()
	tb.Cleanup(func() { conn.Close() })
	var command []string
	for _, w := range words {
		command = append(command, w...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.ExtraFiles = dir, []*os.File{theirs}
	p, err := start(cmd)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Kill)
	m := &Monitor{tb: tb, Process: p, conn: conn, in: bufio.NewReader(conn)}
	if _, err := m.in.ReadBytes('\n'); err != nil {
		tb.Fatalf("no greeting: %v\n%s", err, p.Output())
	}
	m.Send([]byte(`{"execute": "qmp_capabilities"}`))
	m.Read()
	return m
}

// socketPair returns a connection and a file for its other end.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// Send writes a command, and files that go with it.
func (m *Monitor) Send(command []byte, files ...*os.File) {
	m.tb.Helper()
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := m.conn.WriteMsgUnix(command, rights, nil); err != nil {
		m.tb.Fatalf("sending %s: %v", command, err)
	}
}

// Read returns the next message, without its line's end.
func (m *Monitor) Read() []byte {
	m.tb.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(replyLimit)); err != nil {
		m.tb.Fatal(err)
	}
	line, err := m.in.ReadBytes('\n')
	if err == io.EOF {
		m.tb.Fatal("the daemon has closed its monitor")
	}
	if err != nil {
		m.tb.Fatalf("reading from the daemon: %v", err)
	}
	return bytes.TrimRight(line, "\r\n")
}

// Ask sends a command and returns the next message.
func (m *Monitor) Ask(command []byte, files ...*os.File) []byte {
	m.tb.Helper()
	m.Send(command, files...)
	return m.Read()
}
