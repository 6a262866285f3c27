package block

import (
	"sync"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// flushState remembers up to which write a node has been flushed, so that
// flushes with nothing to do cost nothing and many at once cost one.
type flushState struct {
	mu      sync.Mutex
	active  chan struct{} // closed when the flush under way ends
	flushed uint64        // the generation of writes that is durable
}

// Flush makes every finished write durable.
func (n *Node) Flush(c aio.Caller) error {
	_, err := aio.Mixed(c, n.Context(), "flush", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, n.CoFlush(co)
	})
	return err
}

// CoFlush is Flush for coroutines. Each write increments the node's
// generation; a flush covers all generations up to the one it found.
func (n *Node) CoFlush(co *aio.Co) error {
	if n.absent() {
		return qerr.From(syscall.ENOMEDIUM)
	}
	if n.ReadOnly() {
		return nil
	}
	n.begin()
	defer n.end()
	gen := n.writeGen.Load()
	done := n.flush.start(co)
	defer n.flush.finish(done)
	err := n.flushOnce(co, n.flush.flushed != gen)
	if err == nil {
		n.flush.flushed = gen
	}
	return err
}

// start waits for the flush under way and begins the next.
func (f *flushState) start(co *aio.Co) chan struct{} {
	f.mu.Lock()
	for f.active != nil {
		active := f.active
		f.mu.Unlock()
		co.Yield(func() { <-active })
		f.mu.Lock()
	}
	f.active = make(chan struct{})
	f.mu.Unlock()
	return f.active
}

func (f *flushState) finish(done chan struct{}) {
	f.mu.Lock()
	f.active = nil
	f.mu.Unlock()
	close(done)
}

// flushOnce flushes the node itself, if something was written since the last
// time, and then every child it writes to.
func (n *Node) flushOnce(co *aio.Co, written bool) error {
	if all, ok := n.instance.(FlushForwarder); ok {
		return all.CoFlushAll(co)
	}
	n.debugFile(DebugFlushToOS)
	if written && n.flags&FlagNoFlush == 0 {
		if f, ok := n.instance.(Flusher); ok {
			if err := f.CoFlush(co); err != nil {
				return err
			}
		}
		n.debugFile(DebugFlushToDisk)
	}
	var first error
	for _, c := range n.children {
		if c.perm&anyWrite == 0 {
			continue
		}
		if err := c.node.CoFlush(co); err != nil && first == nil {
			first = err
		}
	}
	return first
}
