package qmp

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/rs/zerolog"

	"github.com/qmpblock/qmpblock/qjson"
)

// Source is where a monitor's connections come from, a character device.
type Source interface {
	// Accept waits for the next connection; io.EOF says that there will be
	// none. It is called when the former connection has been closed.
	Accept(ctx context.Context) (Conn, error)
}

// Conn is one connection. Read and Write may run at the same time; Close, at
// any time and more than once, makes both return and does not wait.
type Conn interface {
	io.ReadWriteCloser
	// TakeFDs hands out the file descriptors received (SCM_RIGHTS) since it
	// was called last, in order.
	TakeFDs() []*os.File
}

// Config is what a monitor needs to know.
type Config struct {
	Dispatcher *Dispatcher
	Events     *Emitter
	// Version is the JSON of what query-version returns, for the greeting.
	Version []byte
	// Pretty prints replies and events over several lines (pretty=on).
	Pretty bool
	Log    zerolog.Logger
	// Closed, when not nil, is called at the end of each session.
	Closed func(*Session)
}

// Monitor serves QMP to one client after the other.
type Monitor struct {
	Config
	greeting []byte
}

// NewMonitor returns a monitor that waits for [Monitor.Serve].
func NewMonitor(c Config) *Monitor {
	greeting := append([]byte(`{"QMP": {"version": `), c.Version...)
	greeting = append(greeting, `, "capabilities": ["oob"]}}`...)
	return &Monitor{Config: c, greeting: append(greeting, lineEnd...)}
}

// Serve takes connections until the source has no more, a session's last
// reply was sent ([Session.End]) or ctx is cancelled: then a client still gets
// what was queued for it, within [FlushLimit]. Nothing of the monitor runs any
// more when Serve returns.
func (m *Monitor) Serve(ctx context.Context, src Source) error {
	for {
		conn, err := src.Accept(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			if conn != nil {
				_ = conn.Close()
			}
			return nil
		case err != nil:
			return err
		}
		if last := newSession(ctx, m, conn).run(); last {
			return nil
		}
	}
}

const lineEnd = "\r\n"

// appendPretty appends a line as a monitor with pretty=on prints it.
func appendPretty(dst, line []byte) []byte {
	var space [4096]byte
	for _, c := range qjson.AppendPretty(space[:0], line[:len(line)-len(lineEnd)]) {
		if c == '\n' {
			dst = append(dst, '\r')
		}
		dst = append(dst, c)
	}
	return append(dst, lineEnd...)
}
