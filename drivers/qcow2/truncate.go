package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoTruncate resizes the guest's disk. The caches begin anew then, with the
// memory that is due to its new size (observed: own/qcow2/resize-caches).
func (i *image) CoTruncate(co *aio.Co, offset int64, exact bool, prealloc block.PreallocMode, flags block.ReqFlags) error {
	if offset%sectorSize != 0 {
		return qerr.WithErrnoOnly(syscall.EINVAL, "The new size must be a multiple of %d", sectorSize)
	}
	i.mu.lock(co)
	defer i.mu.unlock()
	if len(i.snapshots) > 0 && i.geo.version < 3 {
		return qerr.WithErrnoOnly(syscall.ENOTSUP, "Can't resize a v2 image which has snapshots")
	}
	if err := i.bitmapsResizable(); err != nil {
		return err
	}
	if err := i.modifying(co); err != nil {
		return err
	}
	old := i.size.Load()
	i.awaitWrites(co, i.geo.clusterStart(min(old, offset)), maxHostOffset*64)
	if offset < old {
		if prealloc != block.PreallocOff {
			return qerr.WithErrnoOnly(syscall.EINVAL, "Preallocation can't be used for shrinking an image")
		}
		if err := i.shrink(co, offset, old, exact); err != nil {
			return err
		}
	} else if err := i.grow(co, old, offset, exact, prealloc, flags); err != nil {
		return err
	}
	return i.renewCaches()
}

// renewCaches empties the caches, in which nothing has changed, and sizes them.
// Refcounts that are not to be written stay.
func (i *image) renewCaches() error {
	if err := i.opts.divideCaches(i.hdr); err != nil {
		return err
	}
	i.sizeCaches()
	i.refs.cache.empty()
	return nil
}

// setSize writes the new length into the header.
func (i *image) setSize(co *aio.Co, size int64) error {
	b := make([]byte, 8)
	be.PutUint64(b, uint64(size))
	if err := i.writeHeader(co, offsetSize, b); err != nil {
		return qerr.Prepend(err, "Failed to update the image size: ")
	}
	if err := i.barrier(co); err != nil {
		return qerr.Prepend(err, "Failed to update the image size: ")
	}
	i.hdr.size = uint64(size)
	i.size.Store(size)
	return nil
}

func (i *image) shrink(co *aio.Co, size, old int64, exact bool) error {
	if err := i.cut(co, i.geo.clusterEnd(size), i.geo.clusterEnd(old)); err != nil {
		return qerr.Prepend(err, "Failed to discard cropped clusters: ")
	}
	failed := "Failed to discard unused refblocks: "
	for n := int(i.hdr.l1Needed(uint64(size))); n < int(i.hdr.l1Needed(uint64(old))); n++ {
		if at := int64(i.l1.get(n) & offsetMask); at != 0 {
			i.frees.add(at, i.geo.clusterSize, freeOther)
			i.setL1(n, 0)
			failed = "Failed to reduce the number of L2 tables: "
		}
	}
	i.file.Debug(block.DebugL1ShrinkWriteTable)
	if err := i.writeBack(co); err != nil {
		return qerr.Prepend(err, failed)
	}
	i.file.Debug(block.DebugL1ShrinkFreeL2Clusters)
	if i.external() {
		if err := i.data.CoTruncate(co, size, exact && i.hdr.dataRaw(), block.PreallocOff, 0); err != nil {
			return err
		}
	}
	if err := i.setSize(co, size); err != nil {
		return err
	}
	return i.cutFile(co)
}

// cut makes an area at the end unallocated. Where there is no L2 table, and
// none is needed for what remains, there is nothing to do.
func (i *image) cut(co *aio.Co, from, to int64) error {
	perTable := i.geo.clusterSize << i.geo.l2Bits
	for from < to {
		end := min(to, from&^(perTable-1)+perTable)
		if from&(perTable-1) != 0 || i.l1.get(i.geo.l1Index(from))&offsetMask != 0 {
			if err := i.change(co, from, end, change{discard: true, full: true}); err != nil {
				return err
			}
		}
		from = end
	}
	return nil
}

// cutFile gives the end of the file back that holds nothing.
func (i *image) cutFile(co *aio.Co) error {
	length, err := i.file.Node().CoGetLength(co)
	if err != nil {
		return err
	}
	last := i.geo.clusters(length) - 1
	for ; last > 0; last-- {
		uses, err := i.refs.get(co, last)
		if err != nil {
			return err
		}
		if uses != 0 {
			break
		}
	}
	end := (last + 1) << i.geo.clusterBits
	if end == length {
		return nil
	}
	if err := i.file.CoTruncate(co, end, false, block.PreallocOff, 0); err != nil {
		return nil // it is longer than it needs to be
	}
	i.end = end
	if i.compressEnd > end {
		i.compressEnd = 0
	}
	return nil
}

func (i *image) grow(co *aio.Co, old, size int64, exact bool, prealloc block.PreallocMode, flags block.ReqFlags) error {
	if err := i.growL1(co, i.hdr.l1Needed(uint64(size))); err != nil {
		return qerr.Prepend(err, "Failed to grow the L1 table: ")
	}
	if i.hdr.dataRaw() && prealloc == block.PreallocOff {
		prealloc = block.PreallocMetadata // each cluster has its place
	}
	if err := i.zeroTail(co, old, size); err != nil {
		return qerr.Prepend(err, "Failed to zero out the new area: ")
	}
	start := i.geo.clusterEnd(old)
	zero := flags&block.ReqZeroWrite != 0 && start < i.geo.clusterEnd(size)
	if zero && i.geo.version < 3 {
		return qerr.WithErrno(syscall.ENOTSUP, "Failed to zero out new clusters")
	}
	switch {
	case prealloc != block.PreallocOff:
		if err := i.preallocate(co, start, size, prealloc, zero); err != nil {
			return err
		}
	case zero:
		if err := i.change(co, start, i.geo.clusterEnd(size), change{unmap: true}); err != nil {
			return qerr.Prepend(err, "Failed to zero out new clusters: ")
		}
	}
	if i.external() {
		if err := i.growData(co, size, exact, prealloc); err != nil {
			return err
		}
	}
	// What is new must read as zeroes before it is there.
	err := i.writeBack(co)
	if err == nil {
		err = i.barrier(co)
	}
	if err != nil {
		return qerr.Prepend(err, "Failed to update the image size: ")
	}
	return i.setSize(co, size)
}

// growData makes an external data file longer. It is cut if it is longer than
// the disk, unless something is preallocated in it; where it is a disk of its
// own, if it is to be exactly as long (observed).
func (i *image) growData(co *aio.Co, size int64, exact bool, prealloc block.PreallocMode) error {
	raw := i.hdr.dataRaw()
	if prealloc == block.PreallocOff {
		return i.data.CoTruncate(co, size, exact && raw, prealloc, 0)
	}
	length, err := i.data.Node().CoGetLength(co)
	if err != nil {
		return err
	}
	if size <= length && !(raw && exact) {
		return nil
	}
	if size < length {
		prealloc = block.PreallocOff
	}
	return i.data.CoTruncate(co, size, exact && raw, fileMode(prealloc), 0)
}

// fileMode is the mode in which the data file grows.
func fileMode(m block.PreallocMode) block.PreallocMode {
	if m == block.PreallocMetadata {
		return block.PreallocOff
	}
	return m
}

// growL1 moves the L1 table to a longer one.
func (i *image) growL1(co *aio.Co, entries uint64) error {
	if entries <= uint64(i.l1.entries) {
		return nil
	}
	if entries > maxL1Size/8 {
		return qerr.From(syscall.EFBIG)
	}
	if err := i.writeBack(co); err != nil {
		return err
	}
	if err := i.needDirtyBit(co); err != nil {
		return err
	}
	clusters := i.geo.clusters(int64(entries) * 8)
	i.file.Debug(block.DebugL1GrowAllocTable)
	at, err := i.alloc(co, clusters, "L1 table")
	if err != nil {
		return err
	}
	table := i.l1.longer(int(entries))
	i.file.Debug(block.DebugL1GrowWriteTable)
	if err := i.writeMeta(co, at, table.encode(0), overlapNone); err != nil {
		i.frees.add(at, clusters<<i.geo.clusterBits, freeOther)
		return err
	}
	if err := i.beforeMapping(co); err != nil {
		return err
	}
	b := make([]byte, 12)
	be.PutUint32(b, uint32(entries))
	be.PutUint64(b[4:], uint64(at))
	i.file.Debug(block.DebugL1GrowActivateTable)
	if err := i.writeHeader(co, offsetL1Size, b); err != nil {
		return err
	}
	if err := i.barrier(co); err != nil {
		return err
	}
	if n := i.l1.bytes(); n > 0 {
		i.frees.add(int64(i.hdr.l1Offset), i.geo.clusterEnd(n), freeOther)
	}
	i.l1 = table
	i.hdr.l1Size, i.hdr.l1Offset = uint32(entries), uint64(at)
	return nil
}

// zeroTail clears what the last cluster holds behind the end of the disk: a
// longer disk was cut there.
func (i *image) zeroTail(co *aio.Co, old, size int64) error {
	end := min(i.geo.clusterEnd(old), size)
	for old < end {
		e, err := i.lookup(co, old, end-old)
		if err != nil {
			return err
		}
		switch e.kind {
		case kindZero, kindZeroAllocated:
		case kindUnallocated, kindReserved:
			if err := i.zeroUnallocated(co, old, e.bytes); err != nil {
				return err
			}
		default:
			if err := i.zeroData(co, old, e.bytes); err != nil {
				return err
			}
		}
		old += e.bytes
	}
	return nil
}

// zeroUnallocated clears an area that would show the backing file.
func (i *image) zeroUnallocated(co *aio.Co, offset, bytes int64) error {
	zero, n, err := i.backingZero(co, offset, bytes)
	if err != nil || zero && n >= bytes {
		return err
	}
	return i.zeroData(co, offset, bytes)
}

// zeroData writes zeroes as any request does, in the midst of a change.
func (i *image) zeroData(co *aio.Co, offset, bytes int64) error {
	b := i.getBuffer(bytes)
	defer i.putBuffer(b)
	clear(*b)
	i.mu.unlock()
	defer i.mu.lock(co)
	return i.CoPwritev(co, offset, block.Vec{*b}, 0)
}
