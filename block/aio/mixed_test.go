package aio_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block/aio"
)

// double is an operation that only a coroutine may run.
func (w *world) double(c aio.Caller, n int) (int, error) {
	return aio.Mixed(c, w.Context, "double", func(co *aio.Co) (int, error) {
		if w.guard.readers.Load() == 0 {
			return 0, errors.New("the guard is not held")
		}
		if n < 0 {
			return 0, errors.New("negative")
		}
		return 2 * n, nil
	})
}

func (w *world) counts() string {
	direct, spawned := w.Counts()
	return fmt.Sprintf("%d direct, %d spawned", direct, spawned)
}

// The wrapper runs directly in a coroutine and spawns one for everybody else.
// Which way it took is counted and traced.
func TestMixedWays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, counts, line string
		call               func(w *world) (int, error)
	}{
		{"coroutine", "1 direct, 0 spawned", "coroutine_direct double home", func(w *world) (n int, err error) {
			w.Enter("test", func(co *aio.Co) { n, err = w.double(co, 21) })
			return n, err
		}},
		{"lock", "0 direct, 1 spawned", "coroutine_spawn double home", func(w *world) (n int, err error) {
			w.locked(func(l *aio.Lock) { n, err = w.double(l, 21) })
			return n, err
		}},
		{"outside", "0 direct, 1 spawned", "coroutine_spawn double home", func(w *world) (int, error) {
			return w.double(aio.Outside, 21)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "coroutine_[ds]*")
			if n, err := c.call(w); n != 42 || err != nil {
				t.Errorf("got %d, %v", n, err)
			}
			if got := w.counts(); got != c.counts {
				t.Errorf("%s, want %s", got, c.counts)
			}
			if got := w.lines.take(t); !slices.Equal(got, []string{c.line}) {
				t.Errorf("traced %q, want %q", got, c.line)
			}
		})
	}
}

func TestMixedErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	if _, err := w.double(aio.Outside, -1); err == nil || err.Error() != "negative" {
		t.Errorf("got %v", err)
	}
	w.locked(func(l *aio.Lock) {
		if _, err := w.double(l, -1); err == nil || err.Error() != "negative" {
			t.Errorf("got %v", err)
		}
	})
}

// A coroutine that calls a wrapper that calls a wrapper stays the same one.
func TestMixedNestsDirectly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "coroutine_[ds]*")
	n, err := aio.Mixed(aio.Outside, w.Context, "outer", func(co *aio.Co) (int, error) {
		if aio.Coroutine(co) != co || aio.Coroutine(aio.Outside) != nil {
			t.Error("callers do not know what they are")
		}
		return w.double(co, 4)
	})
	if n != 8 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	want := []string{"coroutine_spawn outer home", "coroutine_direct double home"}
	if got := w.lines.take(t); !slices.Equal(got, want) {
		t.Errorf("traced %q, want %q", got, want)
	}
}

// Whoever polls lets go of the lock: here the coroutine ends only when
// somebody else had it.
func TestMixedReleasesTheLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	had := make(chan struct{})
	var other sync.WaitGroup
	w.locked(func(l *aio.Lock) {
		other.Go(func() { w.locked(func(*aio.Lock) { close(had) }) })
		_, err := aio.Mixed(l, w.Context, "wait", func(co *aio.Co) (int, error) {
			<-had
			return 0, nil
		})
		if err != nil {
			t.Error(err)
		}
		if l.Context() != w.Context {
			t.Error("the lock has changed")
		}
	})
	other.Wait()
}

// An operation of another context is polled for in the caller's own.
func TestMixedAcrossContexts(t *testing.T) {
	t.Parallel()
	main, home := newWorld(t, "-*"), newWorld(t, "-*")
	posted := make(chan struct{})
	main.locked(func(l *aio.Lock) {
		_, err := aio.Mixed(l, home.Context, "far", func(co *aio.Co) (int, error) {
			if co.Context() != home.Context {
				t.Error("it runs somewhere else")
			}
			// The caller's context is alive meanwhile.
			main.Post(func(*aio.Lock) { close(posted) })
			<-posted
			return 0, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	if main.counts() != "0 direct, 0 spawned" || home.counts() != "0 direct, 1 spawned" {
		t.Errorf("main %s, home %s", main.counts(), home.counts())
	}
}

// Polling nests: what is posted to the context while somebody polls may poll
// itself.
func TestNestedPolling(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	const depth = 5
	var dive func(l *aio.Lock, level int) int
	dive = func(l *aio.Lock, level int) int {
		if level == depth {
			n, err := w.double(l, 1)
			if err != nil {
				t.Error(err)
			}
			return n
		}
		result := make(chan int, 1)
		n, err := aio.Mixed(l, w.Context, "dive", func(co *aio.Co) (int, error) {
			w.Post(func(l *aio.Lock) { result <- dive(l, level+1) })
			return 1 + <-result, nil
		})
		if err != nil {
			t.Error(err)
		}
		return n
	}
	w.locked(func(l *aio.Lock) {
		if n := dive(l, 0); n != depth+2 {
			t.Errorf("got %d, want %d", n, depth+2)
		}
	})
}

// A panic comes to whoever waits for the coroutine, with nothing held.
func TestPanicInMixed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "coroutine_panic")
	explode := func(*aio.Co) (int, error) { panic("boom") }
	check := func(err error) {
		var p *aio.PanicError
		if !errors.As(err, &p) || p.Op != "explode" || p.Value != "boom" || len(p.Stack) == 0 ||
			err.Error() != "Internal error in explode: boom" {
			t.Errorf("got %v", err)
		}
	}
	_, err := aio.Mixed(aio.Outside, w.Context, "explode", explode)
	check(err)
	w.locked(func(l *aio.Lock) {
		_, err := aio.Mixed(l, w.Context, "explode", explode)
		check(err)
	})
	if got := w.lines.take(t); !slices.Equal(got, []string{"coroutine_panic explode", "coroutine_panic explode"}) {
		t.Errorf("traced %q", got)
	}
	if len(w.panics) != 0 {
		t.Error("it was reported as well")
	}
}

// One that nobody waits for goes to the context's report.
func TestPanicInSpawn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	w.Spawn("alone", func(*aio.Co) { panic("boom") }, nil)
	if p := <-w.panics; p.Op != "alone" || p.Value != "boom" {
		t.Errorf("got %v", p)
	}
	seen := make(chan *aio.PanicError, 1)
	w.Spawn("watched", func(*aio.Co) { panic("boom") }, func(p *aio.PanicError) { seen <- p })
	if p := <-seen; p == nil || p.Op != "watched" {
		t.Errorf("got %v", p)
	}
	w.Spawn("fine", func(*aio.Co) {}, func(p *aio.PanicError) { seen <- p })
	if p := <-seen; p != nil {
		t.Errorf("got %v", p)
	}
}

// Many callers of every kind at once, in two contexts: no wake-up gets lost.
func TestMixedStress(t *testing.T) {
	t.Parallel()
	a := newWorld(t, "-*")
	b := newWorldUnder(t, a.guard, "-*")
	const callers, calls = 8, 200
	var wg sync.WaitGroup
	for i := range callers {
		here, there := a, b
		if i%2 == 1 {
			here, there = b, a
		}
		wg.Go(func() {
			for n := range calls {
				check := func(c aio.Caller) {
					if got, err := there.double(c, n); got != 2*n || err != nil {
						t.Errorf("got %d, %v", got, err)
					}
				}
				switch n % 3 {
				case 0:
					here.locked(func(l *aio.Lock) { check(l) })
				case 1:
					here.Enter("stress", func(co *aio.Co) { check(co) })
				case 2:
					check(aio.Outside)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkMixed(bm *testing.B) {
	c := aio.NewContext("home", new(guard), nil, nil)
	nothing := func(*aio.Co) (int, error) { return 0, nil }
	run := func(caller aio.Caller) func(*testing.B) {
		return func(bm *testing.B) {
			bm.ReportAllocs()
			for range bm.N {
				if _, err := aio.Mixed(caller, c, "nothing", nothing); err != nil {
					bm.Fatal(err)
				}
			}
		}
	}
	c.Enter("bench", func(co *aio.Co) { bm.Run("direct", run(co)) })
	l := c.Acquire()
	bm.Run("lock", run(l))
	l.Release()
	bm.Run("outside", run(aio.Outside))
	c.Close()
}
