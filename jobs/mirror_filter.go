package jobs

import (
	"errors"
	"sync/atomic"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
)

// mirrorTop is the driver of the filter over a mirror's source.
var mirrorTop = &block.Driver{
	Name: "mirror_top", Kind: block.Filter, FilterThroughBacking: true, VariableLength: true,
	Open: func(a *block.OpenArgs) (block.Instance, error) {
		return &mirrorFilter{backingFilter: backingFilter{a.Node}}, nil
	},
}

// mirrorFilter is a node of the driver mirror_top: it tells the job what is
// written, or copies it at once. Without a job it passes everything on.
type mirrorFilter struct {
	backingFilter
	job atomic.Pointer[mirror]
	// influx: what is behind the node changes, so that it cannot be relied on.
	influx bool
}

// ChildPerm: whoever uses the filter uses the source. A user that lets nobody
// else write is in the way of no job that writes to an image behind.
func (f *mirrorFilter) ChildPerm(_ *block.Child, _ block.Role, _ *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	if f.influx {
		perm &^= block.PermConsistentRead
		shared |= block.PermWrite // the job writes to what is behind, which nobody relies on
	}
	return perm, shared
}

// RefreshLimits: a request is as durable as the source makes it.
func (f *mirrorFilter) RefreshLimits(l *block.Limits) error {
	c := f.node.Backing()
	if c == nil {
		return nil
	}
	below := c.Node().Limits()
	l.ReadFlags = below.ReadFlags
	l.PassFlags(below)
	return nil
}

// ExactFilename is the source's name.
func (f *mirrorFilter) ExactFilename(*block.Options) string { return f.belowName() }

// CoFlushAll flushes the source; the target is for the job to flush.
func (f *mirrorFilter) CoFlushAll(co *aio.Co) error { return f.node.Backing().Node().CoFlush(co) }

// CoPwritev writes to the source, and where the job wants it to the target.
func (f *mirrorFilter) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return f.change(co, change{method: copyData, offset: offset, bytes: v.Len(), v: v, flags: flags})
}

// CoPwriteZeroes is CoPwritev for zeroes.
func (f *mirrorFilter) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	return f.change(co, change{method: copyZeroes, offset: offset, bytes: bytes, flags: flags})
}

// CoPdiscard is CoPwritev for areas whose content does not matter.
func (f *mirrorFilter) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	return f.change(co, change{method: copyDiscard, offset: offset, bytes: bytes})
}

// change is a request that changes the source.
type change struct {
	method        copyMethod
	offset, bytes int64
	v             block.Vec
	flags         block.ReqFlags
}

// changer is what a change can be made to: an edge or a backend.
type changer interface {
	CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error
	CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error
	CoPdiscard(co *aio.Co, offset, bytes int64) error
}

func (c *change) apply(co *aio.Co, to changer) error {
	switch c.method {
	case copyZeroes:
		return to.CoPwriteZeroes(co, c.offset, c.bytes, c.flags)
	case copyDiscard:
		return to.CoPdiscard(co, c.offset, c.bytes)
	}
	return to.CoPwritev(co, c.offset, c.v, c.flags)
}

func (f *mirrorFilter) change(co *aio.Co, c change) error {
	k := f.job.Load()
	if k == nil {
		return c.apply(co, f.node.Backing())
	}
	if k.copyMode() == CopyInBackground {
		err := c.apply(co, f.node.Backing())
		k.markDirty(c.offset, c.bytes) // also if it failed: some of it may be there
		return err
	}
	area := k.enter(co, c.offset, c.bytes)
	defer k.exit(area)
	if err := c.apply(co, f.node.Backing()); err != nil {
		return err // nobody was promised any content (observed: transcript own/jobs/mirror-blocking-failed)
	}
	k.copyChange(co, c)
	return nil
}

func (k *mirror) copyMode() CopyMode {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mode
}

// markDirty says that an area is to be copied.
func (k *mirror) markDirty(offset, bytes int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty.Use(func(b *hbitmap.Bitmap) { b.Set(offset, bytes) })
	k.synced = false
}

// copyChange makes a change of the source to the target. What is to be copied
// anyhow is left to that unless the change covers it.
func (k *mirror) copyChange(co *aio.Co, c change) {
	offset, end := k.trim(c.offset, c.offset+c.bytes)
	if offset >= end {
		return
	}
	if c.method == copyData {
		c.v = c.v.Slice(offset-c.offset, end-offset)
	}
	c.offset, c.bytes = offset, end-offset
	c.flags &= block.ReqMayUnmap
	if !k.p.Unmap {
		c.flags = 0
	}
	err := c.apply(co, k.target)
	k.mu.Lock()
	k.active -= c.bytes
	if err == nil {
		k.job.Progress.Add(c.bytes)
	}
	k.mu.Unlock()
	if err == nil {
		return
	}
	k.markDirty(c.offset, c.bytes)
	if errors.Is(err, syscall.EAGAIN) {
		return // it is drained: the job copies that later
	}
	k.fail(co, Write, err)
	co.LeaveTurn()
}

// trim finds out which part of a change the target gets at once, and takes what
// it covers out of what is to be copied.
func (k *mirror) trim(offset, end int64) (int64, int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty.Use(func(b *hbitmap.Bitmap) {
		if head := min((offset+k.unit-1)/k.unit*k.unit, end); head > offset && k.leavesOut(b, offset, head) {
			offset = head
		}
		if tail := max(end/k.unit*k.unit, offset); tail < end && end < k.length && k.leavesOut(b, tail, end) {
			end = tail
		}
		b.Reset(offset, end-offset)
	})
	k.active += end - offset
	k.job.Progress.Expect(end - offset)
	return offset, end
}

// leavesOut tells whether a part of a unit is not copied at once: it will be, or
// the rest of the unit would be lost.
func (k *mirror) leavesOut(b *hbitmap.Bitmap, offset, end int64) bool {
	if k.unit > k.p.Granularity {
		b.Set(offset, end-offset)
		k.synced = false
		return true
	}
	return b.Get(offset)
}

// What the filter can do.
var (
	_ block.Reader            = (*mirrorFilter)(nil)
	_ block.Writer            = (*mirrorFilter)(nil)
	_ block.ZeroWriter        = (*mirrorFilter)(nil)
	_ block.Discarder         = (*mirrorFilter)(nil)
	_ block.FlushForwarder    = (*mirrorFilter)(nil)
	_ block.LengthGetter      = (*mirrorFilter)(nil)
	_ block.LimitsRefresher   = (*mirrorFilter)(nil)
	_ block.ChildPermer       = (*mirrorFilter)(nil)
	_ block.FilenameRefresher = (*mirrorFilter)(nil)
)
