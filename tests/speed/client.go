package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// patience bounds every wait.
const patience = 60 * time.Second

// client is a connection with blocking system calls.
type client struct {
	fd   int
	buf  []byte
	have int // bytes in buf
}

// dial connects to a UNIX socket, which may not be there yet.
func dial(path string, ended <-chan struct{}) (*client, error) {
	end := time.Now().Add(patience)
	for {
		c, err := connect(path)
		if err == nil {
			return c, nil
		}
		select {
		case <-ended:
			return nil, errors.New("the daemon ended while it started")
		default:
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("awaited socket %s for %v: %w", path, patience, err)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func connect(path string) (*client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
	)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &client{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (c *client) close() {
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
	}
	c.fd = -1
}

// line reads up to the end of a line and returns it. It is valid until the
// next call.
func (c *client) line() ([]byte, error) {
	c.have = 0
	for {
		if c.have == len(c.buf) {
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
		}
		n, err := unix.Read(c.fd, c.buf[c.have:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		c.have += n
		// One request at a time: nothing follows the reply.
		if c.buf[c.have-1] == '\n' {
			return c.buf[:c.have], nil
		}
	}
}

// ask sends a request and reads the reply.
func (c *client) ask(request []byte) ([]byte, error) {
	for rest := request; len(rest) > 0; {
		n, err := unix.Write(c.fd, rest)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	return c.line()
}

// do sends a request that must succeed.
func (c *client) do(request []byte) ([]byte, error) {
	reply, err := c.ask(request)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(reply, []byte(`{"return"`)) {
		return nil, fmt.Errorf("%s answered: %s", bytes.TrimSpace(request), bytes.TrimSpace(reply))
	}
	return reply, nil
}

// instance is a running daemon with a client that has negotiated.
type instance struct {
	*client
	process *daemon.Process
	dir     string
	// took is the time from the daemon's start to its greeting.
	took time.Duration
}

// start starts a daemon. The reference may spin for ever, or end, when its
// first client goes at once, about one time in a thousand: then another gets
// the work.
func start(path string) (*instance, error) {
	const tries = 3
	for try := 1; ; try++ {
		i, err := startOnce(path)
		if err == nil || try == tries {
			return i, err
		}
	}
}

func startOnce(path string) (*instance, error) {
	dir, err := os.MkdirTemp("", "speed")
	if err != nil {
		return nil, err
	}
	i := &instance{dir: dir}
	if err := i.open(path); err != nil {
		i.stop()
		return nil, err
	}
	return i, nil
}

func (i *instance) open(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	socket := filepath.Join(i.dir, "qmp.sock")
	command := append(daemon.At(path).Storage,
		"--chardev", "socket,path="+socket+",server=on,wait=off,id=c", "--monitor", "c")
	began := time.Now()
	if i.process, err = daemon.Start(command, i.dir, os.Environ()); err != nil {
		return err
	}
	if err := i.greet(socket); err != nil {
		return err
	}
	i.took = time.Since(began)
	// QEMU may greet a client twice that comes while it starts, or drop one
	// that comes right behind it: the work is for one that comes later.
	i.close()
	const settling = 5 * time.Second
	if err := i.process.AwaitSocket(socket, settling); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; i.close() {
		err := i.negotiate(socket)
		if !errors.Is(err, unix.ECONNRESET) || time.Now().After(end) {
			return err
		}
	}
}

func (i *instance) negotiate(socket string) error {
	if err := i.greet(socket); err != nil {
		return err
	}
	_, err := i.do([]byte("{\"execute\":\"qmp_capabilities\"}\n"))
	return err
}

// greet connects and reads the greeting.
func (i *instance) greet(socket string) (err error) {
	if i.client, err = dial(socket, i.process.Done()); err != nil {
		return fmt.Errorf("%w; it printed: %s", err, i.process.Output())
	}
	_, err = i.line()
	return err
}

func (i *instance) stop() {
	if i.client != nil {
		i.close()
	}
	if i.process != nil {
		i.process.Kill()
	}
	_ = os.RemoveAll(i.dir)
}

// resident is the daemon's memory that is not shared with the page cache
// alone: its resident set in bytes.
func (i *instance) resident() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.process.Pid()))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kilobytes float64
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		return 0, fmt.Errorf("no VmRSS: %w", err)
	}
	return kilobytes * 1024, nil
}
