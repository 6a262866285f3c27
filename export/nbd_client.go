package export

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/qmpblock/qmpblock/nbd"
)

// The bounds of what one client can keep busy. A client that sends more than
// that, or does not read its replies, has to wait.
const (
	// maxRequests is the number of requests under way.
	maxRequests = 64
	// maxBytes is the memory of their data; a single request may have more.
	maxBytes = 32 << 20
	// maxWorkers is the number of requests that wait for the medium at once.
	maxWorkers = 16
)

// nbdClient is one client, from the handshake to the end.
//
// Its own goroutine reads requests. Those that need not wait for the medium it
// carries out at once; for others there are workers, which exist only as long
// as there is something to do. Whoever has a reply when nobody is writing
// writes it, with all that others add meanwhile.
type nbdClient struct {
	server *nbdServer
	export *nbdExport // once the handshake has chosen it; guarded by mu until then
	mode   nbd.Mode
	metas  []nbd.MetaContext

	in   inbox
	out  outbox
	read chan struct{} // closed when nothing more is read

	sock     net.Conn // below TLS, if there is any
	mu       sync.Mutex
	room     sync.Cond // requests or bytes have become less
	requests int       // under way
	bytes    int64     // of their data
	dead     bool
	released bool  // the reference to the export is given back
	fault    error // why the server has cut it off, nil if it has not

	todo    requestList // for the workers
	workers int
	working sync.WaitGroup
	work    func() // the method value, made once
	free    requestPool
}

func newNBDClient(n *nbdServer, conn net.Conn) *nbdClient {
	c := &nbdClient{server: n, sock: conn, read: make(chan struct{})}
	c.room.L = &c.mu
	c.work = c.runWorker
	return c
}

// serve runs until the client goes or is cut off.
func (c *nbdClient) serve() error {
	defer c.working.Wait()
	defer close(c.read)
	defer c.out.flush(c) // replies that waited for company hold their requests
	defer c.cutOff()
	s, err := c.server.handshake(c.sock)
	if s.Offer != nil {
		c.begin(s)
	}
	if errors.Is(err, nbd.ErrAborted) {
		return nil
	}
	if err != nil {
		return err
	}
	err = c.transmit()
	if fault := c.cutOffFor(); fault != nil {
		err = fault
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		//lint:ignore ST1005 These are the reference's words.
		return fmt.Errorf("Disconnect client, due to: %w", err)
	}
	return nil
}

// begin makes the client a user of the export that it has entered.
func (c *nbdClient) begin(s *nbd.Session) {
	e := s.Offer.(*nbdExport)
	c.mode, c.metas = s.Mode, s.MetaContexts
	c.in.init(s.Conn, func() { c.out.flush(c) })
	c.out.init(s.Conn)
	c.mu.Lock()
	c.export = e
	c.mu.Unlock()
	if e.gone.Load() {
		// It went away before it could know of this client.
		c.cutOff()
	}
}

// uses tells whether the client has entered an export.
func (c *nbdClient) uses(e *nbdExport) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.export == e
}

// cutOff ends the connection. Requests under way are finished, and the last
// one lets go of the export.
func (c *nbdClient) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead {
		c.dead = true
		c.sock.Close()
		c.room.Broadcast()
	}
	c.release()
}

// blame cuts the client off for a reply that cannot be given.
func (c *nbdClient) blame(fault error) {
	c.mu.Lock()
	if c.fault == nil && !c.dead {
		c.fault = fault
	}
	c.mu.Unlock()
	c.cutOff()
}

// cutOffFor is why the server has cut the client off, nil if it has not.
func (c *nbdClient) cutOffFor() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fault
}

// release gives the reference to the export back when the client is dead and
// nothing is under way. The caller holds mu.
func (c *nbdClient) release() {
	if c.dead && c.requests == 0 && c.export != nil && !c.released {
		c.released = true
		c.export.unref()
	}
}

// admit counts a request with bytes of data, once there is room for it; false
// if the connection has ended.
func (c *nbdClient) admit(bytes int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.dead && !c.fits(bytes) {
		// Replies that wait for company hold room: out with them.
		c.mu.Unlock()
		c.out.flush(c)
		c.mu.Lock()
		if !c.dead && !c.fits(bytes) {
			c.room.Wait()
		}
	}
	if c.dead {
		return false
	}
	c.requests++
	c.bytes += bytes
	return true
}

func (c *nbdClient) fits(bytes int64) bool {
	return c.requests < maxRequests && (c.bytes == 0 || c.bytes+bytes <= maxBytes)
}

// dismiss ends a request whose reply is out.
func (c *nbdClient) dismiss(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests--
	c.bytes -= bytes
	c.room.Signal()
	c.release()
}

// hand gives a request to the workers.
func (c *nbdClient) hand(r *request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.todo.push(r)
	if c.workers < maxWorkers {
		c.workers++
		c.working.Add(1)
		go c.work()
	}
}

// runWorker carries out requests until there are none.
func (c *nbdClient) runWorker() {
	defer c.working.Done()
	for {
		c.mu.Lock()
		r := c.todo.pop()
		if r == nil {
			c.workers--
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		r.perform()
		c.out.put(r)
		c.out.flush(c)
	}
}
