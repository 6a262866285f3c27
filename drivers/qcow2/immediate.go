package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Immediate requests ([block.ReqImmediate]) are carried out where the mapping
// is in memory and does not change.

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
