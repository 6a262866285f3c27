package block

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/trace"
)

// graphLock is the graph's read-write lock. Coroutines are its readers.
type graphLock struct {
	sync.RWMutex
	writer atomic.Pointer[string] // what the writer holds it for or waits for
	taken  atomic.Bool
}

// Write proves that its bearer holds the graph's write lock, in the main
// context. It is also a transaction: what is done with it is undone if the
// section ends with an error.
type Write struct {
	graph  *Graph
	lock   *aio.Lock
	undo   []func()
	commit []func()
	// closing are nodes that lost their last user; they are closed once the
	// lock is released, because closing does I/O.
	closing []*Node
}

// Lock is the main context's lock, which the writer holds as well.
func (w *Write) Lock() *aio.Lock { return w.lock }

func (w *Write) onAbort(f func())  { w.undo = append(w.undo, f) }
func (w *Write) onCommit(f func()) { w.commit = append(w.commit, f) }

// Write runs change with the graph's write lock held. If change returns an
// error, everything it did to the graph is undone. While readers are waited
// for, the main context's lock is released.
func (g *Graph) Write(l *aio.Lock, op string, change func(*Write) error) error {
	w := &Write{graph: g, lock: l}
	g.lockForWrite(l, op)
	err := change(w)
	if err != nil {
		for i := len(w.undo) - 1; i >= 0; i-- {
			w.undo[i]()
		}
	} else {
		for _, f := range w.commit {
			f()
		}
	}
	g.unlockForWrite()
	if err != nil {
		return err
	}
	for _, n := range w.closing {
		g.closeNode(l, n)
	}
	return nil
}

func (g *Graph) lockForWrite(l *aio.Lock, op string) {
	g.rw.writer.Store(&op)
	if !g.rw.TryLock() {
		g.tracer.At(trace.GraphLockWait).Str("op", op).Send()
		l.Unlocked(g.rw.Lock)
	}
	g.rw.taken.Store(true)
	g.tracer.At(trace.GraphLockTaken).Str("op", op).Send()
}

func (g *Graph) unlockForWrite() {
	g.rw.taken.Store(false)
	g.rw.writer.Store(nil)
	g.rw.Unlock()
}

// LockReport describes who holds the graph lock and who waits for it, for a
// person who looks for the cause of a deadlock.
func (g *Graph) LockReport() string {
	var b strings.Builder
	if op := g.rw.writer.Load(); op != nil {
		verb := "waits for"
		if g.rw.taken.Load() {
			verb = "holds"
		}
		fmt.Fprintf(&b, "writer: %s %s the lock\n", *op, verb)
	}
	for _, ctx := range g.contexts() {
		for _, co := range ctx.Coroutines() {
			fmt.Fprintf(&b, "reader: %s\n", co)
		}
	}
	return b.String()
}
