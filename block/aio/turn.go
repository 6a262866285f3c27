package aio

import "time"

// turn is the right of a context's lock, lent to one coroutine: the holder of the lock waits
// until the coroutine gives the turn up, and touches nothing meanwhile. Without
// a lender it is the turn of one among several, see [Co.Each]: the others wait.
type turn struct {
	lender *Context
	among  *each
	left   chan struct{} // closed when the turn is given up
}

func lend(lender *Context) *turn { return &turn{lender: lender, left: make(chan struct{})} }

// Start starts a coroutine on the turn of the lock's holder: it returns when
// the coroutine has ended or first waits for something. exit runs after the
// coroutine's end, with the lock of l's context and the coroutine's panic if
// there was one. If all of it happened on turns, exit runs before the lock is
// given back or the next time its holder polls.
func (c *Context) Start(l *Lock, op string, fn func(*Co), exit func(*Lock, *PanicError)) {
	l.mustHold()
	c.launch(l.ctx, op, fn, exit, (*Context).atEnd)
}

// launch starts a coroutine on a turn of home, which the caller has the right
// to lend. later is how exit comes to run if all of it happened on turns.
func (c *Context) launch(home *Context, op string, fn func(*Co), exit func(*Lock, *PanicError), later func(*Context, func(*Lock))) {
	t := lend(home)
	c.coroutines.Add(1)
	c.spawnedEver.Add(1)
	go func() {
		defer c.coroutines.Done()
		co := c.make(op)
		co.resume(t)
		p := co.run(fn)
		t := co.turn
		co.turn = nil
		c.end(co)
		finish := func(l *Lock) { exit(l, p) }
		if t == nil {
			home.Post(finish)
		} else {
			later(t.lender, finish)
			close(t.left)
		}
	}()
	<-t.left
}

// resume takes the guard on a turn that was lent. Where that would have to
// wait, perhaps for somebody who waits for the lender, it waits without the
// turn and asks for another one.
func (co *Co) resume(t *turn) {
	co.state.Store(coWaiting)
	guard := co.ctx.guard
	if !guard.TryRLock() {
		lender := t.lender
		close(t.left)
		guard.RLock()
		if t = nil; lender != nil {
			t = borrow(lender)
		}
	}
	co.turn = t
	co.state.Store(coRunning)
}

// release gives the guard up.
func (co *Co) release() {
	co.state.Store(coYielded)
	co.ctx.guard.RUnlock()
}

// borrow waits until the context lends its turn.
func borrow(c *Context) *turn {
	got := make(chan *turn)
	c.Post(func(*Lock) {
		t := lend(c)
		got <- t
		<-t.left
	})
	return <-got
}

// onTurn tells whether the coroutine has the right of a context's lock.
func (co *Co) onTurn() bool { return co.turn != nil && co.turn.lender != nil }

// LeaveTurn gives the turn up, if the coroutine runs on one. All places do so
// where a coroutine waits, for the medium ([Co.BeginBlocking]) or for others
// ([Co.Yield]). The coroutine goes on, beside everybody else.
func (co *Co) LeaveTurn() {
	if co.turn != nil {
		close(co.turn.left)
		co.turn = nil
	}
}

// Reschedule puts the rest of the coroutine off, if it runs on a turn: it goes on
// when the lock's holder polls or gives the lock back, or when the others among
// which it runs have started.
func (co *Co) Reschedule() {
	t := co.turn
	if t == nil {
		return
	}
	got := make(chan *turn)
	next := func() {
		t := &turn{t.lender, t.among, make(chan struct{})}
		got <- t
		<-t.left
	}
	if t.lender != nil {
		t.lender.again = append(t.lender.again, func(*Lock) { next() })
	} else {
		t.among.again = append(t.among.again, next)
	}
	co.turn = nil
	co.release()
	close(t.left)
	co.resume(<-got)
}

// TakeTurn waits for a turn of the given context, unless the coroutine has one.
// Meanwhile the guard is released.
func (co *Co) TakeTurn(c *Context) {
	if co.onTurn() {
		return
	}
	co.LeaveTurn()
	co.release()
	co.resume(borrow(c))
}

// Sleeper is where a coroutine sleeps until somebody wakes it up. It belongs to
// a context, whose lock protects it; it must not be copied.
type Sleeper struct {
	ctx    *Context
	asleep bool
	naps   uint64 // how often somebody fell asleep, to tell old timers by
	wake   chan *turn
}

// Init says whose lock protects the sleeper.
func (s *Sleeper) Init(c *Context) {
	s.ctx = c
	s.wake = make(chan *turn)
}

// Forever is no time limit for [Sleeper.Sleep].
const Forever time.Duration = -1

// Sleep gives up the coroutine's turn and its guard until somebody calls
// [Sleeper.Wake] or the given time has passed. Then it is on a turn again. A
// coroutine without a turn takes one first. No time has passed when the lock's
// holder has done what it is at.
func (s *Sleeper) Sleep(co *Co, d time.Duration) {
	co.TakeTurn(s.ctx)
	s.asleep = true
	s.naps++
	nap := s.naps
	t := co.turn
	if d == 0 {
		t.lender.expired = append(t.lender.expired, s.alarm(nap))
		d = Forever
	}
	co.turn = nil
	co.release()
	close(t.left)
	co.resume(s.wait(nap, d))
}

// alarm wakes up who sleeps for that time.
func (s *Sleeper) alarm(nap uint64) func(*Lock) {
	return func(l *Lock) {
		if s.naps == nap {
			s.Wake(l)
		}
	}
}

func (s *Sleeper) wait(nap uint64, d time.Duration) *turn {
	if d >= 0 {
		alarm := time.NewTimer(d)
		defer alarm.Stop()
		select {
		case t := <-s.wake:
			return t
		case <-alarm.C:
		}
		s.ctx.Post(s.alarm(nap))
	}
	return <-s.wake
}

// Asleep tells whether a coroutine sleeps. It is called with the context's lock.
func (s *Sleeper) Asleep() bool { return s.asleep }

// Wake lets the coroutine go on if it sleeps, and returns when it has ended or
// waits again.
func (s *Sleeper) Wake(l *Lock) {
	l.mustHold()
	if !s.asleep {
		return
	}
	s.asleep = false
	t := lend(s.ctx)
	s.wake <- t
	<-t.left
}
