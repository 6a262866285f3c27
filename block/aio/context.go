package aio

import (
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/trace"
)

// Guard is held by every coroutine of a context while it runs: the block
// graph's read lock.
type Guard interface {
	TryRLock() bool
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
	// soon are functions to run before the lock is given back. Whoever holds
	// the lock owns it, or has lent it to a coroutine.
	soon []func(*Lock)
	// ends are what follows from the ends of coroutines, the newest last; round
	// are those that were there when the lock's holder began to give it back.
	ends, round []func(*Lock)
	// again lets those go on who put themselves off, the longest waiting first.
	again []func(*Lock)
	// expired are timers of no time. They go off behind the posted function in
	// which they were set, before those who put themselves off.
	expired []func(*Lock)
	// between is held while posted functions run that nobody polls for; nil
	// for no such lock.
	between sync.Locker

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

// RunBetween makes posted functions wait for a lock of the owner unless
// somebody polls for them: what they do then comes between the owner's own
// steps. It is called before the context is used.
func (c *Context) RunBetween(steps sync.Locker) { c.between = steps }

// Release gives the lock back; the token is dead from then on. What coroutines
// on its holder's turn have left to do is done before, but not what follows
// from their ends: the reference has one round of its event loop for that
// before it replies (observed: jobs/backup-target-error).
func (l *Lock) Release() {
	l.mustHold()
	if l.ctx.pendingRound() {
		l.ctx.runRound(l)
	}
	l.ctx.postExpired()
	l.held = false
	l.ctx.lock.Unlock()
	l.ctx.Kick() // somebody may poll for what came of it
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
		if c.runPosted(l) {
			c.Kick() // others may poll for what came of it
		}
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
	if c.between != nil {
		c.between.Lock()
		defer c.between.Unlock()
	}
	l := c.Acquire()
	defer l.Release()
	c.runWaiting(l)
	// Somebody may have looked while one of them polled.
	c.Kick()
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

// RunPosted runs what was posted and nobody has run yet, for an owner who is
// about to take a step and holds the lock of [Context.RunBetween]: it comes
// before that step.
func (c *Context) RunPosted() {
	if c.waiting() == 0 {
		return
	}
	l := c.Acquire()
	defer l.Release()
	c.runWaiting(l)
	c.Kick()
}

// waiting is the number of posted functions that nobody has run yet.
func (c *Context) waiting() int {
	c.bhMu.Lock()
	defer c.bhMu.Unlock()
	return len(c.bhs)
}

// runWaiting runs what was posted before, and not what is posted meanwhile, so
// that somebody who posts over and over again keeps nobody out.
func (c *Context) runWaiting(l *Lock) {
	c.runOthers(l)
	for n := c.waiting(); n > 0 && c.runOne(l); n-- {
		c.runExpired(l)
		c.runOthers(l)
	}
}

// runExpired lets timers go off, not those that are set meanwhile.
func (c *Context) runExpired(l *Lock) {
	expired := c.expired
	c.expired = nil
	for _, fn := range expired {
		fn(l)
	}
}

// runOthers runs what is to be run before anything that was posted.
func (c *Context) runOthers(l *Lock) {
	for c.runSoon(l); len(c.again) > 0; c.runSoon(l) {
		c.runAgain(l, len(c.again))
	}
}

func (c *Context) runSoon(l *Lock) {
	for c.runLater(l); len(c.ends)+len(c.round) > 0; c.runLater(l) {
		if fn, ok := pop(&c.ends); ok {
			fn(l)
		} else if fn, ok := pop(&c.round); ok {
			fn(l)
		}
	}
}

func pop(list *[]func(*Lock)) (last func(*Lock), ok bool) {
	n := len(*list) - 1
	if n < 0 {
		return nil, false
	}
	last = (*list)[n]
	*list = (*list)[:n]
	return last, true
}

func (c *Context) runLater(l *Lock) {
	for len(c.soon) > 0 {
		fn := c.soon[0]
		c.soon = c.soon[1:]
		fn(l)
	}
}

func (c *Context) pendingRound() bool { return len(c.soon)+len(c.round)+len(c.ends)+len(c.again) > 0 }

// runRound is runSoon and runAgain without what comes meanwhile.
func (c *Context) runRound(l *Lock) {
	c.runLater(l)
	again := len(c.again)
	c.round, c.ends = append(c.round, c.ends...), nil
	for ; len(c.round) > 0; c.runLater(l) {
		fn, _ := pop(&c.round)
		fn(l)
	}
	c.runAgain(l, again)
	for fn, ok := pop(&c.ends); ok; fn, ok = pop(&c.ends) {
		c.Post(fn)
	}
	for _, fn := range c.again {
		c.Post(fn)
	}
	c.again = nil
}

// postExpired lets the timers go off that are left once the lock is free.
func (c *Context) postExpired() {
	for _, fn := range c.expired {
		c.Post(fn)
	}
	c.expired = nil
}

// runAgain lets coroutines go on that put themselves off, at most so many.
func (c *Context) runAgain(l *Lock, most int) {
	for ; most > 0 && len(c.again) > 0; most-- {
		fn := c.again[0]
		c.again = c.again[1:]
		fn(l)
		c.runLater(l)
	}
}

// atEnd is Later for what follows from the end of a coroutine: it comes last, and
// of several that have ended meanwhile the last one goes first (observed:
// transaction/backup-grouped-finalize).
func (c *Context) atEnd(fn func(*Lock)) { c.ends = append(c.ends, fn) }

// runPosted runs what is to be run, and tells whether that was anything.
func (c *Context) runPosted(l *Lock) (ran bool) {
	ran = c.pendingRound()
	for c.runOthers(l); c.runOne(l); c.runOthers(l) {
		ran = true
		c.runExpired(l)
	}
	c.postExpired()
	return ran
}

// runOne runs the first posted function, if there is one.
func (c *Context) runOne(l *Lock) bool {
	c.bhMu.Lock()
	if len(c.bhs) == 0 {
		c.bhMu.Unlock()
		return false
	}
	fn := c.bhs[0]
	c.bhs = c.bhs[1:]
	c.bhMu.Unlock()
	fn(l)
	return true
}

// Settle does at once what coroutines on the turn of the lock's holder have
// left to do, and what [Context.Later] was given.
func (l *Lock) Settle() {
	l.mustHold()
	l.ctx.runSoon(l)
}

// Later makes fn run when the lock's holder polls, settles or gives the lock
// back. It is called by code that runs with the lock, but must not wait there.
func (c *Context) Later(fn func(*Lock)) { c.soon = append(c.soon, fn) }
