package chardev

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFDs is how many descriptors one message can carry.
const maxFDs = 16

// sockConn is a connection of a socket.
type sockConn struct {
	net.Conn
	unix *net.UnixConn // Conn, if it is one
	once sync.Once
	gone chan struct{} // closed by Close

	oob []byte // belongs to the reader
	mu  sync.Mutex
	fds []*os.File
}

func newSockConn(conn net.Conn) *sockConn {
	c := &sockConn{Conn: conn, gone: make(chan struct{})}
	if c.unix, _ = conn.(*net.UnixConn); c.unix != nil {
		c.oob = make([]byte, unix.CmsgSpace(4*maxFDs))
	}
	return c
}

func (c *sockConn) Read(p []byte) (int, error) {
	if c.unix == nil {
		return c.Conn.Read(p)
	}
	n, oobn, _, _, err := c.unix.ReadMsgUnix(p, c.oob)
	if oobn > 0 {
		c.receive(c.oob[:oobn])
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF // package net wraps it here, but not in Read
	}
	return max(n, 0), err
}

// receive keeps the descriptors of a message in place of those of an earlier
// one which nobody took.
func (c *sockConn) receive(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil || len(fds) == 0 {
			continue
		}
		files := make([]*os.File, len(fds))
		for i, fd := range fds {
			files[i] = os.NewFile(uintptr(fd), "received")
		}
		closeAll(c.swapFDs(files))
	}
}

func (c *sockConn) swapFDs(files []*os.File) []*os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, c.fds = c.fds, files
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// TakeFDs implements Conn.
func (c *sockConn) TakeFDs() []*os.File { return c.swapFDs(nil) }

// Close implements Conn.
func (c *sockConn) Close() error {
	var err error = net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		closeAll(c.TakeFDs())
		close(c.gone)
	})
	return err
}

// hungUp tells, without waiting, whether the other side has closed.
func (c *sockConn) hungUp() bool {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0
	})
	return gone || err != nil
}
