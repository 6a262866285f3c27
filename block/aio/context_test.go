package aio_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/qmpblock/qmpblock/block/aio"
)

func TestWaitWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "coroutine_poll")
	var done atomic.Bool
	var other sync.WaitGroup
	w.locked(func(l *aio.Lock) {
		// The condition becomes false only with the lock, which the wait
		// must have released.
		other.Go(func() {
			w.locked(func(*aio.Lock) { done.Store(true) })
			w.Kick()
		})
		aio.WaitWhile(l, func() bool { return !done.Load() })
		aio.WaitWhile(l, func() bool { return false })
	})
	other.Wait()
	if got := w.lines.take(t); len(got) == 0 || got[0] != "coroutine_poll  home" {
		t.Errorf("traced %q", got)
	}
}

// WaitWhileUnlocked needs no lock: another goroutine keeps it all the time.
func TestWaitWhileUnlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var done atomic.Bool
	var wg sync.WaitGroup
	w.locked(func(*aio.Lock) {
		wg.Go(func() { aio.WaitWhileUnlocked(w.Context, func() bool { return !done.Load() }) })
		done.Store(true)
		w.Kick()
		wg.Wait()
	})
}

// Each of many conditions becomes false with a kick of its own, in the least
// convenient moments: no wake-up gets lost.
func TestNoLostWakeup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	const rounds = 2000
	var turn atomic.Int32
	var wg sync.WaitGroup
	for side := range int32(2) {
		wg.Go(func() {
			for i := range int32(rounds) {
				aio.WaitWhileUnlocked(w.Context, func() bool { return turn.Load() < 2*i+side })
				turn.Add(1)
				w.Kick()
			}
		})
	}
	wg.Wait()
	if turn.Load() != 2*rounds {
		t.Errorf("%d turns", turn.Load())
	}
}

// What is posted runs in order, with the lock, while somebody polls.
func TestPostedWhilePolling(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var order []string
	w.locked(func(l *aio.Lock) {
		for i := range 3 {
			w.Post(func(inner *aio.Lock) {
				order = append(order, fmt.Sprint(i))
				if inner.Context() != w.Context {
					t.Error("the lock is another context's")
				}
				if i == 0 {
					w.Post(func(*aio.Lock) { order = append(order, "last") })
				}
			})
		}
		if len(order) != 0 {
			t.Error("it ran before anybody polled")
		}
		aio.WaitWhile(l, func() bool { return len(order) < 4 })
	})
	if !slices.Equal(order, []string{"0", "1", "2", "last"}) {
		t.Errorf("ran in the order %q", order)
	}
}

// What is posted runs also when nobody polls; Close waits for it.
func TestPostedAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	const n = 100
	count := 0
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { w.Post(func(*aio.Lock) { count++ }) })
	}
	wg.Wait()
	w.Close()
	if count != n {
		t.Errorf("%d of %d ran", count, n)
	}
}

func TestCloseWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	release := make(chan struct{})
	var ended atomic.Int32
	for range 10 {
		w.Spawn("slow", func(co *aio.Co) {
			co.Yield(func() { <-release })
			ended.Add(1)
		}, nil)
	}
	close(release)
	w.Close()
	if ended.Load() != 10 {
		t.Errorf("%d had ended", ended.Load())
	}
}

func TestUnlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	w.locked(func(l *aio.Lock) {
		l.Unlocked(func() { w.locked(func(*aio.Lock) {}) })
	})
}

// A token is no use once its lock is given back.
func TestDeadToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	l := w.Acquire()
	l.Release()
	for name, use := range map[string]func(){
		"release":  l.Release,
		"unlock":   func() { l.Unlocked(func() {}) },
		"wait":     func() { aio.WaitWhile(l, func() bool { return false }) },
		"wrapper":  func() { _, _ = w.double(l, 1) },
		"released": func() { w.locked(func(l *aio.Lock) { l.Unlocked(func() { l.Release() }) }) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the dead token worked", name)
				}
			}()
			use()
		}()
	}
}

// A coroutine that yields lets writers in, and has the guard again behind it.
func TestYield(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	w.Enter("test", func(co *aio.Co) {
		co.Yield(func() {
			w.guard.Lock()
			if w.guard.readers.Load() != 0 {
				t.Error("there are readers")
			}
			w.guard.Unlock()
		})
		if w.guard.readers.Load() != 1 || w.guard.TryLock() {
			t.Error("the guard is not held")
		}
	})
	// Also if waiting ends badly.
	if p := w.Enter("test", func(co *aio.Co) { co.Yield(func() { panic("boom") }) }); p == nil || p.Value != "boom" {
		t.Error("the panic got lost")
	}
	if !w.guard.TryLock() {
		t.Fatal("the guard is still held")
	}
	w.guard.Unlock()
}

// The list of coroutines says what each is at.
func TestCoroutines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	w.guard.Lock()
	w.Spawn("reader", func(*aio.Co) {}, nil)
	for len(w.Coroutines()) == 0 {
		runtime.Gosched()
	}
	if got, want := w.Coroutines(), []string{"reader in home waits for the graph lock"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w.guard.Unlock()
	w.Close()
	w.Enter("outer", func(co *aio.Co) {
		if got, want := w.Coroutines(), []string{"outer in home runs"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		co.Yield(func() {
			w.Enter("inner", func(*aio.Co) {
				want := []string{"inner in home runs", "outer in home has yielded"}
				if got := w.Coroutines(); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	})
}
