package sockets

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// newSocket makes a stream socket. Package net is not used for listening: its
// backlog cannot be chosen.
func newSocket(family, protocol int) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, sysError(err, "Failed to create a socket")
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// bindTo takes an address of package syscall, which knows UNIX names that fill
// all their room.
func bindTo(file *os.File, addr syscall.Sockaddr) error {
	return control(file, func(fd int) error { return syscall.Bind(fd, addr) })
}

func listener(file *os.File, backlog int) (net.Listener, error) {
	if err := control(file, func(fd int) error { return unix.Listen(fd, backlog) }); err != nil {
		return nil, sysError(err, "Failed to listen on socket")
	}
	return net.FileListener(file)
}

// several is a listener on more than one address. A goroutine for each accepts
// until it is closed.
type several struct {
	all      []net.Listener
	accepted chan net.Conn
	done     chan struct{} // closed by Close
	close    sync.Once
	workers  sync.WaitGroup
	failed   chan error
}

// join makes one listener of several, at least one.
func join(all []net.Listener) net.Listener {
	if len(all) == 1 {
		return all[0]
	}
	s := &several{all: all, accepted: make(chan net.Conn), failed: make(chan error), done: make(chan struct{})}
	for _, l := range all {
		s.workers.Go(func() { s.serve(l) })
	}
	return s
}

func (s *several) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			// Whoever calls Accept decides whether to go on, as with one listener.
			select {
			case s.failed <- err:
			case <-s.done:
				return
			}
			continue
		}
		select {
		case s.accepted <- conn:
		case <-s.done:
			conn.Close()
			return
		}
	}
}

// Accept implements net.Listener.
func (s *several) Accept() (net.Conn, error) {
	select {
	case <-s.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case conn := <-s.accepted:
		return conn, nil
	case err := <-s.failed:
		return nil, err
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It waits for the goroutines.
func (s *several) Close() error {
	err := net.ErrClosed
	s.close.Do(func() {
		err = nil
		close(s.done)
		for _, l := range s.all {
			err = errors.Join(err, l.Close())
		}
		s.workers.Wait()
	})
	return err
}

// Addr returns the first address.
func (s *several) Addr() net.Addr { return s.all[0].Addr() }
