// Package copybeforewrite is a filter that keeps a disk's data as it was: what
// is about to be overwritten is copied to another node first.
//
// # Options
//
//   - file: the disk. Requests go there once old data is saved.
//   - target: where old data is saved, a disk of the same length.
//   - bitmap: a dirty bitmap (node, name); only what is dirty in it when the
//     node is opened is kept. By default everything is.
//   - on-cbw-error: what to do when old data cannot be saved: the write fails
//     (break-guest-write, the default), or it goes on, and the old data is lost
//     as a whole (break-snapshot).
//   - cbw-timeout: how long saving may take until it counts as failed, in
//     seconds; 0, the default, is for ever.
//   - min-cluster-size: the least that is saved at once, in bytes, a power of
//     two. It is also 64 KiB and the target's cluster size at least.
//
// The node cannot be reopened.
//
// # The data as it was
//
// It is there as long as the node is ([block.SnapshotAccesser]); the driver
// snapshot-access makes a node of it. It is read from the target where old data
// was saved and from the disk everywhere else; a write waits for those who read
// what it is about to overwrite. What was discarded in it, or is not in the
// bitmap, cannot be read (EACCES), nor can anything be once a broken snapshot
// was preferred to a failing write.
//
// # Copying in the background
//
// A backup job uses the filter to copy the rest as well: each cluster is copied
// once, by the job or for a write ([block.BlockCopy]).
//
// # Permissions
//
// As long as nobody uses the filter it takes nothing of the disk, so that it can
// be put in the place of it. Afterwards nobody but its users may write there.
package copybeforewrite

import (
	"sync"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	optTarget        = "target"
	optBitmapNode    = "bitmap.node"
	optBitmapName    = "bitmap.name"
	optOnError       = "on-cbw-error"
	optTimeout       = "cbw-timeout"
	optMinCluster    = "min-cluster-size"
	optDiscardSource = "discard-source" // the job's own
)

// Driver is the driver copy-before-write.
func Driver() *block.Driver {
	return &block.Driver{
		Name: "copy-before-write",
		Kind: block.Filter,
		Open: open,
	}
}

// filter is one node.
type filter struct {
	node         *block.Node
	file, target *block.Child
	copy         *block.BlockCopy
	// discards: the job discards in the disk what was copied.
	discards bool
	// breakSnapshot: when old data cannot be saved the write goes on.
	breakSnapshot bool
	timeout       time.Duration // 0: none
	// late are copies that took too long and go on.
	late sync.WaitGroup

	// done is what was saved for a write, access what may be read of the data
	// as it was. Both are changed while mu is held.
	done, access *block.DirtyBitmap

	mu     sync.Mutex
	broken bool // the data as it was is lost
	// reads are where somebody reads from the disk what was there.
	reads block.Areas
}

func open(a *block.OpenArgs) (block.Instance, error) {
	f := &filter{node: a.Node}
	a.Announce(f)
	var err error
	if f.file, err = a.File(); err != nil {
		return nil, err
	}
	if f.target, err = a.Child(optTarget, block.RoleData, false); err != nil {
		return nil, err
	}
	only, err := takeBitmap(a)
	if err != nil {
		return nil, err
	}
	onError, err := a.Options.TakeEnum(optOnError, []string{"break-guest-write", "break-snapshot"}, 0)
	if err != nil {
		return nil, err
	}
	f.breakSnapshot = onError == 1
	seconds, err := a.Options.TakeNumber(optTimeout, 0)
	if err != nil {
		return nil, err
	}
	f.timeout = time.Duration(seconds) * time.Second
	minCluster, err := a.Options.TakeSize(optMinCluster, 0)
	if err != nil {
		return nil, err
	}
	if f.discards, err = a.Options.TakeBool(optDiscardSource, false); err != nil {
		return nil, err
	}
	if err := a.Node.RefreshTotalSectors(a.Lock, 0); err != nil {
		return nil, err
	}
	f.copy, err = block.NewBlockCopy(a.Lock, a.Node, f.file, f.target, only, minCluster)
	if err != nil {
		return nil, qerr.Prepend(err, "Cannot create block-copy-state: ")
	}
	return f, f.track(a.Lock)
}

// takeBitmap finds the bitmap that the options name, nil if they name none.
func takeBitmap(a *block.OpenArgs) (*block.DirtyBitmap, error) {
	if !a.Options.Has(optBitmapNode) {
		return nil, nil
	}
	node, name := a.Options.TakeString(optBitmapNode, ""), a.Options.TakeString(optBitmapName, "")
	n := a.Graph().Node(node)
	if n == nil {
		return nil, qerr.New("Node '%s' not found", node)
	}
	return n.FindDirtyBitmap(name)
}

// track makes the bitmaps of what can be read of the data as it was.
func (f *filter) track(l *aio.Lock) (err error) {
	for _, b := range []**block.DirtyBitmap{&f.done, &f.access} {
		if *b, err = f.node.CreateDirtyBitmap(l, "", f.copy.ClusterSize()); err != nil {
			return err
		}
		(*b).SetEnabled(false)
	}
	_, err = f.access.Merge(f.copy.Bitmap())
	return err
}

// Close waits for copies that took too long.
func (f *filter) Close(l *aio.Lock) { l.Unlocked(f.late.Wait) }

// BlockCopy is how the filter copies.
func (f *filter) BlockCopy() *block.BlockCopy { return f.copy }

// ChildPerm: see the package's documentation.
func (f *filter) ChildPerm(_ *block.Child, role block.Role, reopen *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	if role&block.RoleFiltered == 0 {
		return block.PermWrite, block.PermAll &^ block.PermResize
	}
	perm, shared = block.DefaultPerms(f.node, role, reopen, perm, shared)
	f.node.Parents(func(*block.Child) bool {
		perm |= block.PermConsistentRead
		shared &^= block.PermWrite | block.PermResize
		if f.discards {
			perm |= block.PermWrite
		}
		return false
	})
	return perm, shared
}

// RefreshLimits: a request is as durable as the disk makes it.
func (f *filter) RefreshLimits(l *block.Limits) error {
	below := f.file.Node().Limits()
	l.ReadFlags = below.ReadFlags
	l.PassFlags(below)
	return nil
}

// ExactFilename is the disk's name.
func (f *filter) ExactFilename(*block.Options) string { return f.file.Node().Filename() }

// CoGetLength is that of the disk.
func (f *filter) CoGetLength(co *aio.Co) (int64, error) { return f.file.Node().CoGetLength(co) }

// CoPreadv reads from the disk.
func (f *filter) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return f.file.CoPreadv(co, offset, v, flags)
}

// CoPwritev saves what is there first.
func (f *filter) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if err := f.save(co, offset, v.Len(), flags); err != nil {
		return err
	}
	return f.file.CoPwritev(co, offset, v, flags)
}

// CoPwriteZeroes saves what is there first.
func (f *filter) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	if err := f.save(co, offset, bytes, flags); err != nil {
		return err
	}
	return f.file.CoPwriteZeroes(co, offset, bytes, flags)
}

// CoPdiscard saves what is there first.
func (f *filter) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	if err := f.save(co, offset, bytes, 0); err != nil {
		return err
	}
	return f.file.CoPdiscard(co, offset, bytes)
}

// CoFlushAll flushes the disk: the target is for its own users to flush.
func (f *filter) CoFlushAll(co *aio.Co) error { return f.file.Node().CoFlush(co) }

// save copies an area that is about to change, and waits for those who read
// there what was.
func (f *filter) save(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	if flags&block.ReqWriteUnchanged != 0 {
		return nil
	}
	f.mu.Lock()
	broken := f.broken
	f.mu.Unlock()
	if !broken {
		err := f.copyInTime(co, offset, bytes)
		if err != nil && !f.breakSnapshot {
			return err
		}
		broken = err != nil
	}
	unit := f.copy.ClusterSize()
	start := offset &^ (unit - 1)
	bytes = (offset+bytes+unit-1)&^(unit-1) - start
	f.mu.Lock()
	if broken {
		f.broken = true
	} else {
		f.done.Use(func(b *hbitmap.Bitmap) { b.Set(start, bytes) })
	}
	f.mu.Unlock()
	f.waitForReads(co, start, bytes)
	return nil
}

func (f *filter) copyInTime(co *aio.Co, offset, bytes int64) error {
	if f.timeout == 0 {
		return f.copy.Copy(co, offset, bytes)
	}
	ended := make(chan error, 2)
	f.late.Add(1)
	co.Context().Spawn("copy_before_write", func(co *aio.Co) {
		ended <- f.copy.Copy(co, offset, bytes)
	}, func(p *aio.PanicError) {
		if p != nil {
			ended <- p
		}
		f.late.Done()
	})
	alarm := time.NewTimer(f.timeout)
	defer alarm.Stop()
	var err error
	co.Yield(func() {
		select {
		case err = <-ended:
		case <-alarm.C:
			err = qerr.From(syscall.ETIMEDOUT)
		}
	})
	return err
}

func (f *filter) waitForReads(co *aio.Co, offset, bytes int64) {
	for {
		f.mu.Lock()
		busy := f.reads.Conflict(offset, bytes)
		f.mu.Unlock()
		if busy == nil {
			return
		}
		co.Yield(func() { <-busy })
	}
}

// begin finds where the data at offset can be read as it was, and for how many
// bytes that holds. end must be called behind reading.
func (f *filter) begin(offset, bytes int64) (from *block.Child, count int64, end func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	accessible, saved := !f.broken, false
	count = bytes
	f.access.Use(func(b *hbitmap.Bitmap) { accessible = accessible && b.NextZero(offset, bytes) < 0 })
	if !accessible {
		return nil, 0, nil, qerr.From(syscall.EACCES)
	}
	f.done.Use(func(b *hbitmap.Bitmap) { saved, count = b.Status(offset, bytes) })
	if saved {
		return f.target, count, func() {}, nil
	}
	r := &block.Area{Offset: offset, Bytes: count}
	f.reads.Add(r)
	return f.file, count, func() { f.endRead(r) }, nil
}

func (f *filter) endRead(r *block.Area) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads.Remove(r)
}

// CoPreadvSnapshot reads the data as it was.
func (f *filter) CoPreadvSnapshot(co *aio.Co, offset int64, v block.Vec) error {
	for bytes := v.Len(); bytes > 0; {
		from, count, end, err := f.begin(offset, bytes)
		if err != nil {
			return err
		}
		err = from.CoPreadv(co, offset, v.Slice(v.Len()-bytes, count), 0)
		end()
		if err != nil {
			return err
		}
		offset += count
		bytes -= count
	}
	return nil
}

// CoSnapshotBlockStatus tells what was at offset.
func (f *filter) CoSnapshotBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (block.Status, error) {
	from, count, end, err := f.begin(offset, bytes)
	if err != nil {
		return block.Status{}, err
	}
	defer end()
	return from.Node().CoBlockStatus(co, wantZero, offset, count)
}

// CoPdiscardSnapshot gives the data up as it was, in whole clusters: it is
// neither saved any more nor can it be read.
func (f *filter) CoPdiscardSnapshot(co *aio.Co, offset, bytes int64) error {
	unit := f.copy.ClusterSize()
	start, end := (offset+unit-1)&^(unit-1), (offset+bytes)&^(unit-1)
	if start >= end {
		return nil
	}
	f.mu.Lock()
	f.access.Use(func(b *hbitmap.Bitmap) { b.Reset(start, end-start) })
	f.mu.Unlock()
	f.copy.Forget(start, end-start)
	return f.target.CoPdiscard(co, start, end-start)
}

// What the filter can do.
var (
	_ block.Reader            = (*filter)(nil)
	_ block.Writer            = (*filter)(nil)
	_ block.ZeroWriter        = (*filter)(nil)
	_ block.Discarder         = (*filter)(nil)
	_ block.FlushForwarder    = (*filter)(nil)
	_ block.LengthGetter      = (*filter)(nil)
	_ block.LimitsRefresher   = (*filter)(nil)
	_ block.ChildPermer       = (*filter)(nil)
	_ block.FilenameRefresher = (*filter)(nil)
	_ block.SnapshotAccesser  = (*filter)(nil)
	_ block.BlockCopier       = (*filter)(nil)
)
