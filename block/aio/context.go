package aio

import (
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/trace"
)

// Guard is held by every coroutine of a context while it runs: the block
// graph's read lock.
type Guard interface {
	RLock()
	RUnlock()
}

// Context is an event-loop context. Its zero value is not usable; see
// [NewContext].
type Context struct {
	name   string
	guard  Guard
	tracer *trace.Tracer
	report func(*PanicError)

	lock sync.Mutex // what *Lock proves

	coroutines sync.WaitGroup
	live       coList

	wakeMu  sync.Mutex
	wake    sync.Cond
	wakeSeq uint64
	pollers int

	blocking blocking

	bhMu    sync.Mutex
	bhs     []func(*Lock)
	bhLoop  bool // a goroutine is on its way to run bhs
	bhTasks sync.WaitGroup

	direct, spawned atomic.Uint64
	spawnedEver     atomic.Uint64 // coroutines, for Close
}

// NewContext makes a context whose coroutines hold guard. Panics of coroutines
// that nobody waits for go to report; tracer and report may be nil.
func NewContext(name string, guard Guard, tracer *trace.Tracer, report func(*PanicError)) *Context {
	c := &Context{name: name, guard: guard, tracer: tracer, report: report}
	c.wake.L = &c.wakeMu
	c.blocking.max.Store(DefaultMaxBlocking)
	return c
}

// Name is what trace lines and lock reports call the context.
func (c *Context) Name() string { return c.name }

// Counts tells how many operations of the mixed wrapper ran directly and how
// many were spawned in this context since it was made.
func (c *Context) Counts() (direct, spawned uint64) {
	return c.direct.Load(), c.spawned.Load()
}

// Close waits until every coroutine and every posted function of the context
// has ended. The caller must not hold the context's lock.
func (c *Context) Close() {
	// A posted function may spawn a coroutine, and a coroutine may post: go
	// round until neither has left anything.
	for {
		c.bhTasks.Wait()
		spawned := c.spawnedEver.Load()
		c.coroutines.Wait()
		if c.idle() && spawned == c.spawnedEver.Load() {
			return
		}
	}
}

// idle tells whether nothing is posted.
func (c *Context) idle() bool {
	c.bhMu.Lock()
	defer c.bhMu.Unlock()
	return len(c.bhs) == 0 && !c.bhLoop
}

// Lock proves that its bearer runs in a context and holds the context's lock.
type Lock struct {
	ctx  *Context
	held bool
}

// Acquire waits for the context's lock.
func (c *Context) Acquire() *Lock {
	c.lock.Lock()
	return &Lock{ctx: c, held: true}
}

// Release gives the lock back; the token is dead from then on.
func (l *Lock) Release() {
	l.mustHold()
	l.held = false
	l.ctx.lock.Unlock()
}

// Context is the context whose lock is held.
func (l *Lock) Context() *Context { return l.ctx }

func (l *Lock) mustHold() {
	if !l.held {
		panic("aio: lock token used after its release")
	}
}

// Unlocked runs wait, which may block, with the lock released.
func (l *Lock) Unlocked(wait func()) {
	l.mustHold()
	l.held = false
	l.ctx.lock.Unlock()
	defer func() {
		l.ctx.lock.Lock()
		l.held = true
	}()
	wait()
}

// Kick wakes everybody who polls the context, to look at their conditions
// again. Whoever makes a condition of [WaitWhile] false calls it.
func (c *Context) Kick() {
	c.wakeMu.Lock()
	c.wakeSeq++
	waiting := c.pollers > 0
	c.wakeMu.Unlock()
	if waiting {
		c.wake.Broadcast()
	}
}

// seq is taken before a condition is examined; waitSince then sleeps only if
// nothing was kicked in between, so no wake-up is lost.
func (c *Context) seq() uint64 {
	c.wakeMu.Lock()
	defer c.wakeMu.Unlock()
	return c.wakeSeq
}

func (c *Context) waitSince(seq uint64) {
	c.wakeMu.Lock()
	c.pollers++
	for c.wakeSeq == seq {
		c.wake.Wait()
	}
	c.pollers--
	c.wakeMu.Unlock()
}

// WaitWhile polls the lock's context until cond is false. The lock is held
// whenever cond runs and released while sleeping; functions posted to the
// context run in between.
func WaitWhile(l *Lock, cond func() bool) {
	l.mustHold()
	c := l.ctx
	for {
		seq := c.seq()
		c.runPosted(l)
		if !cond() {
			return
		}
		c.tracer.At(trace.CoroutinePoll).Str("context", c.name).Send()
		l.Unlocked(func() { c.waitSince(seq) })
	}
}

// WaitWhileUnlocked waits until cond is false, for callers that do not hold
// the context's lock. cond must not need it.
func WaitWhileUnlocked(c *Context, cond func() bool) {
	for {
		seq := c.seq()
		if !cond() {
			return
		}
		c.waitSince(seq)
	}
}

// Post runs fn in the context, soon: by whoever polls it, or by a goroutine of
// the context that takes the lock for it.
func (c *Context) Post(fn func(*Lock)) {
	c.bhMu.Lock()
	c.bhs = append(c.bhs, fn)
	start := !c.bhLoop
	if start {
		c.bhLoop = true
		c.bhTasks.Add(1)
	}
	c.bhMu.Unlock()
	if start {
		go c.postedLoop()
	}
	c.Kick()
}

func (c *Context) postedLoop() {
	defer c.bhTasks.Done()
	l := c.Acquire()
	defer l.Release()
	c.runPosted(l)
	c.bhMu.Lock()
	c.bhLoop = false
	again := len(c.bhs) > 0
	if again {
		c.bhLoop = true
		c.bhTasks.Add(1)
	}
	c.bhMu.Unlock()
	if again {
		go c.postedLoop()
	}
}

func (c *Context) runPosted(l *Lock) {
	for {
		c.bhMu.Lock()
		if len(c.bhs) == 0 {
			c.bhMu.Unlock()
			return
		}
		fn := c.bhs[0]
		c.bhs = c.bhs[1:]
		c.bhMu.Unlock()
		fn(l)
	}
}
