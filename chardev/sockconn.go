package chardev

import (
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFDs is how many descriptors one message can carry.
const maxFDs = 16

// sockConn is a connection of a socket.
type sockConn struct {
	handle        *handle
	local, remote net.Addr
	gone          chan struct{} // closed by Close

	oob []byte // belongs to the reader
	mu  sync.Mutex
	fds []*os.File
}

// newSockConn takes a connection over from package net.
func newSockConn(conn net.Conn) (*sockConn, error) {
	h, err := newHandle(conn)
	if err != nil {
		return nil, err
	}
	return &sockConn{
		handle: h, local: conn.LocalAddr(), remote: conn.RemoteAddr(),
		gone: make(chan struct{}), oob: make([]byte, unix.CmsgSpace(4*maxFDs)),
	}, nil
}

// Read implements Conn.
func (c *sockConn) Read(p []byte) (n int, err error) {
	var oobn int
	err = c.handle.call(unix.POLLIN, func(fd int) (err error) {
		n, oobn, _, _, err = unix.Recvmsg(fd, p, c.oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return 0, err
	}
	c.receive(c.oob[:oobn])
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write implements Conn.
func (c *sockConn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		err = c.handle.call(unix.POLLOUT, func(fd int) error {
			sent, err := unix.Write(fd, p[n:])
			n += max(sent, 0)
			return err
		})
	}
	return n, err
}

// receive keeps the descriptors of a message in place of those of an earlier
// one which nobody took.
func (c *sockConn) receive(oob []byte) {
	if len(oob) == 0 {
		return
	}
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
	if !c.handle.close() {
		return net.ErrClosed
	}
	closeAll(c.TakeFDs())
	close(c.gone)
	return nil
}

// hungUp tells, without waiting, whether the other side has closed.
func (c *sockConn) hungUp() (gone bool) {
	err := c.handle.call(0, func(fd int) error {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 0)
		gone = n > 0
		return err
	})
	return gone || err != nil
}
