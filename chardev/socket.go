package chardev

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/sockets"
	"github.com/qmpblock/qmpblock/tlssession"
)

// backlog is how many clients can wait while one is served; the kernel adds
// one more.
const backlog = 1

// socket is a device over a stream socket. Where there can be more than one
// connection, as for a server and for a client that reconnects, a goroutine
// makes the next as soon as the one before is gone.
type socket struct {
	addr   sockets.Address // server: where it listens
	server bool
	// connect waits for a connection. It is called by one goroutine.
	connect  func(ctx context.Context) (net.Conn, error)
	listener net.Listener  // server
	pause    time.Duration // client: before a lost connection is made anew

	ctx    context.Context // ends when the device is closed
	cancel context.CancelFunc
	worker sync.WaitGroup

	mu     sync.Mutex
	conn   *sockConn
	taken  bool          // a frontend has conn
	change chan struct{} // closed at the next change of conn
}

// openSocket checks the options in the reference's order and opens the socket.
func (s *Set) openSocket(ctx context.Context, b *Socket, fds sockets.FDSource) (device, error) {
	if err := s.checkSocket(b); err != nil {
		return nil, err
	}
	sock := &socket{addr: b.Addr, server: b.isServer(), change: make(chan struct{})}
	sock.ctx, sock.cancel = context.WithCancel(context.Background())
	var err error
	if sock.server {
		err = sock.openServer(ctx, fds)
	} else {
		err = sock.openClient(ctx, b.reconnect(), fds)
	}
	if err != nil {
		sock.cancel()
		return nil, err
	}
	if sock.server && b.Wait != nil && *b.Wait {
		s.cfg.Info("QEMU waiting for connection on: " + sock.filename())
		if err := sock.waitConnected(ctx); err != nil {
			sock.close()
			return nil, err
		}
	}
	return sock, nil
}

func (s *Set) checkSocket(b *Socket) error {
	server := b.isServer()
	if b.TLSCreds != nil {
		side := tlssession.Client
		if server {
			side = tlssession.Server
		}
		if _, err := s.tree.TLSCredentials(*b.TLSCreds, side); err != nil {
			return err
		}
		return qerr.New("TLS is not supported for socket chardevs")
	}
	switch {
	case b.TLSAuthz != nil:
		return qerr.New("'tls_authz' option requires 'tls_creds' option")
	case b.WebSocket && !server:
		return qerr.New("Websocket client is not implemented")
	case b.Reconnect != nil && b.Addr.FD != nil:
		return qerr.New("'reconnect' option is incompatible with 'fd' address type")
	case b.Reconnect != nil && server:
		return qerr.New("'reconnect' option is incompatible with socket in server listen mode")
	case b.Wait != nil && !server:
		return qerr.New("'wait' option is incompatible with socket in client connect mode")
	case b.Reconnect != nil && b.ReconnectMS != nil:
		return qerr.New("'reconnect' and 'reconnect-ms' are mutually exclusive")
	case b.Telnet, b.TN3270, b.WebSocket:
		return qerr.New("telnet, tn3270 and websocket are not supported for socket chardevs")
	case b.Addr.Vsock != nil:
		return qerr.New("vsock addresses are not supported for socket chardevs")
	}
	return nil
}

// reconnect returns the time between two attempts, 0 for only one.
func (b *Socket) reconnect() time.Duration {
	n, unit := b.ReconnectMS, time.Millisecond
	if b.Reconnect != nil {
		n, unit = b.Reconnect, time.Second
	}
	const longest = int64(24 * time.Hour / time.Millisecond)
	if n == nil || *n <= 0 {
		return 0
	}
	return time.Duration(min(*n, longest)) * unit
}

func (s *socket) openServer(ctx context.Context, fds sockets.FDSource) error {
	var err error
	if s.listener, s.addr, err = s.addr.Listen(ctx, backlog, fds); err != nil {
		return err
	}
	s.connect = func(context.Context) (net.Conn, error) { return s.listener.Accept() }
	s.worker.Go(s.serve)
	return nil
}

func (s *socket) openClient(ctx context.Context, reconnect time.Duration, fds sockets.FDSource) error {
	s.connect = func(ctx context.Context) (net.Conn, error) { return s.addr.Dial(ctx, fds) }
	if reconnect > 0 {
		s.connect, s.pause = retry(s.connect, reconnect), reconnect
		s.worker.Go(s.serve)
		return nil
	}
	_, err := s.next(ctx)
	return err
}

// retry tries until there is a connection.
func retry(connect func(context.Context) (net.Conn, error), pause time.Duration) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		for {
			conn, err := connect(ctx)
			if err == nil {
				return conn, nil
			}
			if err := wait(ctx, pause); err != nil {
				return nil, err
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// serve makes one connection after the other until the device is closed.
func (s *socket) serve() {
	// Accepting fails for a while when there are no descriptors left.
	const pause = 100 * time.Millisecond
	for s.ctx.Err() == nil {
		c, err := s.next(s.ctx)
		if err != nil {
			_ = wait(s.ctx, pause)
			continue
		}
		select {
		case <-c.gone:
		case <-s.ctx.Done():
		}
		s.drop(c)
		_ = wait(s.ctx, s.pause)
	}
}

// next waits for a connection and makes it the current one.
func (s *socket) next(ctx context.Context) (*sockConn, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	c, err := newSockConn(conn)
	if err != nil {
		return nil, sysError(err, "Failed to set up the connection")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.taken = c, false
	s.changed()
	return c, nil
}

// drop closes a connection and forgets it if it is the current one.
func (s *socket) drop(c *sockConn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		s.conn = nil
		s.changed()
	}
}

func (s *socket) changed() {
	close(s.change)
	s.change = make(chan struct{})
}

// current returns the connection, nil if there is none. One that no frontend
// has is looked at: nobody else notices when its other side is gone.
func (s *socket) current() *sockConn {
	s.mu.Lock()
	c, taken := s.conn, s.taken
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c.gone:
		return nil
	default:
	}
	if !taken && c.hungUp() {
		s.drop(c)
		return nil
	}
	return c
}

func (s *socket) connected() bool { return s.current() != nil }

func (s *socket) accept(ctx context.Context) (Conn, error) {
	for {
		c, change := s.take()
		if c != nil {
			return c, nil
		}
		if err := s.await(ctx, change); err != nil {
			return nil, err
		}
	}
}

// take hands out the current connection unless a frontend has it already.
func (s *socket) take() (*sockConn, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.taken {
		return nil, s.change
	}
	s.taken = true
	return s.conn, nil
}

// waitConnected waits until there is a connection, and leaves it there.
func (s *socket) waitConnected(ctx context.Context) error {
	for {
		s.mu.Lock()
		c, change := s.conn, s.change
		s.mu.Unlock()
		if c != nil {
			return nil
		}
		if err := s.await(ctx, change); err != nil {
			return err
		}
	}
}

func (s *socket) await(ctx context.Context, change <-chan struct{}) error {
	select {
	case <-change:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return net.ErrClosed
	}
}

// close ends the goroutine. A listener removes its socket's file.
func (s *socket) close() {
	s.cancel()
	if s.listener != nil {
		s.listener.Close()
	}
	if c := s.current(); c != nil {
		s.drop(c)
	}
	s.worker.Wait()
}

func (s *socket) filename() string {
	mark := ""
	if s.server {
		mark = ",server=on"
	}
	c := s.current()
	if c == nil {
		return "disconnected:" + s.addr.String() + mark
	}
	local, remote := c.local, c.remote
	if local.Network() == "unix" {
		if s.server {
			remote = local
		}
		return "unix:" + shownPath(remote.String()) + mark
	}
	return "tcp:" + shownHost(local) + mark + " <-> " + shownHost(remote)
}

// shownPath is the path of a connected socket: nothing of an abstract name,
// which begins with '@' in package net.
func shownPath(path string) string {
	switch {
	case strings.HasPrefix(path, "@"):
		return ""
	case strings.HasPrefix(path, "./@"): // see sockets.UnixAddress
		return path[2:]
	}
	return path
}

// shownHost is the host and port of a connected socket. An IPv4 address on a
// socket for IPv6 looks like one of IPv6.
func shownHost(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return tcp.AddrPort().String()
	}
	return addr.String()
}
