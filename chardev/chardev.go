package chardev

import (
	"context"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qom"
	"github.com/qmpblock/qmpblock/sockets"
)

// Conn is one connection over a device. Read and Write block; Close, from any
// goroutine, ends both.
type Conn interface {
	io.ReadWriteCloser
	// TakeFDs returns the descriptors that came with the latest message that
	// carried any, and were not taken yet. The caller owns them.
	TakeFDs() []*os.File
}

// device is what is behind a label.
type device interface {
	// accept waits for the next connection, for ever if there will be no
	// more.
	accept(ctx context.Context) (Conn, error)
	filename() string
	// close ends everything; accept returns net.ErrClosed from then on.
	close()
}

// Chardev is a character device.
type Chardev struct {
	label  string
	object *qom.Object
	dev    device
	log    *os.File // nil: none

	closing sync.Once

	mu   sync.Mutex
	user *Frontend // nil: not in use
}

// open makes a device that is not in the tree yet.
func (s *Set) open(ctx context.Context, label string, b Backend, fds sockets.FDSource) (*Chardev, error) {
	if other, ok := b.(*Other); ok {
		return nil, errUnknownKind(other.Name)
	}
	c := &Chardev{label: label}
	var err error
	if c.log, err = openLog(b.common()); err != nil {
		return nil, err
	}
	if c.dev, err = s.openDevice(ctx, label, b, fds); err != nil {
		c.closeLog()
		return nil, err
	}
	c.object = s.tree.NewObject("chardev-"+b.kind(), c)
	return c, nil
}

func (s *Set) openDevice(ctx context.Context, label string, b Backend, fds sockets.FDSource) (device, error) {
	switch b := b.(type) {
	case *Null:
		return newStream("null", nil, nil), nil
	case *File:
		return openFile(b)
	case *Pipe:
		return openPipe(b)
	case *Serial:
		return openSerial(b)
	case *Parallel:
		return openParallel(b)
	case *Stdio:
		return s.openStdio(b)
	case *PTY:
		return openPTY(b)
	case *UDP:
		return openUDP(ctx, b)
	case *Ringbuf:
		return newRingbuf("ringbuf", b)
	case *Memory:
		return newRingbuf("memory", &b.Ringbuf)
	case *Socket:
		return s.openSocket(ctx, b, fds)
	case *Mux:
		return s.openMux(b)
	case *Hub:
		return s.openHub(label, b)
	}
	return nil, errUnknownKind(b.kind())
}

func openLog(c *Common) (*os.File, error) {
	if c.LogFile == nil {
		return nil, nil
	}
	mode := os.O_TRUNC
	if c.LogAppend {
		mode = os.O_APPEND
	}
	f, err := os.OpenFile(*c.LogFile, os.O_WRONLY|os.O_CREATE|mode, 0o666)
	if err != nil {
		return nil, sysError(err, "Could not create '%s'", *c.LogFile)
	}
	return f, nil
}

func (c *Chardev) closeLog() {
	if c.log != nil {
		c.log.Close()
	}
}

// Label returns the device's name.
func (c *Chardev) Label() string { return c.label }

// Filename describes the device's other end as query-chardev shows it:
// "unix:qmp.sock,server=on".
func (c *Chardev) Filename() string { return c.dev.filename() }

// FrontendOpen tells whether a frontend uses the device.
func (c *Chardev) FrontendOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user != nil && !c.user.hidden
}

func (c *Chardev) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user != nil
}

func (c *Chardev) isMux() bool {
	switch c.dev.(type) {
	case *mux, *hub:
		return true
	}
	return false
}

// remove takes the device out of the tree and closes it.
func (c *Chardev) remove() {
	c.object.Remove()
	c.close()
}

func (c *Chardev) close() {
	c.closing.Do(func() {
		c.dev.close()
		c.closeLog()
	})
}

// Frontend is the right to use a device.
type Frontend struct {
	c      *Chardev
	hidden bool // a mux or hub, which does not count as open
}

// Attach makes the caller the device's frontend; there can be only one.
func (c *Chardev) Attach() (*Frontend, error) {
	if _, ok := c.dev.(*hub); ok {
		return nil, qerr.New("chardev '%s' is a hub, which cannot have a frontend", c.label)
	}
	return c.attach(false)
}

func (c *Chardev) attach(hidden bool) (*Frontend, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.user != nil {
		return nil, qerr.New("chardev '%s' is already in use", c.label)
	}
	c.user = &Frontend{c, hidden}
	return c.user, nil
}

// Detach gives the device back. The frontend's connection must be closed.
func (f *Frontend) Detach() {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if f.c.user == f {
		f.c.user = nil
	}
}

// Chardev returns the device.
func (f *Frontend) Chardev() *Chardev { return f.c }

// Accept waits for the next connection; the one before must have been closed.
// The error is that of ctx, or net.ErrClosed when the device is gone.
func (f *Frontend) Accept(ctx context.Context) (Conn, error) {
	conn, err := f.c.dev.accept(ctx)
	if err == nil && f.c.log != nil {
		conn = logConn{conn, f.c.log}
	}
	return conn, err
}

// logConn writes everything to a log as well.
type logConn struct {
	Conn
	log *os.File
}

func (c logConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.log.Write(p[:n])
	return n, err
}

// sysError makes an error of a failed system call.
func sysError(err error, format string, args ...any) error {
	return qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), format, args...)
}
