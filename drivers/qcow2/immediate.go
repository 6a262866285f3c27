package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Immediate requests ([block.ReqImmediate]) are carried out where the mapping
// is in memory, and writes to new places where all that has to be noted is. Such
// a write takes the mutex once more when its data is there; it may have to wait
// for that while somebody writes metadata, for whom every request waits.

// errWouldWait is how the others fail.
var errWouldWait = qerr.From(syscall.EAGAIN)

// enter takes the mutex for a look at the mapping of an offset. It fails if an
// immediate request would have to wait for that.
func (i *image) enter(co *aio.Co, offset int64, flags block.ReqFlags) error {
	if flags&block.ReqImmediate == 0 {
		i.mu.lock(co)
		return nil
	}
	if !i.mu.m.TryLock() {
		return errWouldWait
	}
	if !i.mapped(offset) {
		i.mu.unlock()
		return errWouldWait
	}
	return nil
}

// mapped tells whether the entry for an offset is in memory, or there is none.
func (i *image) mapped(offset int64) bool {
	n := i.geo.l1Index(offset)
	if n >= i.l1.entries {
		return true
	}
	at := int64(i.l1.get(n) & offsetMask)
	return at == 0 || i.l2.holds(at+int64(i.geo.sliceFirst(offset))*i.geo.entrySize)
}

// allocatesAtOnce tells whether a write to new places needs no metadata that
// is not in memory, nor anything to be written but its own data: it is of whole
// clusters. The entry for its offset is in memory.
func (i *image) allocatesAtOnce(offset, bytes int64) bool {
	g := &i.geo
	if g.inCluster(offset|bytes) != 0 || i.opts.lazyRefcounts && !i.dirtyBit || i.frees.held > maxHeld {
		return false
	}
	n := g.l1Index(offset)
	if n >= i.l1.entries {
		return false
	}
	e := i.l1.get(n)
	return e&offsetMask != 0 && e&flagCopied != 0 && (i.external() || i.refs.free(g.clusters(bytes)))
}

// free tells whether as many clusters from the hint on are free, as far as is
// known without reading.
func (r *refcounts) free(n int64) bool {
	at := r.blockOffset(r.hint)
	first := r.inBlock(r.hint)
	t := r.cache.at[at]
	if at == 0 || t == nil || first+n > 1<<r.img.geo.refBits {
		return false
	}
	for k := range n {
		if readRefcount(t.data, r.img.geo.refOrder, first+k) != 0 {
			return false
		}
	}
	return true
}
