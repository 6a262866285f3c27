package chardev

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// stream is a device over descriptors that are there all the time: a file, a
// terminal, a named pipe. It has one connection at a time, until its input
// ends.
type stream struct {
	name string
	in   io.Reader // nil: nothing ever comes
	out  io.Writer // nil: everything is swallowed

	// cleanup runs when the device is closed.
	cleanup []func()

	mu     sync.Mutex
	conn   *streamConn
	ended  bool
	change chan struct{} // closed at the next change of the fields above
	closed chan struct{}
}

func newStream(name string, in io.Reader, out io.Writer) *stream {
	return &stream{name: name, in: in, out: out, change: make(chan struct{}), closed: make(chan struct{})}
}

// onClose adds something to do when the device is closed; what was added last
// is done first.
func (s *stream) onClose(f func()) *stream {
	s.cleanup = append(s.cleanup, f)
	return s
}

func (s *stream) filename() string { return s.name }

func (s *stream) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

func (s *stream) close() {
	s.mu.Lock()
	close(s.closed)
	conn := s.conn
	s.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	for i := len(s.cleanup) - 1; i >= 0; i-- {
		s.cleanup[i]()
	}
}

func (s *stream) accept(ctx context.Context) (Conn, error) {
	for {
		conn, change := s.tryAccept()
		if conn != nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closed:
			return nil, net.ErrClosed
		case <-change:
		}
	}
}

func (s *stream) tryAccept() (Conn, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil || s.ended || s.isClosed() {
		return nil, s.change
	}
	s.setReadDeadline(time.Time{})
	s.conn = &streamConn{s: s, closed: make(chan struct{})}
	return s.conn, nil
}

// release lets the next connection come, if there will be one.
func (s *stream) release(ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	s.ended = s.ended || ended
	close(s.change)
	s.change = make(chan struct{})
}

// setReadDeadline wakes up a Read, or lets Reads block again. Regular files
// know no deadline, but do not block either.
func (s *stream) setReadDeadline(t time.Time) {
	if f, ok := s.in.(*os.File); ok {
		f.SetReadDeadline(t)
	} else if c, ok := s.in.(net.Conn); ok {
		c.SetReadDeadline(t)
	}
}

// streamConn is the connection of a stream.
type streamConn struct {
	s      *stream
	once   sync.Once
	closed chan struct{}

	reading sync.Mutex // held during Read
	ended   bool       // the input has ended
}

func (c *streamConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *streamConn) Read(p []byte) (int, error) {
	if c.s.in == nil {
		<-c.closed
		return 0, net.ErrClosed
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := c.s.in.Read(p)
	if err != nil && c.isClosed() {
		return n, net.ErrClosed
	}
	c.ended = c.ended || err != nil
	return n, err
}

func (c *streamConn) Write(p []byte) (int, error) {
	switch {
	case c.isClosed():
		return 0, net.ErrClosed
	case c.s.out == nil:
		return len(p), nil
	}
	return c.s.out.Write(p)
}

// Close waits for a Read to end, so that the deadline which wakes it up is not
// lifted for the next connection before it did.
func (c *streamConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.s.setReadDeadline(time.Unix(0, 1))
		c.reading.Lock()
		defer c.reading.Unlock()
		c.s.release(c.ended)
	})
	return nil
}

func (c *streamConn) TakeFDs() []*os.File { return nil }
