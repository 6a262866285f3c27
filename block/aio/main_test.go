package aio_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/trace"
)

// TestMain fails if any test left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guard is a read-write lock that knows how many readers it has.
type guard struct {
	sync.RWMutex
	readers atomic.Int32
}

func (g *guard) RLock() {
	g.RWMutex.RLock()
	g.readers.Add(1)
}

func (g *guard) TryRLock() bool {
	ok := g.RWMutex.TryRLock()
	if ok {
		g.readers.Add(1)
	}
	return ok
}

func (g *guard) RUnlock() {
	g.readers.Add(-1)
	g.RWMutex.RUnlock()
}

// lines collects what trace points write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// take returns "point op" of each line so far.
func (l *lines) take(t *testing.T) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for line := range strings.Lines(l.buf.String()) {
		var e struct{ Point, Op, Context string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		out = append(out, strings.TrimSpace(e.Point+" "+e.Op+" "+e.Context))
	}
	l.buf.Reset()
	return out
}

// world is a context with everything that watches it.
type world struct {
	*aio.Context
	guard  *guard
	lines  *lines
	panics chan *aio.PanicError
}

// newWorld makes a context whose trace points match a pattern. It is closed at
// the end of the test, with no coroutine left.
func newWorld(t *testing.T, pattern string) *world {
	return newWorldUnder(t, new(guard), pattern)
}

// newWorldUnder makes a context that shares its guard with others, as those of
// one graph do.
func newWorldUnder(t *testing.T, g *guard, pattern string) *world {
	w := &world{guard: g, lines: new(lines), panics: make(chan *aio.PanicError, 8)}
	tracer := trace.New(zerolog.New(w.lines))
	if err := tracer.Enable(pattern); err != nil {
		t.Fatal(err)
	}
	w.Context = aio.NewContext("home", w.guard, tracer, func(p *aio.PanicError) { w.panics <- p })
	t.Cleanup(func() {
		w.Close()
		if live := w.Coroutines(); len(live) > 0 || w.guard.readers.Load() != 0 {
			t.Errorf("left behind: %q, %d readers", live, w.guard.readers.Load())
		}
	})
	return w
}

// locked runs f with the context's lock.
func (w *world) locked(f func(l *aio.Lock)) {
	l := w.Acquire()
	defer l.Release()
	f(l)
}
