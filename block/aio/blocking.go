package aio

import (
	"sync"
	"sync/atomic"
)

// DefaultMaxBlocking is how many coroutines of a context may block in system
// calls at once unless [Context.SetMaxBlocking] says otherwise: as many as the
// reference has threads for them (thread-pool-max).
const DefaultMaxBlocking = 64

// blocking counts the coroutines of a context that are in blocking system
// calls. Each of them takes a thread of the operating system, of which the Go
// runtime makes as many as it takes; too many of them cost memory, and a disk
// is not faster for being asked ten thousand things at once.
type blocking struct {
	// state holds the number of coroutines inside, and in its upper half the
	// number of those that wait. Whoever finds nobody waiting and room inside
	// needs no more than it.
	state atomic.Uint64
	max   atomic.Uint64

	mu          sync.Mutex // held to change who waits
	first, last *blockingWait
}

// blockingWait is a coroutine in the queue, the longest waiting one first.
type blockingWait struct {
	turn chan struct{} // closed when the coroutine is let in
	next *blockingWait
}

const (
	oneInside  = 1
	oneWaiting = 1 << 32
)

// SetMaxBlocking changes how many coroutines of the context may block in
// system calls at once, at least 1. Those that are too many finish first.
func (c *Context) SetMaxBlocking(n int) {
	b := &c.blocking
	b.mu.Lock()
	defer b.mu.Unlock()
	b.max.Store(uint64(max(n, 1)))
	b.letIn()
}

// MaxBlocking is the bound that [Context.SetMaxBlocking] set.
func (c *Context) MaxBlocking() int { return int(c.blocking.max.Load()) }

// BeginBlocking goes before a system call that may block, or a few of them,
// and EndBlocking behind it. When too many coroutines of the context are
// between the two already, it waits for its turn, as in [Co.Yield]. The turn of
// the coroutine's waker ends here ([Co.LeaveTurn]). In between
// the coroutine must not wait for anything but the system: no other node's
// requests, no second BeginBlocking.
func (co *Co) BeginBlocking() {
	co.LeaveTurn()
	co.BeginBrief()
}

// BeginBrief is BeginBlocking for system calls that answer from memory: the
// reference has no thread for them and goes on in its event loop. The turn is
// kept unless there are too many coroutines.
func (co *Co) BeginBrief() {
	b := &co.ctx.blocking
	if b.enter() {
		return
	}
	co.LeaveTurn()
	if w := b.queue(); w != nil {
		co.Yield(func() { <-w.turn })
	}
}

// EndBlocking lets the next coroutine in.
func (co *Co) EndBlocking() {
	b := &co.ctx.blocking
	for {
		s := b.state.Load()
		if s >= oneWaiting {
			break
		}
		if b.state.CompareAndSwap(s, s-oneInside) {
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Add(^uint64(oneInside - 1)) // minus
	b.letIn()
}

// enter takes a place inside if there is one that nobody waits for.
func (b *blocking) enter() bool {
	for {
		s := b.state.Load()
		if s >= b.max.Load() { // or somebody waits, in the upper half
			return false
		}
		if b.state.CompareAndSwap(s, s+oneInside) {
			return true
		}
	}
}

// queue enters the queue, or takes a place that has become free; then there is
// nothing to wait for, and it returns nil.
func (b *blocking) queue() *blockingWait {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.enter() {
			return nil
		}
		// Whoever leaves from now on finds somebody waiting.
		s := b.state.Load()
		if s >= b.max.Load() && b.state.CompareAndSwap(s, s+oneWaiting) {
			break
		}
	}
	w := &blockingWait{turn: make(chan struct{})}
	if b.last == nil {
		b.first = w
	} else {
		b.last.next = w
	}
	b.last = w
	return w
}

// letIn gives free places to those who wait longest. It is called with mu held.
func (b *blocking) letIn() {
	for w := b.first; w != nil; w = b.first {
		inside := b.state.Load() % oneWaiting
		if inside >= b.max.Load() {
			return
		}
		// Nobody else lowers either number while somebody waits.
		b.state.Add(^uint64(oneWaiting - oneInside - 1)) // minus
		if b.first = w.next; b.first == nil {
			b.last = nil
		}
		close(w.turn)
	}
}
