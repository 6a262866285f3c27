package aio

import "sync/atomic"

// Each runs fn for 0 … n-1, each in a coroutine of its own in the same context,
// and returns when all have ended. They start in this order: the next one when
// the one before has ended or first waits for something. While the caller has
// to wait for them the guard is released, as in [Co.Yield]; if none of them
// waits it keeps its turn. A panic of one becomes the caller's.
func (co *Co) Each(op string, n int, fn func(co *Co, i int)) {
	if n == 1 {
		fn(co, 0)
		return
	}
	e := &each{op: op, fn: fn, done: make(chan struct{})}
	e.running.Store(int64(n))
	for i := range n {
		e.start(co, i)
	}
	for len(e.again) > 0 {
		next := e.again[0]
		e.again = e.again[1:]
		next()
	}
	switch {
	case e.running.Load() > 0:
		co.Yield(func() { <-e.done })
	case e.waited.Load():
		co.LeaveTurn()
	}
	if p := e.panicked.Load(); p != nil {
		panic(p)
	}
}

// each is one call of [Co.Each].
type each struct {
	op       string
	fn       func(*Co, int)
	running  atomic.Int64
	waited   atomic.Bool   // one of them did, be it for an instant
	done     chan struct{} // closed when all have ended
	panicked atomic.Pointer[PanicError]
	// again lets those go on who put themselves off. Whoever has the turn owns
	// it, or the caller if nobody has.
	again []func()
}

// start starts a coroutine on the caller's turn. If the caller has none, the
// new coroutine has one that is no right to a lock but makes the caller wait in
// the same way.
func (e *each) start(caller *Co, i int) {
	t := &turn{among: e, left: make(chan struct{})}
	if caller.onTurn() {
		t = lend(caller.turn.lender)
	}
	c := caller.ctx
	c.coroutines.Add(1)
	c.spawnedEver.Add(1)
	go func() {
		defer c.coroutines.Done()
		co := c.make(e.op)
		co.resume(t)
		if p := co.run(func(co *Co) { e.fn(co, i) }); p != nil {
			e.panicked.CompareAndSwap(nil, p)
		}
		t := co.turn
		co.turn = nil
		if t == nil {
			e.waited.Store(true)
		}
		c.end(co)
		if e.running.Add(-1) == 0 {
			close(e.done)
		}
		if t != nil {
			close(t.left)
		}
	}()
	<-t.left
}
