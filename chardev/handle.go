package chardev

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// handle is the descriptor of a connected socket. Its system calls block their
// thread, and the kernel wakes that thread directly. Package net would first
// ask in vain, park the goroutine, and have another thread find out that there
// is something to read, which takes longer than most commands do.
type handle struct {
	fd int

	mu     sync.Mutex
	calls  int // under way
	closed bool
}

// newHandle takes a connection's descriptor over from package net, also when
// it fails.
func newHandle(conn net.Conn) (*handle, error) {
	defer conn.Close()
	h := new(handle)
	err := control(conn.(syscall.Conn), func(fd int) (err error) { // all of package net's are
		h.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(h.fd, false); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// call makes a system call that waits for events, again if a signal interrupts
// it. A socket that another process has as well may become non-blocking there.
func (h *handle) call(events int16, f func(fd int) error) error {
	if !h.enter() {
		return net.ErrClosed
	}
	defer h.leave()
	for {
		switch err := f(h.fd); err {
		case unix.EINTR:
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: events}}, -1)
		default:
			return err
		}
	}
}

func (h *handle) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.calls++
	return true
}

// leave closes the descriptor when that has been waiting for the last call:
// before, its number must not become that of another file.
func (h *handle) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls--
	if h.closed && h.calls == 0 {
		_ = unix.Close(h.fd)
	}
}

// close ends all calls and does not wait for them. It returns false when it
// was called before.
func (h *handle) close() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.closed = true
	if h.calls > 0 {
		_ = unix.Shutdown(h.fd, unix.SHUT_RDWR) // wakes them, also when it fails because the other side is gone
	} else {
		_ = unix.Close(h.fd)
	}
	return true
}
