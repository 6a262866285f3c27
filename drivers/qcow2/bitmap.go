package qcow2

import (
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// bitmap is a persistent dirty bitmap, as the image's directory describes it.
type bitmap struct {
	tableOffset uint64
	tableSize   uint32
	flags       uint32
	granularity uint8 // binary logarithm of the bytes
	name        string
}

// The flags of a bitmap.
const (
	bitmapInUse = 1 << iota
	bitmapAuto

	bitmapFlags = bitmapInUse | bitmapAuto
)

const (
	bitmapEntrySize      = 24
	bitmapTypeDirty      = 1
	minBitmapGranularity = 9
	maxBitmapGranularity = 31
	maxBitmapName        = 1023
	// maxBitmapSize bounds the clusters of one bitmap, in bytes.
	maxBitmapSize = 512 << 20
)

// entrySize is the length of the bitmap's entry in the directory.
func (b *bitmap) entrySize() int { return (bitmapEntrySize + len(b.name) + 7) &^ 7 }

// directorySize is the length of a directory, in bytes.
func directorySize(list []bitmap) int {
	size := 0
	for n := range list {
		size += list[n].entrySize()
	}
	return size
}

// findBitmap is the place of a bitmap in a directory, -1 if it is not there.
func findBitmap(list []bitmap, name string) int {
	return slices.IndexFunc(list, func(b bitmap) bool { return b.name == name })
}

// loadBitmaps reads the directory of bitmaps. A node that is inactive does not
// care what is wrong with it until somebody asks.
func (i *image) loadBitmaps(co *aio.Co) error {
	if i.hdr.staleBitmaps {
		i.node.Complain("warning: a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n" +
			"Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.")
	}
	i.bitmaps, i.directoryErr = i.readDirectory(co)
	if !i.node.Active() {
		return nil
	}
	return i.directoryErr
}

func (i *image) readDirectory(co *aio.Co) ([]bitmap, error) {
	ext := i.hdr.bitmaps
	if ext.count == 0 {
		return nil, nil
	}
	if ext.directorySize == 0 {
		return nil, qerr.New("Requested bitmap directory size is zero")
	}
	dir := block.AlignedMemory(int(ext.directorySize))
	if err := i.file.CoPreadv(co, int64(ext.directoryOffset), block.Vec{dir}, 0); err != nil {
		return nil, qerr.Prepend(err, "Failed to read bitmap directory: ")
	}
	var list []bitmap
	for len(dir) > 0 {
		if len(dir) < bitmapEntrySize {
			return nil, qerr.New("Broken bitmap directory")
		}
		nameLen, extraLen := int(be.Uint16(dir[18:])), int64(be.Uint32(dir[20:]))
		size := (bitmapEntrySize + extraLen + int64(nameLen) + 7) &^ 7
		if size > int64(len(dir)) {
			return nil, qerr.New("Broken bitmap directory")
		}
		if uint32(len(list)) == ext.count {
			return nil, qerr.New("More bitmaps found than specified in header extension")
		}
		at := bitmapEntrySize + int(extraLen)
		b := bitmap{
			tableOffset: be.Uint64(dir), tableSize: be.Uint32(dir[8:]), flags: be.Uint32(dir[12:]),
			granularity: dir[17], name: string(dir[at : at+nameLen]),
		}
		if extraLen != 0 {
			return nil, qerr.New("Bitmap extra data is not supported")
		}
		if !i.validBitmap(&b, dir[16]) {
			return nil, qerr.New("Bitmap '%s' doesn't satisfy the constraints", b.name)
		}
		list = append(list, b)
		dir = dir[size:]
	}
	if uint32(len(list)) != ext.count {
		return nil, qerr.New("Less bitmaps found than specified in header extension")
	}
	if findBitmap(list, "") >= 0 {
		// The reference shows it, but nobody could name it.
		return nil, qerr.New("Bitmap '' doesn't satisfy the constraints")
	}
	return list, nil
}

func (i *image) validBitmap(b *bitmap, kind uint8) bool {
	size := uint64(i.geo.clusterSize)
	ok := b.tableSize != 0 && b.tableOffset != 0 && b.tableOffset%size == 0 &&
		len(b.name) <= maxBitmapName && uint64(b.tableSize) <= maxBitmapSize/size && b.flags&^bitmapFlags == 0 &&
		b.granularity >= minBitmapGranularity && b.granularity <= maxBitmapGranularity && kind == bitmapTypeDirty
	if !ok {
		return false
	}
	covered := uint64(b.tableSize) * size << 3 << b.granularity
	return b.flags&bitmapInUse != 0 || covered >= i.hdr.size
}

// formatDirectory is a directory as it is in the file.
func formatDirectory(list []bitmap) []byte {
	dir := block.AlignedMemory(directorySize(list))
	rest := dir
	for n := range list {
		b := &list[n]
		be.PutUint64(rest, b.tableOffset)
		be.PutUint32(rest[8:], b.tableSize)
		be.PutUint32(rest[12:], b.flags)
		rest[16], rest[17] = bitmapTypeDirty, b.granularity
		be.PutUint16(rest[18:], uint16(len(b.name)))
		copy(rest[bitmapEntrySize:], b.name)
		rest = rest[b.entrySize():]
	}
	return dir
}

// writeDirectory puts another directory in place of the present one: at a new
// place, durable before the header names it. It has nothing to say of the
// clusters of bitmaps that are no longer in it.
func (i *image) writeDirectory(co *aio.Co, list []bitmap) error {
	old, ext := i.hdr.bitmaps, bitmapsExtension{}
	if len(list) > 0 {
		dir := formatDirectory(list)
		at, err := i.writeFresh(co, dir, "bitmap directory")
		if err != nil {
			return err
		}
		ext = bitmapsExtension{uint32(len(list)), uint64(len(dir)), uint64(at)}
		if err := i.beforeMapping(co); err != nil {
			return err
		}
	}
	if err := i.setExtension(co, ext); err != nil {
		return err
	}
	i.bitmaps = list
	if old.count > 0 {
		i.frees.add(int64(old.directoryOffset), i.geo.clusterEnd(int64(old.directorySize)), freeOther)
	}
	return nil
}

// writeFresh writes metadata where nothing refers to yet.
func (i *image) writeFresh(co *aio.Co, b []byte, what string) (int64, error) {
	bytes := i.geo.clusterEnd(int64(len(b)))
	at, err := i.alloc(co, bytes>>i.geo.clusterBits, what)
	if err != nil {
		return 0, err
	}
	if err := i.writeMeta(co, at, b, overlapNone); err != nil {
		i.frees.add(at, bytes, freeNever)
		return 0, err
	}
	return at, nil
}

// freeBitmap gives up the clusters of a bitmap that no directory names any
// more. What lies where it cannot be is left alone.
func (i *image) freeBitmap(co *aio.Co, b *bitmap) {
	table, err := i.readBitmapTable(co, b)
	if err != nil {
		return // leaked
	}
	for _, e := range table {
		i.freeBitmapArea(int64(e&offsetMask), i.geo.clusterSize, freeAlways)
	}
	i.freeBitmapArea(int64(b.tableOffset), i.geo.clusterEnd(int64(b.tableSize)*8), freeOther)
}

func (i *image) freeBitmapArea(at, bytes int64, reason freeReason) {
	if at > 0 && at <= maxHostOffset-bytes && i.overlapping(at, bytes, overlapAll) == overlapNone {
		i.frees.add(at, bytes, reason)
	}
}

// CoCanStoreDirtyBitmap fails if the image has no room for one more bitmap, or
// not for one like this. Those count that the node has, be they stored already
// or not.
func (i *image) CoCanStoreDirtyBitmap(co *aio.Co, name string, granularity int64) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	if i.node.DirtyBitmap(name) != nil {
		return qerr.New("Bitmap already exists: %s", name)
	}
	var list []bitmap
	for _, b := range i.node.DirtyBitmaps() {
		if b.Persistent() {
			list = append(list, bitmap{name: b.Name()})
		}
	}
	if err := i.canStore(list, name, granularity); err != nil {
		return qerr.Prepend(err, "Can't make bitmap '"+name+"' persistent in '"+i.node.Name()+"': ")
	}
	return nil
}

// canStore fails if one more bitmap does not fit into a directory.
func (i *image) canStore(list []bitmap, name string, granularity int64) error {
	size := i.size.Load()
	switch {
	case i.geo.version < 3:
		return qerr.New("Cannot store dirty bitmaps in qcow2 v2 files")
	case granularity < 1<<minBitmapGranularity:
		return qerr.New("Granularity is under minimum (%d bytes)", 1<<minBitmapGranularity)
	case granularity > 1<<maxBitmapGranularity:
		return qerr.New("Granularity exceeds maximum (%d bytes)", 1<<maxBitmapGranularity)
	case (size+granularity-1)/granularity > maxBitmapSize*8:
		return qerr.New("Too much space will be occupied by the bitmap. Use larger granularity")
	case len(name) > maxBitmapName:
		return qerr.New("Name length exceeds maximum (%d characters)", maxBitmapName)
	case len(list) >= maxBitmaps:
		return qerr.New("Maximum number of persistent bitmaps is already reached")
	}
	more := bitmap{name: name}
	if directorySize(list)+more.entrySize() > maxBitmapDir {
		return qerr.New("Not enough space in the bitmap directory")
	}
	return nil
}

// CoRemoveDirtyBitmap takes a bitmap out of the image, if it is there.
func (i *image) CoRemoveDirtyBitmap(co *aio.Co, name string) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	n := findBitmap(i.bitmaps, name)
	if n < 0 {
		return nil
	}
	if !i.writable() {
		return qerr.From(syscall.EPERM)
	}
	gone := i.bitmaps[n]
	if err := i.writeDirectory(co, slices.Delete(slices.Clone(i.bitmaps), n, n+1)); err != nil {
		return qerr.Prepend(err, "Failed to remove bitmap '"+name+"': ")
	}
	i.freeBitmap(co, &gone)
	// What cannot be freed is leaked; the bitmap is gone all the same.
	_ = i.writeBack(co)
	return nil
}

// bitmapsResizable fails if a stored bitmap cannot follow a change of the
// disk's length.
func (i *image) bitmapsResizable() error {
	for n := range i.bitmaps {
		b, err := i.node.FindDirtyBitmap(i.bitmaps[n].name)
		if err != nil {
			return err
		}
		if err := b.Check(0); err != nil {
			return err
		}
	}
	return nil
}

// listBitmaps describes the bitmaps in the image.
func (i *image) listBitmaps() []Bitmap {
	var list []Bitmap
	for n := range i.bitmaps {
		b := &i.bitmaps[n]
		list = append(list, Bitmap{
			Name: b.name, Granularity: 1 << b.granularity,
			InUse: b.flags&bitmapInUse != 0, Auto: b.flags&bitmapAuto != 0,
		})
	}
	return list
}
