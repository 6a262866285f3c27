package nbd

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qerr"
)

// The pauses between attempts to connect, each twice as long as the one
// before (observed).
const (
	firstPause = time.Second
	maxPause   = 16 * time.Second
)

// handshakeLimit is how long a silent server is waited for.
const handshakeLimit = time.Minute

// connection is a client of a server that comes back when it was lost.
type connection struct {
	options    *options
	acceptable func(*nbd.Client) error
	mode       nbd.Mode      // of the first connection; constant afterwards
	size       atomic.Uint64 // of the export, in bytes, as the server told last

	ctx      context.Context // ends when the node is closed
	cancel   context.CancelFunc
	attempts sync.WaitGroup

	mu     sync.Mutex
	client *nbd.Client   // nil while the connection is lost
	back   chan struct{} // closed when the attempt under way succeeds; nil: there is none
	until  time.Time     // for as long requests wait
}

func newConnection(o *options, acceptable func(*nbd.Client) error) *connection {
	c := &connection{options: o, acceptable: acceptable}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// current is the client, nil while the connection is lost.
func (c *connection) current() *nbd.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client
}

// open connects for the first time. With a timeout it tries until then,
// whatever the reason of the failure (observed).
func (c *connection) open() error {
	ctx := c.ctx
	if c.options.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.options.timeout)
		defer cancel()
	}
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		client, err := c.connect(ctx)
		if err == nil {
			c.client, c.mode = client, client.Mode()
			c.size.Store(client.Export().Size)
			return nil
		}
		if c.options.timeout == 0 || !sleep(ctx, pause) {
			return err
		}
	}
}

// sleep waits, or returns false when the context ends before or just then.
func sleep(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		<-ctx.Done()
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect is one attempt.
func (c *connection) connect(ctx context.Context) (*nbd.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, max(handshakeLimit, c.options.timeout))
	defer cancel()
	conn, err := c.options.address.Dial(ctx, c.options.fdSource)
	if err != nil {
		return nil, orTimeout(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	session, err := nbd.ClientHandshake(conn, nbd.ClientConfig{
		Export:      deref(c.options.export),
		MetaContext: c.options.context,
		Mode:        nbd.Extended,
		StartTLS:    c.options.startTLS,
	})
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, orTimeout(ctx, err)
	}
	return nbd.NewClient(session), nil
}

// orTimeout is what the reference says of an attempt that took too long.
func orTimeout(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return qerr.New("Connection attempt cancelled by timeout")
	}
	return err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// do calls f with a client, again with the next one if the connection is lost
// meanwhile. It returns what f returns otherwise, or an errno when there is no
// connection to be had.
func (c *connection) do(f func(*nbd.Client) error) error {
	for {
		client, err := c.acquire()
		if err != nil {
			return err
		}
		if err = f(client); err == nil {
			return nil
		}
		var lost *nbd.LostError
		if !errors.As(err, &lost) {
			return qerr.From(err)
		}
		if !c.lose(client) {
			return qerr.From(lost.Errno)
		}
	}
}

// lose notes that a client's connection is lost. The result tells whether
// requests wait for the next.
func (c *connection) lose(client *nbd.Client) bool {
	c.mu.Lock()
	mine := c.client == client
	if mine {
		c.client = nil
		c.until = time.Now().Add(c.options.delay)
	}
	wait := c.options.delay > 0
	c.mu.Unlock()
	if mine {
		client.Close()
	}
	return wait
}

// acquire returns the client. While there is none it sees that there will be,
// and waits if it is not too late for that.
func (c *connection) acquire() (*nbd.Client, error) {
	for {
		client, back, wait := c.state()
		if client != nil {
			return client, nil
		}
		if wait <= 0 || !c.await(back, wait) {
			return nil, qerr.From(syscall.EIO)
		}
	}
}

func (c *connection) state() (client *nbd.Client, back chan struct{}, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil, 0
	}
	if c.back == nil {
		back := make(chan struct{})
		c.back = back
		c.attempts.Go(func() { c.reconnect(back) })
	}
	return nil, c.back, time.Until(c.until)
}

func (c *connection) await(back chan struct{}, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-back:
		return true
	case <-t.C:
	case <-c.ctx.Done():
	}
	return false
}

// reconnect tries until it succeeds or the node is closed.
func (c *connection) reconnect(back chan struct{}) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		client, err := c.connect(c.ctx)
		if err == nil {
			if err = c.acceptable(client); err == nil {
				c.regain(client, back)
				return
			}
			client.Close()
		}
		if !sleep(c.ctx, pause) {
			return
		}
	}
}

func (c *connection) regain(client *nbd.Client, back chan struct{}) {
	c.size.Store(client.Export().Size)
	c.mu.Lock()
	c.client, c.back = client, nil
	c.mu.Unlock()
	close(back)
}

// close ends the connection, or the attempts to get one.
func (c *connection) close() {
	c.cancel()
	c.attempts.Wait()
	c.options.close()
	if client := c.current(); client != nil {
		client.Close()
	}
}
