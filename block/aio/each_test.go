package aio_test

import (
	"fmt"
	"testing"

	"github.com/qmpblock/qmpblock/block/aio"
)

// They start in order, each when the one before has ended or waits for
// something. Those who put themselves off go on when all have started.
func TestEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	release := make(chan struct{})
	w.Enter("op", func(co *aio.Co) {
		co.Each("part", 4, func(co *aio.Co, i int) {
			s.tell(fmt.Sprint(i))
			switch i {
			case 0:
				co.Reschedule()
				s.tell("0 again")
			case 1:
				co.Reschedule()
				s.tell("1 again")
				close(release)
			case 2:
				co.Yield(func() { <-release })
			}
		})
		s.expect(t, "0", "1", "2", "3", "0 again", "1 again")
		co.Each("part", 1, func(co *aio.Co, i int) { s.tell(fmt.Sprint(i)) })
		co.Each("part", 0, func(co *aio.Co, i int) { s.tell(fmt.Sprint(i)) })
		s.expect(t, "0")
	})
}

// While the caller waits a writer gets in, and those who are still to start wait
// for it.
func TestEachAndWriter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	waiting, written := make(chan struct{}), make(chan struct{})
	w.Enter("op", func(co *aio.Co) {
		co.Each("part", 2, func(co *aio.Co, i int) {
			if i == 0 {
				go func() {
					close(waiting)
					w.guard.Lock()
					s.tell("written")
					w.guard.Unlock()
					close(written)
				}()
				co.Yield(func() { <-waiting; <-written })
				s.tell("0")
			}
		})
		s.expect(t, "written", "0")
	})
}

// On a turn: it is kept if nobody waits, and left if somebody does.
func TestEachOnTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	again := make(chan struct{})
	w.locked(func(l *aio.Lock) {
		w.Start(l, "job", func(co *aio.Co) {
			co.Each("part", 2, func(co *aio.Co, i int) { s.tell(fmt.Sprint(i)) })
			s.tell("kept")
			co.Each("part", 2, func(co *aio.Co, i int) {
				if i == 0 {
					co.LeaveTurn() // for an instant
				}
			})
			<-again // which holds the lock's owner up if the turn was not left
			co.TakeTurn(w.Context)
			s.tell("on a turn again")
			co.Each("part", 2, func(co *aio.Co, i int) {
				co.Reschedule()
				s.tell(fmt.Sprint(i))
			})
		}, s.exit)
		s.expect(t, "0", "1", "kept")
		close(again)
		aio.WaitWhile(l, func() bool { return !s.has("exit") })
		s.expect(t, "on a turn again", "0", "1", "exit")
	})
}

// One of several can ask for a turn of the context as anybody can.
func TestEachTakesTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	w.Enter("op", func(co *aio.Co) {
		co.Each("part", 3, func(co *aio.Co, i int) {
			if i == 1 {
				co.TakeTurn(w.Context)
				s.tell("turn")
			}
		})
	})
	s.expect(t, "turn")
}

// A panic of one is the caller's, once all have ended.
func TestEachPanics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "-*")
	var s story
	p := w.Enter("op", func(co *aio.Co) {
		co.Each("part", 3, func(co *aio.Co, i int) {
			if i == 1 {
				panic("boom")
			}
			s.tell(fmt.Sprint(i))
		})
		s.tell("behind")
	})
	s.expect(t, "0", "2")
	if inner, ok := p.Value.(*aio.PanicError); !ok || inner.Op != "part" || inner.Value != "boom" {
		t.Errorf("got %v", p)
	}
}
