package qcow2

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// image is one qcow2 node.
type image struct {
	node *block.Node
	file *block.Child // the metadata, and the data unless
	data *block.Child // is another child

	mu   mutex
	hdr  *header
	geo  geometry
	opts options
	// secret is the name of the one that decrypts the image.
	secret string
	crypt  *encryption // nil if the data is plain
	// size is the disk's length, in bytes, as in the header.
	size atomic.Int64

	l1      l1Table
	l1Dirty map[int64]struct{} // the sectors of it that have changed
	tables  offsets            // the L2 tables that it names
	l2      *cache
	// emptyTable is what is written for a fresh one.
	emptyTable []byte
	refs       refcounts
	frees      frees

	// end is the end of what was ever used of the file: what lies behind
	// reads as zeroes, if the file can grow.
	end int64
	// compressEnd is where the next compressed cluster goes, 0 for a fresh
	// place.
	compressEnd int64

	writes    writes
	snapshots []snapshot
	bitmaps   []bitmap
	// directoryErr is why they cannot be told of.
	directoryErr error
	// unmarked is set while bitmaps may change which the image takes to be
	// up to date.
	unmarked bool
	codec    codec
	buffers  sync.Pool

	// unfinished: the image is being made, and need not be whole before it is.
	unfinished bool
	// dirtyBit is set in the header: refcounts may be too low, and are not
	// written.
	dirtyBit bool
	// unsure: marks of sole use and refcounts may disagree. The bit in the
	// header is left to who opens the image next.
	unsure bool
	// hollow says that clusters are allocated that have no data yet.
	hollow, hollowKnown bool
	// unrepaired is set until somebody has counted them.
	unrepaired bool
	corrupted  bool
	cleaner    cleaner
}

// mutex is a lock that is held across I/O: who waits for it gives up the graph
// lock meanwhile, which its holder may have given up as well.
type mutex struct{ m sync.Mutex }

func (m *mutex) lock(co *aio.Co) {
	if !m.m.TryLock() {
		co.Yield(m.m.Lock)
	}
}

func (m *mutex) unlock() { m.m.Unlock() }

// external tells whether the guest's data is in a file of its own.
func (i *image) external() bool { return i.data != i.file }

// used notes that the file is used up to an offset.
func (i *image) used(end int64) { i.end = max(i.end, end) }

// barrier makes durable what was written.
func (i *image) barrier(co *aio.Co) error {
	if i.unfinished {
		return nil
	}
	if err := i.file.Node().CoFlush(co); err != nil {
		return err
	}
	if i.external() {
		return i.data.Node().CoFlush(co)
	}
	return nil
}

// writeMeta writes metadata, unless it would overwrite other metadata than the
// kinds in except.
func (i *image) writeMeta(co *aio.Co, offset int64, b []byte, except overlap) error {
	if err := i.checkOverlap(co, offset, int64(len(b)), except); err != nil {
		return err
	}
	return i.file.CoPwritev(co, offset, block.Vec{b}, 0)
}

// writeHeader changes a few bytes of the header. They lie within a sector, so
// the header is the old or the new one.
func (i *image) writeHeader(co *aio.Co, offset int64, b []byte) error {
	return i.writeMeta(co, offset, b, overlapHeader)
}

func (i *image) moveRefTable(co *aio.Co, offset, clusters int64) error {
	b := make([]byte, 12)
	be.PutUint64(b, uint64(offset))
	be.PutUint32(b[8:], uint32(clusters))
	if err := i.writeHeader(co, offsetRefTable, b); err != nil {
		return err
	}
	i.hdr.refTableOffset, i.hdr.refTableClusters = uint64(offset), uint32(clusters)
	return i.barrier(co)
}

// setIncompatible sets or clears incompatible features, durably.
func (i *image) setIncompatible(co *aio.Co, set, clear uint64) error {
	v := i.hdr.incompatible&^clear | set
	if v == i.hdr.incompatible {
		return nil
	}
	b := make([]byte, 8)
	be.PutUint64(b, v)
	if err := i.writeHeader(co, offsetIncompatible, b); err != nil {
		return err
	}
	i.hdr.incompatible = v
	return i.barrier(co)
}

// modifying comes before every change of what the image holds: refcounts that
// may be too low are counted anew, and features that we do not keep up to date
// are declared to be out of date.
func (i *image) modifying(co *aio.Co) error {
	if i.unrepaired {
		if err := i.repair(co); err != nil {
			return err
		}
	}
	if i.unmarked {
		if err := i.markInUse(co); err != nil {
			return err
		}
	}
	return i.clearStale(co)
}

// modifyingWaits tells whether modifying has something to do.
func (i *image) modifyingWaits() bool { return i.unrepaired || i.unmarked || i.stale() != 0 }

// stale are the features that are not kept up to date.
func (i *image) stale() uint64 {
	if i.geo.version < 3 {
		return 0
	}
	return i.hdr.autoclear &^ (autoclearDataRaw | autoclearBitmaps)
}

// clearStale clears the features that are not kept up to date.
func (i *image) clearStale(co *aio.Co) error {
	stale := i.stale()
	if stale == 0 {
		return nil
	}
	b := make([]byte, 8)
	be.PutUint64(b, i.hdr.autoclear&^stale)
	if err := i.writeHeader(co, offsetAutoclear, b); err != nil {
		return err
	}
	i.hdr.autoclear &^= stale
	return i.barrier(co)
}

// needDirtyBit sets the bit that tells that refcounts may be too low, where
// they are allowed to.
func (i *image) needDirtyBit(co *aio.Co) error {
	if i.dirtyBit || !i.opts.lazyRefcounts {
		return nil
	}
	if err := i.setIncompatible(co, featureDirty, 0); err != nil {
		return err
	}
	i.dirtyBit = true
	return nil
}

// markClean writes everything and clears the bit.
func (i *image) markClean(co *aio.Co) error {
	if err := i.writeBack(co); err != nil {
		return err
	}
	if i.hdr.incompatible&featureDirty == 0 || i.unsure {
		return nil
	}
	if err := i.refs.cache.flush(co); err != nil {
		return err
	}
	if err := i.barrier(co); err != nil {
		return err
	}
	i.dirtyBit = false
	return i.setIncompatible(co, 0, featureDirty)
}

// unsettled comes before marks of sole use and refcounts change which cannot
// change at once: until markClean, who finds the image counts anew. Images of
// version 2 cannot say so.
func (i *image) unsettled(co *aio.Co) error {
	if err := i.markClean(co); err != nil {
		return err
	}
	if i.geo.version < 3 {
		return nil
	}
	return i.setIncompatible(co, featureDirty, 0)
}

// settled comes behind unsettled. Refcounts may lag behind again where they did.
func (i *image) settled(co *aio.Co, lagged bool) error {
	if err := i.markClean(co); err != nil || !lagged {
		return err
	}
	return i.needDirtyBit(co)
}

// corrupt reports damage. Fatal damage makes the image unusable, and marks it
// as damaged if it can be written to; other damage is told of once.
func (i *image) corrupt(co *aio.Co, fatal bool, offset, size int64, format string, args ...any) error {
	fatal = fatal && !i.node.ReadOnly()
	err := qerr.From(syscall.EIO)
	if i.corrupted && (!fatal || i.hdr.incompatible&featureCorrupt != 0) {
		return err
	}
	i.corrupted = true
	if fatal && i.geo.version >= 3 {
		i.markCorrupt(co)
	}
	i.node.ReportCorrupt(block.Corruption{
		Message: qerr.New(format, args...).Desc, Offset: offset, Size: size, Fatal: fatal,
	})
	return err
}

// markCorrupt writes the mark whatever it may overwrite: things cannot get
// worse.
func (i *image) markCorrupt(co *aio.Co) {
	i.hdr.incompatible |= featureCorrupt
	b := block.AlignedMemory(8)
	be.PutUint64(b, i.hdr.incompatible)
	if i.file.CoPwritev(co, offsetIncompatible, block.Vec{b}, 0) == nil {
		_ = i.barrier(co)
	}
}

// cleaner drops what nobody uses from the caches, from time to time.
type cleaner struct {
	timer   *time.Timer
	every   time.Duration
	stopped bool
	running sync.WaitGroup
}

// startCleaner begins; the mutex is held, or nobody else knows the image.
func (i *image) startCleaner() {
	i.cleaner.every = time.Duration(i.opts.cleanInterval) * time.Second
	if i.cleaner.every == 0 || i.l2 == nil {
		return
	}
	i.cleaner.stopped = false
	i.cleaner.running.Add(1)
	i.cleaner.timer = time.AfterFunc(i.cleaner.every, i.clean)
}

func (i *image) clean() {
	i.mu.m.Lock()
	defer i.mu.m.Unlock()
	if i.cleaner.stopped {
		i.cleaner.running.Done()
		return
	}
	i.l2.clean()
	i.refs.cache.clean()
	i.cleaner.timer.Reset(i.cleaner.every)
}

// stopCleaner ends it. The mutex is not held.
func (i *image) stopCleaner() {
	if i.cleaner.timer == nil {
		return
	}
	i.mu.m.Lock()
	i.cleaner.stopped = true
	if i.cleaner.timer.Stop() {
		i.cleaner.running.Done()
	}
	i.mu.m.Unlock()
	i.cleaner.running.Wait()
	i.cleaner.timer = nil
}
