package block

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
)

// DirtyBitmap records which parts of a node were written to. Its state changes
// in the main context; requests mark what they touch from anywhere.
type DirtyBitmap struct {
	node *Node
	name string // "" for those of jobs

	mu       sync.Mutex
	bits     *hbitmap.Bitmap
	disabled bool
	// successor records in its place while a job uses the bitmap.
	successor *DirtyBitmap

	busy         bool
	persistent   bool
	inconsistent bool
	readOnly     atomic.Bool
}

// dirtyBitmaps are those of one node.
type dirtyBitmaps struct {
	// list is the newest first. It is replaced, never changed, so that
	// requests can walk it without a lock.
	list atomic.Pointer[[]*DirtyBitmap]
}

// The limits of dirty bitmaps.
const (
	// maxBitmapName is the longest name, in bytes.
	maxBitmapName = 1023
	// minGranularity is the least length of an area of its own, in bytes.
	minGranularity = 512
	// Granularities that nobody chose are those of clusters, within these
	// limits (observed: transcript bitmaps/default-granularity).
	minDefaultGranularity, maxDefaultGranularity = 4096, 65536
	// maxBitmapBytes bounds the memory of one bitmap: 16 TiB in units of 512
	// bytes.
	maxBitmapBytes = 4 << 30
)

// BitmapFlags are the states of a bitmap that an operation does not mind.
type BitmapFlags uint8

// The states that [DirtyBitmap.Check] can be told to let pass.
const (
	BitmapAllowReadOnly BitmapFlags = 1 << iota
	BitmapAllowInconsistent
)

// Name is the bitmap's name, "" if it is a job's own.
func (b *DirtyBitmap) Name() string { return b.name }

// Node is the node whose writes it records.
func (b *DirtyBitmap) Node() *Node { return b.node }

// Granularity is the length of the areas it tells apart, in bytes.
func (b *DirtyBitmap) Granularity() int64 { return b.bits.Granularity() }

// Size is the length of the disk that it covers, in bytes.
func (b *DirtyBitmap) Size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bits.Size()
}

// Busy tells whether an export or a job uses the bitmap.
func (b *DirtyBitmap) Busy() bool { return b.busy }

// SetBusy keeps others from using the bitmap, or lets them again.
func (b *DirtyBitmap) SetBusy(on bool) { b.busy = on }

// Persistent tells whether the bitmap is stored in the image.
func (b *DirtyBitmap) Persistent() bool { return b.persistent }

// SetPersistent says whether the bitmap is stored in the image.
func (b *DirtyBitmap) SetPersistent(on bool) { b.persistent = on }

// Inconsistent tells whether the image was left without storing the bitmap:
// it is good for nothing but to be removed.
func (b *DirtyBitmap) Inconsistent() bool { return b.inconsistent }

// SetInconsistent marks what was not stored.
func (b *DirtyBitmap) SetInconsistent() { b.inconsistent, b.disabled = true, true }

// ReadOnly tells whether the image in which it is stored cannot be written to.
func (b *DirtyBitmap) ReadOnly() bool { return b.readOnly.Load() }

// SetReadOnly says whether the image can be written to.
func (b *DirtyBitmap) SetReadOnly(on bool) { b.readOnly.Store(on) }

// Enabled tells whether writes are recorded, by the bitmap or its successor.
func (b *DirtyBitmap) Enabled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.disabled || b.successor != nil && b.successor.Enabled()
}

// SetEnabled begins or ends the recording.
func (b *DirtyBitmap) SetEnabled(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disabled = !on
}

// Count is how much is dirty, in bytes.
func (b *DirtyBitmap) Count() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bits.Count()
}

// Use runs f on the bits, which must not be kept. Requests wait for it: f does
// no I/O.
func (b *DirtyBitmap) Use(f func(*hbitmap.Bitmap)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.bits)
}

// Swap puts other bits in place of the bitmap's, for changes that may have to
// be undone.
func (b *DirtyBitmap) Swap(bits *hbitmap.Bitmap) *hbitmap.Bitmap {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.bits
	b.bits = bits
	return old
}

// Clear makes everything clean and returns the bits that were there.
func (b *DirtyBitmap) Clear() *hbitmap.Bitmap {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.bits
	b.bits = hbitmap.New(old.Size(), old.Granularity())
	return old
}

// Check fails if the bitmap is not to be used for an operation.
func (b *DirtyBitmap) Check(allow BitmapFlags) error {
	switch {
	case b.busy:
		return qerr.New("Bitmap '%s' is currently in use by another operation and cannot be used", b.name)
	case b.readOnly.Load() && allow&BitmapAllowReadOnly == 0:
		return qerr.New("Bitmap '%s' is readonly and cannot be modified", b.name)
	case b.inconsistent && allow&BitmapAllowInconsistent == 0:
		return qerr.New("Bitmap '%s' is inconsistent and cannot be used", b.name).
			WithHint("Try block-dirty-bitmap-remove to delete this bitmap from disk\n")
	}
	return nil
}

// Merge makes dirty what is dirty in other, and returns the bits that were
// there before.
func (b *DirtyBitmap) Merge(other *DirtyBitmap) (old *hbitmap.Bitmap, err error) {
	if err := b.Check(0); err != nil {
		return nil, err
	}
	if err := other.Check(BitmapAllowReadOnly); err != nil {
		return nil, err
	}
	if to, from := b.bits.Size(), other.bits.Size(); to != from {
		return nil, qerr.New("Bitmaps are of different sizes (destination size is %d, source size is %d) and can't be merged", to, from)
	}
	from := other.clone()
	b.Use(func(bits *hbitmap.Bitmap) {
		old = bits.Clone()
		bits.Merge(from)
	})
	return old, nil
}

// Add makes dirty what is dirty in another bitmap of the same size, whatever
// state the two are in. No two bitmaps are locked at once.
func (b *DirtyBitmap) Add(other *DirtyBitmap) {
	from := other.clone()
	b.Use(func(bits *hbitmap.Bitmap) { bits.Merge(from) })
}

// clone is a copy of the bits as they are now.
func (b *DirtyBitmap) clone() (bits *hbitmap.Bitmap) {
	b.Use(func(now *hbitmap.Bitmap) { bits = now.Clone() })
	return bits
}

// DirtyBitmaps lists the node's bitmaps, the newest first. The list must not
// be changed.
func (n *Node) DirtyBitmaps() []*DirtyBitmap {
	if list := n.bitmaps.list.Load(); list != nil {
		return *list
	}
	return nil
}

// DirtyBitmap finds a bitmap by its name, or returns nil.
func (n *Node) DirtyBitmap(name string) *DirtyBitmap {
	for _, b := range n.DirtyBitmaps() {
		if b.name == name && name != "" {
			return b
		}
	}
	return nil
}

// FindDirtyBitmap finds a bitmap by its name, with the error clients know.
func (n *Node) FindDirtyBitmap(name string) (*DirtyBitmap, error) {
	if b := n.DirtyBitmap(name); b != nil {
		return b, nil
	}
	return nil, qerr.New("Dirty bitmap '%s' not found", name)
}

// CreateDirtyBitmap begins to record writes. The name is empty for a bitmap
// that clients do not see; the granularity in bytes is a power of two, 0 for
// the node's default.
func (n *Node) CreateDirtyBitmap(l *aio.Lock, name string, granularity int64) (*DirtyBitmap, error) {
	switch {
	case n.DirtyBitmap(name) != nil:
		return nil, qerr.New("Bitmap already exists: %s", name)
	case len(name) > maxBitmapName:
		return nil, qerr.New("Bitmap name too long: %s", name)
	}
	if granularity == 0 {
		granularity = n.DefaultGranularity(l)
	}
	length, err := n.GetLength(l)
	if err != nil {
		return nil, qerr.Prepend(err, "could not get length of device: ")
	}
	if bitmapBytes(length, granularity) > maxBitmapBytes {
		return nil, qerr.From(syscall.ENOMEM)
	}
	b := NewDirtyBitmap(n, name, hbitmap.New(length, granularity))
	n.AddDirtyBitmaps(b)
	return b, nil
}

// NewDirtyBitmap makes a bitmap which the node does not know yet.
func NewDirtyBitmap(n *Node, name string, bits *hbitmap.Bitmap) *DirtyBitmap {
	return &DirtyBitmap{node: n, name: name, bits: bits}
}

// AddDirtyBitmaps puts bitmaps in front of the node's, the newest first. The
// names must be new.
func (n *Node) AddDirtyBitmaps(more ...*DirtyBitmap) {
	list := slices.Concat(more, n.DirtyBitmaps())
	n.bitmaps.list.Store(&list)
}

// bitmapBytes is the memory that a bitmap over a disk may come to take.
func bitmapBytes(length, granularity int64) int64 { return length / granularity / 8 }

// DefaultGranularity is that of the node's bitmaps if nobody chooses one, in
// bytes.
func (n *Node) DefaultGranularity(c aio.Caller) int64 {
	info, err := n.GetInfo(c)
	if err != nil || info.ClusterSize == 0 {
		return maxDefaultGranularity
	}
	return min(max(info.ClusterSize, minDefaultGranularity), maxDefaultGranularity)
}

// CheckGranularity refuses what no bitmap can have.
func CheckGranularity(granularity int64) error {
	if granularity < minGranularity || granularity&(granularity-1) != 0 {
		return qerr.New("Granularity must be power of 2 and at least %d", minGranularity)
	}
	return nil
}

// CanStoreDirtyBitmap fails if the node's image has no room for one more.
func (n *Node) CanStoreDirtyBitmap(c aio.Caller, name string, granularity int64) error {
	s, ok := n.instance.(BitmapStorer)
	if !ok {
		return qerr.WithErrno(syscall.ENOTSUP, "Can't store persistent bitmaps to %s", n.name)
	}
	if n.Ejected() {
		return qerr.WithErrno(syscall.ENOMEDIUM, "Can't store persistent bitmaps to %s", n.name)
	}
	_, err := aio.Mixed(c, n.Context(), "can_store_dirty_bitmap", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, s.CoCanStoreDirtyBitmap(co, name, granularity)
	})
	return err
}

// Release ends the recording; what the image holds of the bitmap stays.
func (b *DirtyBitmap) Release() {
	b.node.ReleaseDirtyBitmaps(func(other *DirtyBitmap) bool { return other == b })
}

// ReleaseDirtyBitmaps ends the recording in those bitmaps for which f is true.
func (n *Node) ReleaseDirtyBitmaps(f func(*DirtyBitmap) bool) {
	list := slices.DeleteFunc(slices.Clone(n.DirtyBitmaps()), f)
	n.bitmaps.list.Store(&list)
}

// RestoreAfterRelease takes the release back.
func (b *DirtyBitmap) RestoreAfterRelease() { b.node.AddDirtyBitmaps(b) }

// RemoveStored takes a persistent bitmap out of the image.
func (b *DirtyBitmap) RemoveStored(c aio.Caller) error {
	s, ok := b.node.instance.(BitmapStorer)
	if !b.persistent || !ok {
		return nil
	}
	_, err := aio.Mixed(c, b.node.Context(), "remove_dirty_bitmap", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, s.CoRemoveDirtyBitmap(co, b.name)
	})
	return err
}

// hasReadOnlyBitmap tells whether a write would have to be recorded where nothing
// can be.
func (n *Node) hasReadOnlyBitmap() bool {
	for _, b := range n.DirtyBitmaps() {
		if b.readOnly.Load() {
			return true
		}
	}
	return false
}

// setDirty records a request that changes data.
func (n *Node) setDirty(offset, bytes int64) {
	for _, b := range n.DirtyBitmaps() {
		b.mu.Lock()
		if !b.disabled {
			b.bits.Set(offset, bytes)
		}
		b.mu.Unlock()
	}
}

// truncateDirtyBitmaps brings the bitmaps to the node's length.
func (n *Node) truncateDirtyBitmaps() {
	length := n.totalSectors.Load() * SectorSize
	for _, b := range n.DirtyBitmaps() {
		b.mu.Lock()
		if b.bits.Size() != length {
			b.bits.Truncate(length)
		}
		b.mu.Unlock()
	}
}
