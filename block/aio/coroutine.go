package aio

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/trace"
)

// Co proves that its bearer runs in a coroutine, and so holds the guard of the
// coroutine's context. It must not outlive the coroutine or be shared with
// another goroutine.
type Co struct {
	ctx   *Context
	op    string
	state atomic.Int32
	turn  *turn // nil if it runs beside everybody else
	prev  *Co
	next  *Co
}

// The states of a coroutine, as [Context.Coroutines] tells them.
const (
	coWaiting int32 = iota // for the guard
	coRunning
	coYielded
)

// Context is the coroutine's home.
func (co *Co) Context() *Context { return co.ctx }

// Yield runs wait, which may block for long, with the guard released: a
// request that is throttled, or held up by a drained section, must not keep
// writers of the graph out. After it the graph may have changed. The
// coroutine's turn is given up.
func (co *Co) Yield(wait func()) {
	co.LeaveTurn()
	co.state.Store(coYielded)
	co.ctx.guard.RUnlock()
	defer func() {
		co.state.Store(coWaiting)
		co.ctx.guard.RLock()
		co.state.Store(coRunning)
	}()
	wait()
}

// coPool spares the hot path an allocation; tokens carry no state between uses.
var coPool = sync.Pool{New: func() any { return new(Co) }}

// Enter runs fn as a coroutine on the caller's own goroutine: what a server
// does that already has a goroutine for each request and waits for nothing
// but its end. The caller must hold no lock that fn needs. A panic of fn is
// returned.
func (c *Context) Enter(op string, fn func(*Co)) (p *PanicError) {
	co := c.make(op)
	defer c.end(co)
	c.guard.RLock()
	co.state.Store(coRunning)
	return co.run(fn)
}

// run calls fn and catches its panic.
func (co *Co) run(fn func(*Co)) (p *PanicError) {
	defer func() {
		if v := recover(); v != nil {
			p = &PanicError{Op: co.op, Value: v, Stack: debug.Stack()}
			co.ctx.tracer.At(trace.CoroutinePanic).Str("op", co.op).Str("value", fmt.Sprint(v)).Send()
		}
	}()
	fn(co)
	return nil
}

// make makes a coroutine that has no guard yet.
func (c *Context) make(op string) *Co {
	co := coPool.Get().(*Co)
	co.ctx, co.op = c, op
	co.state.Store(coWaiting)
	c.live.add(co)
	return co
}

func (c *Context) end(co *Co) {
	c.guard.RUnlock()
	c.live.remove(co)
	co.ctx = nil
	coPool.Put(co)
}

// Spawn starts a coroutine in the context. done runs after it has ended, its
// guard released, with the coroutine's panic if there was one; a nil done
// leaves panics to the context's report function.
func (c *Context) Spawn(op string, fn func(*Co), done func(*PanicError)) {
	c.coroutines.Add(1)
	c.spawnedEver.Add(1)
	go func() {
		defer c.coroutines.Done()
		p := c.Enter(op, fn)
		if done != nil {
			done(p)
		} else if p != nil && c.report != nil {
			c.report(p)
		}
		c.Kick()
	}()
}

// PanicError is a panic that happened in a coroutine, brought to whoever
// waited for it.
type PanicError struct {
	Op    string
	Value any
	Stack []byte
}

// Error names the operation and the panic's value; the stack is for the log.
func (p *PanicError) Error() string {
	return fmt.Sprintf("Internal error in %s: %v", p.Op, p.Value)
}

// Coroutines describes the live coroutines of the context, for a person who
// looks for the cause of a deadlock.
func (c *Context) Coroutines() []string {
	var out []string
	c.live.each(func(co *Co) {
		state := [...]string{"waits for the graph lock", "runs", "has yielded"}[co.state.Load()]
		out = append(out, fmt.Sprintf("%s in %s %s", co.op, c.name, state))
	})
	return out
}

// coList is the set of live coroutines, linked so that entering and leaving
// allocate nothing.
type coList struct {
	mu   sync.Mutex
	head *Co
}

func (l *coList) add(co *Co) {
	l.mu.Lock()
	co.prev, co.next = nil, l.head
	if l.head != nil {
		l.head.prev = co
	}
	l.head = co
	l.mu.Unlock()
}

func (l *coList) remove(co *Co) {
	l.mu.Lock()
	if co.prev != nil {
		co.prev.next = co.next
	} else {
		l.head = co.next
	}
	if co.next != nil {
		co.next.prev = co.prev
	}
	co.prev, co.next = nil, nil
	l.mu.Unlock()
}

func (l *coList) each(f func(*Co)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for co := l.head; co != nil; co = co.next {
		f(co)
	}
}
