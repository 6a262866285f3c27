package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/sockets"
)

// backlog is how many clients can wait to be accepted.
const backlog = 128

// ServerOptions describe the one NBD server of a daemon.
type ServerOptions struct {
	// Context limits what is waited for at the start, and knows the client
	// whose descriptors FDs finds.
	Context context.Context
	Addr    sockets.Address
	FDs     sockets.FDSource
	// TLSCreds is the id of the credentials without which no client gets in,
	// nil for none.
	TLSCreds *string
	// TLSAuthz is the id of the object that knows whom to let in, "" for none.
	TLSAuthz string
	// HandshakeMax is the time a client has to choose an export, in seconds;
	// 0: as long as it likes.
	HandshakeMax uint32
	// MaxConnections is how many clients may be there at any time; 0: as many
	// as like.
	MaxConnections uint32
}

// nbdServer listens for clients and knows the exports of the kind nbd by the
// names that clients use.
type nbdServer struct {
	set      *Set
	opts     ServerOptions
	startTLS func(net.Conn) (net.Conn, error) // nil without TLS

	listener net.Listener
	tasks    sync.WaitGroup // accepting, and each client's

	mu      sync.Mutex
	exports []*nbdExport // the oldest first
	clients map[*nbdClient]struct{}
	place   sync.Cond // there may be a place for one more client
	stopped bool
	end     chan struct{} // closed when it is stopped
}

// StartServer begins to serve; exports are added later.
func (s *Set) StartServer(_ *aio.Lock, o *ServerOptions) error {
	if s.server != nil {
		return qerr.New("NBD server already running")
	}
	n := &nbdServer{set: s, opts: *o, clients: make(map[*nbdClient]struct{}), end: make(chan struct{})}
	n.place.L = &n.mu
	var err error
	if n.listener, _, err = o.Addr.Listen(o.Context, backlog, o.FDs); err != nil {
		return err
	}
	if o.TLSCreds != nil {
		if n.startTLS, err = s.cfg.StartTLS(*o.TLSCreds, o.TLSAuthz); err != nil {
			n.listener.Close()
			return err
		}
	}
	s.server = n
	n.tasks.Go(n.accept)
	return nil
}

// StopServer takes the exports away and cuts everybody off.
func (s *Set) StopServer(l *aio.Lock) error {
	n := s.server
	if n == nil {
		return errNotRunning()
	}
	s.closeAll(l, NBD)
	n.stop(l)
	s.server = nil
	return nil
}

func errNotRunning() error { return qerr.New("NBD server not running") }

// stop ends the listening and every client, and waits for their goroutines.
func (n *nbdServer) stop(l *aio.Lock) {
	n.mu.Lock()
	n.stopped = true
	close(n.end)
	clients := make([]*nbdClient, 0, len(n.clients))
	for c := range n.clients {
		clients = append(clients, c)
	}
	n.place.Broadcast()
	n.mu.Unlock()
	n.listener.Close()
	for _, c := range clients {
		c.cutOff()
	}
	l.Unlocked(n.tasks.Wait)
}

// accept gives each client that comes a goroutine.
func (n *nbdServer) accept() {
	// Accepting fails for a while when there are no descriptors left.
	const pause = 100 * time.Millisecond
	for n.awaitPlace() {
		conn, err := n.listener.Accept()
		switch {
		case err == nil:
			n.admit(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			n.set.cfg.Complain("accepting an NBD client: " + err.Error())
			n.pause(pause)
		}
	}
}

// awaitPlace waits until one more client may come; false: none ever will.
func (n *nbdServer) awaitPlace() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.stopped && n.full() {
		n.place.Wait()
	}
	return !n.stopped
}

func (n *nbdServer) full() bool {
	return n.opts.MaxConnections > 0 && len(n.clients) >= int(n.opts.MaxConnections)
}

// pause lets time pass, but not the end of the server.
func (n *nbdServer) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-n.end:
	}
}

// admit gives a client its goroutine.
func (n *nbdServer) admit(conn net.Conn) {
	c := newNBDClient(n, conn)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		conn.Close()
		return
	}
	n.clients[c] = struct{}{}
	n.tasks.Go(func() {
		defer n.leave(c)
		if err := c.serve(); err != nil {
			n.set.cfg.Complain(err.Error())
		}
	})
}

func (n *nbdServer) leave(c *nbdClient) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.clients, c)
	n.place.Signal()
}

// handshake leads one within its time limit.
func (n *nbdServer) handshake(conn net.Conn) (*nbd.Session, error) {
	if n.opts.HandshakeMax > 0 {
		limit := time.Duration(n.opts.HandshakeMax) * time.Second
		if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
			return &nbd.Session{Conn: conn}, err
		}
	}
	s, err := nbd.ServerHandshake(conn, nbd.ServerConfig{Offers: n.offers, Find: n.offer, StartTLS: n.startTLS})
	if err != nil {
		return s, fmt.Errorf("option negotiation failed: %w", err)
	}
	return s, s.Conn.SetDeadline(time.Time{})
}

// offers lists the exports for the handshake.
func (n *nbdServer) offers() []nbd.Offer {
	n.mu.Lock()
	defer n.mu.Unlock()
	offers := make([]nbd.Offer, len(n.exports))
	for i, e := range n.exports {
		offers[i] = e
	}
	return offers
}

// offer finds an export by the name that clients use.
func (n *nbdServer) offer(name string) nbd.Offer {
	if e := n.find(name); e != nil {
		return e
	}
	return nil
}

func (n *nbdServer) find(name string) *nbdExport {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.exports {
		if e.name == name {
			return e
		}
	}
	return nil
}

// publish makes an export known to clients.
func (n *nbdServer) publish(e *nbdExport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exports = append(n.exports, e)
}

// withdraw takes an export from the clients and returns those who use it.
func (n *nbdServer) withdraw(e *nbdExport) []*nbdClient {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exports = slices.DeleteFunc(n.exports, func(other *nbdExport) bool { return other == e })
	return n.users(e)
}

// usersOf lists the clients that use an export.
func (n *nbdServer) usersOf(e *nbdExport) []*nbdClient {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.users(e)
}

// users is usersOf for callers that hold mu.
func (n *nbdServer) users(e *nbdExport) []*nbdClient {
	var users []*nbdClient
	for c := range n.clients {
		if c.uses(e) {
			users = append(users, c)
		}
	}
	return users
}
