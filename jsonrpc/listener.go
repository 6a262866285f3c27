package jsonrpc

import (
	"context"
	"net"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// Executor runs commands. Several connections call it at the same time.
type Executor interface {
	// Execute runs one command and calls answer with the JSON of its "return"
	// value, appended to out, or with an error of package qerr. What follows
	// from the command happens only when answer has returned; it must not
	// wait. args is absent or an object.
	Execute(ctx context.Context, name string, args qjson.Value, out []byte, answer func(result []byte, err error))
}

// Events is a source of events.
type Events interface {
	// Subscribe calls f for every event from now on until cancel is called:
	// its name, its data (a JSON object, or nil) and the time it happened. f
	// does not block and keeps nothing of data.
	Subscribe(f func(name string, data []byte, seconds, microseconds int64)) (cancel func())
}

// Config is what a listener serves.
type Config struct {
	Executor Executor
	Events   Events // nil: none
	Log      zerolog.Logger
}

// Listener holds a place where clients can connect.
type Listener struct {
	Config

	ctx     context.Context // handed to commands
	url     string
	accept  func()       // serves what connects, until stop
	stop    func() error // gives the place up
	owned   sync.WaitGroup
	closing chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{}
	ended bool
}

// Listen takes the place that spec names. A client may connect from now on,
// and is served by [Listener.Serve].
//
//	unix:PATH     a UNIX socket; a file left behind by a dead server is
//	              replaced, and the socket is removed at the end
//	ws:HOST:PORT  a WebSocket; without HOST on 127.0.0.1 only, with port 0 on
//	              any that is free
//
// Commands run with ctx. A client that leaves does not end its command. The
// caller closes the listener, served or not.
func Listen(ctx context.Context, spec string, c Config) (*Listener, error) {
	l := &Listener{Config: c, ctx: ctx, closing: make(chan struct{}), conns: map[*conn]struct{}{}}
	kind, address, _ := strings.Cut(spec, ":")
	var err error
	switch kind {
	case "unix":
		err = l.listenUnix(address)
	case "ws":
		err = l.listenWebSocket(address)
	default:
		err = qerr.New("JSON-RPC address '%s' must be unix:PATH or ws:HOST:PORT", spec)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// URL says where the listener is: unix:PATH or ws://HOST:PORT/.
func (l *Listener) URL() string { return l.url }

// Serve serves clients, each on goroutines of its own, until Close.
func (l *Listener) Serve() {
	if l.begin() {
		defer l.owned.Done()
		l.accept()
	}
}

// begin counts Serve among what Close waits for, unless Close came first.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.owned.Add(1)
	return true
}

// Close stops accepting and ends all connections, each when its command is
// done and answered, and waits for them and for Serve. A client that does not
// read its answer has [FlushLimit] to change its mind.
func (l *Listener) Close() error {
	defer l.owned.Wait()
	if !l.end() {
		return nil
	}
	return l.stop()
}

// end tells everyone that the listener closes, true for the first caller.
func (l *Listener) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.ended = true
	close(l.closing)
	for c := range l.conns {
		c.stopReading()
	}
	return true
}

// add takes a connection into ownership, unless the listener closes.
func (l *Listener) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// isClosing reports whether Close was called.
func (l *Listener) isClosing() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// bindError words a failure to listen as the reference does for its sockets.
func bindError(address string, err error) error {
	if errno := qerr.ErrnoOf(err, 0); errno != 0 {
		return qerr.WithErrno(errno, "Failed to bind socket to %s", address)
	}
	return qerr.New("Failed to bind socket to %s: %v", address, err)
}

// peer names a client in log lines.
func peer(c net.Conn) string {
	if a := c.RemoteAddr().String(); a != "" && a != "@" {
		return a
	}
	return c.LocalAddr().String()
}
