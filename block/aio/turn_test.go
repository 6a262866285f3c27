package aio_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block/aio"
)

// story is what happened, told by everybody in turns.
type story struct {
	mu    sync.Mutex
	lines []string
}

func (s *story) tell(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *story) has(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.lines, line)
}

func (s *story) expect(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.lines, want) {
		t.Errorf("got %q, want %q", s.lines, want)
	}
	s.lines = nil
}

// exit tells of a coroutine's end.
func (s *story) exit(_ *aio.Lock, p *aio.PanicError) {
	if p != nil {
		s.tell("panic")
	}
	s.tell("exit")
}

// A coroutine runs on the starter's turn until it ends; what follows from the
// end is done before the lock is given back.
func TestStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	w.locked(func(l *aio.Lock) {
		w.Start(l, "job", func(*aio.Co) { s.tell("run") }, s.exit)
		s.expect(t, "run")
		l.Settle()
		s.expect(t, "exit")
		w.Start(l, "job", func(*aio.Co) { panic("boom") }, s.exit)
		s.expect(t)
	})
	s.expect(t, "panic", "exit")
}

// A coroutine that waits for the medium is on nobody's turn any more. It gets
// another one when somebody polls.
func TestLeaveTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	release := make(chan struct{})
	w.locked(func(l *aio.Lock) {
		w.Start(l, "job", func(co *aio.Co) {
			s.tell("before")
			co.LeaveTurn()
			<-release
			co.TakeTurn(w.Context)
			s.tell("turn")
			co.TakeTurn(w.Context) // it has one
			co.Yield(func() {})
		}, s.exit)
		s.expect(t, "before")
		close(release)
		aio.WaitWhile(l, func() bool { return !s.has("exit") })
		s.expect(t, "turn", "exit")
	})
}

// Who sleeps for no time goes on before those that put themselves off meanwhile,
// but not twice.
func TestSleepForNoTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	var bed aio.Sleeper
	bed.Init(w.Context)
	done := make(chan struct{})
	w.Post(func(l *aio.Lock) {
		w.Start(l, "late", func(co *aio.Co) {
			co.Reschedule()
			s.tell("put off")
		}, func(*aio.Lock, *aio.PanicError) {})
		w.Start(l, "job", func(co *aio.Co) {
			bed.Sleep(co, 0)
			s.tell("slept")
			bed.Sleep(co, 0)
			s.tell("slept again")
		}, func(*aio.Lock, *aio.PanicError) { close(done) })
	})
	<-done
	s.expect(t, "slept", "put off", "slept again")
}

// A sleeper wakes on the waker's turn, or by itself when its time is up.
func TestSleeper(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	var bed aio.Sleeper
	bed.Init(w.Context)
	w.locked(func(l *aio.Lock) {
		bed.Wake(l) // nobody sleeps
		w.Start(l, "job", func(co *aio.Co) {
			bed.Sleep(co, aio.Forever)
			s.tell("woken")
			bed.Sleep(co, time.Hour)
			s.tell("woken early")
			bed.Sleep(co, 0)
			s.tell("time is up")
			co.LeaveTurn()
			bed.Sleep(co, aio.Forever)
		}, s.exit)
		for _, want := range []string{"woken", "woken early"} {
			if !bed.Asleep() {
				t.Error("it does not sleep")
			}
			bed.Wake(l)
			s.expect(t, want)
		}
		aio.WaitWhile(l, func() bool { return !s.has("time is up") || !bed.Asleep() })
		s.expect(t, "time is up")
		bed.Wake(l)
	})
	s.expect(t, "exit")
}

// A writer that waits for readers, or holds the guard, is in nobody's way: the
// turn is given back, and the coroutine gets another one.
func TestTurnAndWriter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	w.guard.Lock()
	w.locked(func(l *aio.Lock) {
		w.Start(l, "job", func(*aio.Co) { s.tell("run") }, s.exit)
		s.expect(t)
		w.guard.Unlock()
		aio.WaitWhile(l, func() bool { return !s.has("exit") })
		s.expect(t, "run", "exit")
	})
}

// What is posted and nobody polls for waits for the owner's lock.
func TestRunBetween(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var steps sync.Mutex
	w.RunBetween(&steps)
	var s story
	steps.Lock()
	w.Post(func(*aio.Lock) { s.tell("between") })
	w.locked(func(l *aio.Lock) {
		w.Later(func(*aio.Lock) { s.tell("later") })
		s.expect(t)
	})
	s.expect(t, "later")
	steps.Unlock()
	w.Close()
	s.expect(t, "between")
}

// A coroutine that puts itself off goes on when somebody polls, or in the one
// round before the lock is given back; what follows from that is for later.
func TestReschedule(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var steps sync.Mutex
	w.RunBetween(&steps)
	var s story
	start := func(l *aio.Lock) {
		w.Start(l, "job", func(co *aio.Co) {
			s.tell("run")
			co.Reschedule()
			s.tell("again")
		}, s.exit)
	}
	w.locked(func(l *aio.Lock) {
		start(l)
		l.Settle()
		s.expect(t, "run")
		aio.WaitWhile(l, func() bool { return !s.has("exit") })
		s.expect(t, "again", "exit")
	})
	steps.Lock()
	w.locked(func(l *aio.Lock) {
		start(l)
		s.expect(t, "run")
	})
	s.expect(t, "again")
	steps.Unlock()
	w.Close()
	s.expect(t, "exit")
	// Without a turn there is nothing to put off.
	w.Enter("other", func(co *aio.Co) { co.Reschedule() })
}
