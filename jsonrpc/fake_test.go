package jsonrpc

import (
	"bufio"
	"bytes"
	"context"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/sourcegraph/jsonrpc2"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// limit bounds every wait in these tests; nothing comes near it.
const limit = 20 * time.Second

// fake is an Executor and a source of events.
type fake struct {
	mu       sync.Mutex
	executed []string
	subs     map[int]func(string, []byte, int64, int64)
	nextSub  int

	entered chan string   // "block" says so
	release chan struct{} // and waits for this
}

func newFake() *fake {
	return &fake{
		subs:    map[int]func(string, []byte, int64, int64){},
		entered: make(chan string, 16),
		release: make(chan struct{}),
	}
}

func (f *fake) Execute(_ context.Context, name string, args qjson.Value, out []byte, answer func([]byte, error)) {
	answer(f.execute(name, args, out))
}

func (f *fake) execute(name string, args qjson.Value, out []byte) ([]byte, error) {
	f.mu.Lock()
	f.executed = append(f.executed, name)
	f.mu.Unlock()
	switch name {
	case "echo":
		if !args.Exists() {
			return append(out, `"absent"`...), nil
		}
		return qjson.AppendValue(out, args), nil
	case "empty":
		return append(out, "{}"...), nil
	case "infinite":
		return qjson.AppendDouble(out, math.Inf(1)), nil
	case "fail":
		return out, qerr.WithClass(qerr.DeviceNotFound, "Device '%s' not found", args.Get("device").Str())
	case "block":
		f.entered <- name
		<-f.release
		return append(out, `"released"`...), nil
	case "resize":
		f.emit("BLOCK_RESIZED", []byte(`{"node": "a"}`))
		return append(out, "{}"...), nil
	case "large":
		out = append(out, '"')
		out = append(out, bytes.Repeat([]byte("x"), int(args.Get("size").Int()))...)
		return append(out, '"'), nil
	}
	return out, qerr.WithClass(qerr.CommandNotFound, "The command %s has not been found", name)
}

func (f *fake) Subscribe(fn func(string, []byte, int64, int64)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.nextSub
	f.nextSub++
	f.subs[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, id)
	}
}

func (f *fake) subscribers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs)
}

func (f *fake) emit(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fn := range f.subs {
		fn(name, data, 1700000000, 42)
	}
}

func (f *fake) commands() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.executed...)
}

// logs collects log lines.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// server is a listener over a fake.
type server struct {
	*Listener
	*fake
	logs   *logs
	cancel context.CancelFunc // of the context that commands run with
}

func listen(t *testing.T, spec string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{fake: newFake(), logs: new(logs), cancel: cancel}
	l, err := Listen(ctx, spec, Config{Executor: s.fake, Events: s.fake, Log: zerolog.New(s.logs)})
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = l
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.Serve()
	}()
	t.Cleanup(func() {
		defer func() { <-served }()
		defer cancel()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if n := s.subscribers(); n != 0 {
			t.Errorf("%d subscriptions are left after Close", n)
		}
	})
	return s
}

// shortDir is a folder whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func listenUnix(t *testing.T) *server {
	t.Helper()
	return listen(t, "unix:"+filepath.Join(shortDir(t), "rpc.sock"))
}

// bothTransports runs a test over each, with the library as client.
func bothTransports(t *testing.T, f func(*testing.T, *server, func(jsonrpc2.Handler) *jsonrpc2.Conn)) {
	for name, start := range map[string]func(*testing.T) *server{
		"unix": listenUnix,
		"ws":   func(t *testing.T) *server { return listen(t, "ws::0") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			f(t, s, func(h jsonrpc2.Handler) *jsonrpc2.Conn { return client(t, openStream(t, s), h) })
		})
	}
}

func client(t *testing.T, s jsonrpc2.ObjectStream, h jsonrpc2.Handler) *jsonrpc2.Conn {
	t.Helper()
	c := jsonrpc2.NewConn(t.Context(), s, h, jsonrpc2.SetLogger(libraryLog{zerolog.Nop()}))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ignore is a client's handler that wants no events.
var ignore = jsonrpc2.HandlerWithError(func(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) (any, error) {
	return nil, nil
})

// raw is a client that sees lines.
type raw struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func dial(t *testing.T, s *server) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(s.URL(), "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return c
}

func dialRaw(t *testing.T, s *server) *raw {
	t.Helper()
	c := dial(t, s)
	return &raw{c, t, bufio.NewReader(c)}
}

func (r *raw) send(text string) {
	r.t.Helper()
	if _, err := r.Write([]byte(text)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) want(lines ...string) {
	r.t.Helper()
	for _, line := range lines {
		got, err := r.in.ReadString('\n')
		if err != nil {
			r.t.Fatalf("awaited %s\ngot %q, %v", line, got, err)
		}
		if got != line+"\n" {
			r.t.Fatalf("awaited %s\ngot     %s", line, got)
		}
	}
}

func (r *raw) wantEnd() {
	r.t.Helper()
	if got, err := r.in.ReadString('\n'); err == nil {
		r.t.Fatalf("awaited the end, got %s", got)
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came: " + what)
		}
	}
}
