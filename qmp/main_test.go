package qmp

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

const version = `{"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian 1:10.0.2+ds-2+deb13u1~bpo12+1"}`

// socketConn is a connection over a socket.
type socketConn struct {
	*net.UnixConn
	mu  sync.Mutex
	fds []*os.File
}

func (c *socketConn) TakeFDs() []*os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	fds := c.fds
	c.fds = nil
	return fds
}

// socketpair returns two connected sockets.
func socketpair(tb testing.TB) (ours, theirs *net.UnixConn) {
	tb.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			tb.Fatal(err)
		}
		return c.(*net.UnixConn)
	}
	return conn(pair[0]), conn(pair[1])
}

// source hands out connections that a test puts in.
type source chan Conn

func (s source) Accept(ctx context.Context) (Conn, error) {
	select {
	case c, ok := <-s:
		if !ok {
			return nil, io.EOF
		}
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// server is a monitor with a few commands.
type server struct {
	tb      testing.TB
	table   *schema.Table
	d       *Dispatcher
	events  *Emitter
	source  source
	cancel  context.CancelFunc
	served  chan error // what Serve returned
	monitor *Monitor
}

// newTable returns a table with the commands that the transcripts need.
func newTable() *schema.Table {
	t := schema.NewTable()
	t.QmpCapabilities(func(ctx context.Context, a *schema.QmpCapabilitiesArguments) error {
		return SessionFrom(ctx).Negotiate(a.Enable)
	})
	info := &schema.VersionInfo{
		Qemu:    schema.VersionTriple{Major: 10, Minor: 0, Micro: 2},
		Package: "Debian 1:10.0.2+ds-2+deb13u1~bpo12+1",
	}
	t.QueryVersion(func(context.Context) (*schema.VersionInfo, error) { return info, nil })
	t.QueryJobs(func(context.Context) ([]*schema.JobInfo, error) { return nil, nil })
	t.BlockdevDel(func(_ context.Context, a *schema.BlockdevDelArguments) error {
		return qerr.New("Failed to find node with node-name='%s'", a.NodeName)
	})
	return t
}

// start begins to serve, with the table changed by each of the options.
func start(tb testing.TB, options ...func(*server)) *server {
	tb.Helper()
	s := &server{tb: tb, table: newTable(), source: make(source), served: make(chan error, 1)}
	s.d = &Dispatcher{Commands: s.table}
	s.events = NewEmitter(s.table, nil, nil)
	s.monitor = NewMonitor(Config{Dispatcher: s.d, Events: s.events, Version: []byte(version), Log: zerolog.Nop()})
	s.table.Quit(func(ctx context.Context) error {
		s.d.Shutdown()
		SessionFrom(ctx).End(s.cancel)
		return nil
	})
	for _, o := range options {
		o(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.served <- s.monitor.Serve(ctx, s.source) }()
	tb.Cleanup(func() {
		cancel()
		s.await()
		s.events.Close()
	})
	return s
}

// await waits until the monitor has ended.
func (s *server) await() {
	s.tb.Helper()
	select {
	case err := <-s.served:
		s.served <- err
		if err != nil {
			s.tb.Error(err)
		}
	case <-time.After(patience):
		s.tb.Fatal("the monitor does not end")
	}
}

// client is the other side of a connection.
type client struct {
	tb testing.TB
	*net.UnixConn
	r *bufio.Reader
}

// dial connects without reading the greeting.
func (s *server) dial() *client {
	s.tb.Helper()
	ours, theirs := socketpair(s.tb)
	c := s.client(ours)
	select {
	case s.source <- &socketConn{UnixConn: theirs}:
	case <-time.After(patience):
		s.tb.Fatal("the monitor takes no connection")
	}
	return c
}

func (s *server) client(socket *net.UnixConn) *client {
	s.tb.Helper()
	s.tb.Cleanup(func() { _ = socket.Close() })
	if err := socket.SetDeadline(time.Now().Add(patience)); err != nil {
		s.tb.Fatal(err)
	}
	return &client{s.tb, socket, bufio.NewReaderSize(socket, 64<<10)}
}

// connect connects and negotiates.
func (s *server) connect(enable ...string) *client {
	s.tb.Helper()
	c := s.dial()
	c.expect(`{"QMP": {"version": ` + version + `, "capabilities": ["oob"]}}`)
	if len(enable) == 0 {
		c.ask(`{"execute":"qmp_capabilities"}`, `{"return": {}}`)
		return c
	}
	c.ask(`{"execute":"qmp_capabilities","arguments":{"enable":["`+strings.Join(enable, `","`)+`"]}}`, `{"return": {}}`)
	return c
}

func (c *client) send(text string) {
	c.tb.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.tb.Fatal(err)
	}
}

// line returns the next line without its end.
func (c *client) line() string {
	c.tb.Helper()
	text, err := c.r.ReadString('\n')
	if err != nil {
		c.tb.Fatalf("after %.200q: %v", text, err)
	}
	if !strings.HasSuffix(text, "\r\n") {
		c.tb.Fatalf("%.200q does not end in CR LF", text)
	}
	return strings.TrimSuffix(text, "\r\n")
}

func (c *client) expect(want ...string) {
	c.tb.Helper()
	for _, w := range want {
		if got := c.line(); got != w {
			c.tb.Fatalf("\n got %.300s\nwant %.300s", got, w)
		}
	}
}

func (c *client) ask(request string, want ...string) {
	c.tb.Helper()
	c.send(request + "\n")
	c.expect(want...)
}

// expectEnd expects the end of the connection. A server that closes with
// input unread resets it.
func (c *client) expectEnd() {
	c.tb.Helper()
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
		c.tb.Fatalf("instead of the end: %.200q, %v", rest, err)
	}
}
