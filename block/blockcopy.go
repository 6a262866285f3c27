package block

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
)

// BlockCopy copies the data of one node to another one of the same length, a
// cluster at most once: a bitmap says what is still to be copied. Several may
// ask for copies at the same time (a job in the background, and writes for
// whose sake old data is saved); an area is copied by one of them, and the
// others wait for it.
type BlockCopy struct {
	source, target *Child
	cluster        int64
	// length is the source's when the copying began, in bytes.
	length int64
	// bits is what is to be copied and nobody is at. It is changed while mu is
	// held, so that an area is always in bits, in tasks, or done with.
	bits       *DirtyBitmap
	writeFlags ReqFlags
	opts       BlockCopyOptions

	mu    sync.Mutex
	tasks Areas
	busy  int64 // bytes of all tasks

	// careful: a long task has failed, which shorter ones are to tell more of.
	careful atomic.Bool
	// cannotRange: the host has failed to copy, and is not asked any more.
	cannotRange atomic.Bool
}

// BlockCopyOptions change while nothing is being copied.
type BlockCopyOptions struct {
	// SkipUnallocated leaves out what the source's backing file has.
	SkipUnallocated bool
	// DiscardSource discards in the source what was copied.
	DiscardSource bool
	// Compress writes compressed clusters.
	Compress bool
	// UseCopyRange lets the host copy where it can.
	UseCopyRange bool
	// MaxChunk bounds a request, in bytes; 0: as it is best.
	MaxChunk int64
	// Progress hears of what is done; nil: nobody does.
	Progress CopyProgress
}

// CopyProgress hears of bytes that were copied, and of how many are to be.
type CopyProgress interface {
	Add(n int64)
	SetRemaining(n int64)
}

// copyChunk is how much is copied by one request unless clusters are larger,
// in bytes (observed: transcript jobs/backup-speed-cancel).
const copyChunk = 1 << 20

// defaultCopyCluster is the least cluster if nobody demands a larger one, in
// bytes.
const defaultCopyCluster = 65536

// maxCopyCluster is the largest that can be demanded; the reference aborts if it
// is exceeded.
const maxCopyCluster = 1 << 31

// CopyError is a request that failed.
type CopyError struct {
	// Read says that it was on the source.
	Read bool
	Err  error
}

func (e *CopyError) Error() string { return e.Err.Error() }

// Unwrap returns the request's error.
func (e *CopyError) Unwrap() error { return e.Err }

// NewBlockCopy prepares to copy everything from one child of a node to another,
// or what is dirty in only. minCluster is the least that is copied at once, in
// bytes, a power of two or 0. The node's length must be known.
func NewBlockCopy(l *aio.Lock, n *Node, source, target *Child, only *DirtyBitmap, minCluster uint64) (*BlockCopy, error) {
	switch {
	case minCluster > math.MaxInt64:
		return nil, qerr.New("min-cluster-size too large: %d > %d", minCluster, int64(math.MaxInt64))
	case minCluster&(minCluster-1) != 0:
		return nil, qerr.New("min-cluster-size needs to be a power of 2")
	case minCluster > maxCopyCluster:
		return nil, qerr.New("min-cluster-size too large: %d > %d", minCluster, int64(maxCopyCluster))
	}
	cluster, err := copyCluster(l, target.node, max(int64(minCluster), defaultCopyCluster))
	if err != nil {
		return nil, err
	}
	bits, err := n.CreateDirtyBitmap(l, "", cluster)
	if err != nil {
		return nil, err
	}
	bits.SetEnabled(false)
	c := &BlockCopy{source: source, target: target, cluster: cluster, length: bits.Size(), bits: bits}
	if only == nil {
		c.bits.Use(func(b *hbitmap.Bitmap) { b.Set(0, c.length) })
	} else if _, err := bits.Merge(only); err != nil {
		return nil, qerr.Prepend(err, "Failed to merge bitmap '%s' to internal copy-bitmap: ", only.name)
	}
	if target.node.InChain(source.node) {
		// Whoever reads the target sees the source where nothing was copied
		// yet: reading and copying must not overtake each other.
		c.writeFlags = ReqSerialising
	}
	return c, nil
}

// copyCluster is the length of what is copied at once: a part of a cluster of
// the target would be completed by what its backing file has.
func copyCluster(l *aio.Lock, target *Node, least int64) (int64, error) {
	cow := target.SkipFilters().cow() != nil
	info, err := target.GetInfo(l)
	switch {
	case err == nil:
		return max(least, info.ClusterSize), nil
	case errors.Is(err, syscall.ENOTSUP) && !cow:
		target.graph.Warn("The target block device doesn't provide information about the block size "+
			"and it doesn't have a backing file. The (default) block size of %d bytes is used. If the actual block size "+
			"of the target exceeds this value, the backup may be unusable", least)
		return least, nil
	case cow:
		return least, nil
	}
	return 0, qerr.Prepend(err, "Couldn't determine the cluster size of the target image, which has no backing file: ").
		WithHint("Aborting, since this may create an unusable destination image\n")
}

// Configure changes the options.
func (c *BlockCopy) Configure(o BlockCopyOptions) {
	c.writeFlags &^= ReqCompressed
	if o.Compress {
		c.writeFlags |= ReqCompressed
	}
	c.opts = o
	c.announce()
}

// ClusterSize is the least that is copied at once, in bytes.
func (c *BlockCopy) ClusterSize() int64 { return c.cluster }

// Length is the length of the disk that is copied, in bytes.
func (c *BlockCopy) Length() int64 { return c.length }

// Bitmap is what is still to be copied.
func (c *BlockCopy) Bitmap() *DirtyBitmap { return c.bits }

// chunk is the longest task.
func (c *BlockCopy) chunk() int64 {
	n := max(c.cluster, copyChunk)
	if c.writeFlags&ReqCompressed != 0 {
		n = c.cluster
	}
	if c.opts.MaxChunk > 0 && c.opts.MaxChunk < n {
		n = alignUp(c.opts.MaxChunk, c.cluster)
	}
	for _, limit := range []int64{c.source.node.limits.MaxTransfer, c.target.node.limits.MaxTransfer} {
		if limit > 0 {
			n = min(n, max(alignDown(limit, c.cluster), c.cluster))
		}
	}
	return n
}

// CopyTask is the copying of one area.
type CopyTask struct {
	Area // whole clusters
	zero bool
	long bool // more than is copied by one request
	// from and at are where the host has the data, if it is to copy them.
	from *Node
	at   int64
}

// Next begins with the first area to be copied from offset on, at most bytes
// far; nil if there is none. The task must be run ([BlockCopy.Run]). Where there
// are zeroes only it may have up to most bytes, if that is more than usual.
func (c *BlockCopy) Next(co *aio.Co, offset, bytes, most int64) *CopyTask {
	if c.opts.MaxChunk > 0 || c.careful.Load() {
		most = 0
	}
	for {
		t := c.take(offset, bytes)
		if t == nil || c.look(co, t, most) {
			return t
		}
		bytes -= t.Offset + t.Bytes - offset
		offset = t.Offset + t.Bytes
	}
}

// Pending tells whether anything from offset on is to be copied that nobody is
// at.
func (c *BlockCopy) Pending(offset int64) (found bool) {
	c.bits.Use(func(b *hbitmap.Bitmap) { _, _, found = b.NextArea(offset, c.length-offset, c.cluster) })
	return found
}

// take makes a task of the first area to be copied.
func (c *BlockCopy) take(offset, bytes int64) *CopyTask {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &CopyTask{}
	var found bool
	limit := c.chunk()
	c.bits.Use(func(b *hbitmap.Bitmap) {
		if t.Offset, t.Bytes, found = b.NextArea(offset, bytes, limit); found {
			t.Bytes = alignUp(t.Bytes, c.cluster)
			b.Reset(t.Offset, t.Bytes)
		}
	})
	if !found {
		return nil
	}
	c.tasks.Add(&t.Area)
	c.busy += t.Bytes
	return t
}

// look finds out what is to be done in the beginning of a task's area, as far
// as it is all of one kind, and whether it is anything at all.
func (c *BlockCopy) look(co *aio.Co, t *CopyTask, most int64) bool {
	st := c.status(co, t.Offset, max(t.Bytes, min(most, alignUp(c.length, c.cluster)-t.Offset)))
	t.zero = st.Flags&StatusZero != 0
	skip := c.opts.SkipUnallocated && st.Flags&StatusAllocated == 0
	if t.zero || skip {
		c.grow(t, st.Bytes)
	}
	c.shrink(t, st.Bytes)
	if c.opts.UseCopyRange && c.writeFlags&ReqCompressed == 0 && !c.cannotRange.Load() {
		t.from, t.at = c.source.node.copyRangeSource(st), st.Map
	}
	if skip {
		c.end(t, false)
	}
	return !skip
}

// grow takes more of what is to be copied for a task, up to so many bytes, as
// far as it follows without a gap. That all of it is still what was seen there
// follows from that: what is overwritten is copied first.
func (c *BlockCopy) grow(t *CopyTask, bytes int64) {
	if bytes <= t.Bytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	end := t.Offset + t.Bytes
	c.bits.Use(func(b *hbitmap.Bitmap) {
		start, more, found := b.NextArea(end, bytes-t.Bytes, bytes)
		if !found || start != end {
			return
		}
		more = alignUp(more, c.cluster)
		b.Reset(end, more)
		t.Bytes += more
		t.long = true
		c.busy += more
	})
}

// shrink gives back what a task does not do.
func (c *BlockCopy) shrink(t *CopyTask, bytes int64) {
	if bytes >= t.Bytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bits.Use(func(b *hbitmap.Bitmap) { b.Set(t.Offset+bytes, t.Bytes-bytes) })
	c.busy -= t.Bytes - bytes
	t.Bytes = bytes
	t.Wake()
}

// PutBack gives a task up that was not run.
func (c *BlockCopy) PutBack(t *CopyTask) { c.end(t, true) }

// end is the end of a task. If it failed its area is to be copied still.
func (c *BlockCopy) end(t *CopyTask, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if failed {
		c.bits.Use(func(b *hbitmap.Bitmap) { b.Set(t.Offset, t.Bytes) })
	}
	c.busy -= t.Bytes
	c.announceLocked()
	c.tasks.Remove(&t.Area)
}

func (c *BlockCopy) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announceLocked()
}

func (c *BlockCopy) announceLocked() {
	if c.opts.Progress != nil {
		c.opts.Progress.SetRemaining(c.bits.Count() + c.busy)
	}
}

// Wait waits for a task that overlaps an area, and tells whether there was one.
func (c *BlockCopy) Wait(co *aio.Co, offset, bytes int64) bool {
	c.mu.Lock()
	busy := c.tasks.Conflict(offset, bytes)
	c.mu.Unlock()
	if busy == nil {
		return false
	}
	co.Yield(func() { <-busy })
	return true
}

// Copy returns when an area is copied, by itself or by somebody else. The area
// is extended to clusters.
func (c *BlockCopy) Copy(co *aio.Co, offset, bytes int64) error {
	end := min(alignUp(offset+bytes, c.cluster), alignUp(c.length, c.cluster))
	offset = alignDown(offset, c.cluster)
	if offset >= end {
		return nil // the disk has grown
	}
	for {
		for t := c.Next(co, offset, end-offset, 0); t != nil; t = c.Next(co, offset, end-offset, 0) {
			if err := c.Run(co, t); err != nil {
				return err
			}
		}
		// Whoever is at a part of it may fail.
		if !c.Wait(co, offset, end-offset) {
			return nil
		}
	}
}

// Run does a task. A long one that fails is to be done in parts.
func (c *BlockCopy) Run(co *aio.Co, t *CopyTask) error {
	bytes := min(t.Bytes, c.length-t.Offset)
	if err := c.transfer(co, t, bytes); err != nil {
		c.end(t, true)
		if t.long {
			c.careful.Store(true)
			return nil
		}
		return err
	}
	if c.opts.Progress != nil {
		c.opts.Progress.Add(t.Bytes)
	}
	c.end(t, false)
	if c.opts.DiscardSource {
		// The source has served; that it keeps its data is no failure.
		_ = c.source.CoPdiscard(co, t.Offset, bytes)
	}
	return nil
}

// status tells what lies in the beginning of an area, in whole clusters. Where
// it changes within a cluster, or is not known, it is data.
func (c *BlockCopy) status(co *aio.Co, offset, bytes int64) Status {
	var base *Node
	if c.opts.SkipUnallocated {
		base = c.source.node.Behind()
	}
	st, _, err := c.source.node.CoBlockStatusAbove(co, base, false, true, offset, min(bytes, c.length-offset))
	if err == nil && offset+st.Bytes >= c.length {
		st.Bytes = alignUp(st.Bytes, c.cluster)
	}
	if err != nil || st.Bytes < c.cluster {
		return Status{Flags: StatusAllocated | StatusData, Bytes: c.cluster}
	}
	st.Bytes = alignDown(st.Bytes, c.cluster)
	return st
}

// transfer does a task, of which so many bytes are before the end of the disk.
func (c *BlockCopy) transfer(co *aio.Co, t *CopyTask, bytes int64) error {
	offset := t.Offset
	if t.zero {
		err := c.target.CoPwriteZeroes(co, offset, bytes, c.writeFlags&^ReqCompressed)
		return copyError(err, false)
	}
	if t.from != nil {
		if c.target.CoCopyRange(co, t.from, t.at, offset, bytes, c.writeFlags) == nil {
			return nil
		}
		c.cannotRange.Store(true)
	}
	buf := GetBuffer(bytes)
	defer buf.Free()
	if err := c.source.CoPreadv(co, offset, Vec{buf.B}, 0); err != nil {
		return copyError(err, true)
	}
	return copyError(c.target.CoPwritev(co, offset, Vec{buf.B}, c.writeFlags), false)
}

func copyError(err error, read bool) error {
	if err == nil {
		return nil
	}
	return &CopyError{read, err}
}

// ForgetUnallocated takes what the source's backing file has out of what is to
// be copied, from offset on: one area, up to the returned offset; -1 behind the
// end.
func (c *BlockCopy) ForgetUnallocated(co *aio.Co, offset int64) (next int64, err error) {
	if offset >= c.length {
		return -1, nil
	}
	n := c.source.node
	depth, bytes, err := n.CoIsAllocatedAbove(co, n.Behind(), false, offset, c.length-offset)
	if err != nil {
		return 0, err
	}
	end := offset + bytes
	if end < c.length {
		end = alignDown(end, c.cluster)
	}
	switch {
	case depth > 0 || bytes < c.cluster && end < c.length:
		// A cluster is allocated if a part of it is.
		return alignUp(offset+max(bytes, 1), c.cluster), nil
	default:
		c.Forget(offset, end-offset)
		return end, nil
	}
}

// Forget takes an area out of what is to be copied, as far as it is whole
// clusters.
func (c *BlockCopy) Forget(offset, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bits.Use(func(b *hbitmap.Bitmap) { b.Reset(offset, bytes) })
	c.announceLocked()
}

// BlockCopier is a node that copies; see [Node.BlockCopy].
type BlockCopier interface {
	BlockCopy() *BlockCopy
}

// BlockCopy returns how the node copies, nil if it does not.
func (n *Node) BlockCopy() *BlockCopy {
	if c, ok := n.instance.(BlockCopier); ok {
		return c.BlockCopy()
	}
	return nil
}
