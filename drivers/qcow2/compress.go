package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// writeCompressed writes whole clusters packed; the last one of the disk may
// be short. What does not get smaller is written as it is.
func (i *image) writeCompressed(co *aio.Co, offset int64, v block.Vec) error {
	bytes := v.Len()
	end := offset + bytes
	switch {
	case i.external():
		return qerr.From(syscall.ENOTSUP)
	case i.geo.inCluster(offset) != 0, i.geo.inCluster(end) != 0 && end != i.size.Load():
		return qerr.From(syscall.EINVAL)
	}
	for done := int64(0); done < bytes; done += i.geo.clusterSize {
		part := v.Slice(done, min(bytes-done, i.geo.clusterSize))
		if err := i.writePacked(co, offset+done, part); err != nil {
			return err
		}
	}
	return nil
}

func (i *image) writePacked(co *aio.Co, offset int64, v block.Vec) error {
	whole, packed := i.getBuffer(i.geo.clusterSize), i.getBuffer(i.geo.clusterSize-1)
	defer i.putBuffer(whole)
	defer i.putBuffer(packed)
	clear((*whole)[v.CopyTo(*whole):])
	n, err := i.codec.compress(*packed, *whole)
	if err != nil {
		return err
	}
	if n == 0 {
		return i.CoPwritev(co, offset, v, 0)
	}
	a := &allocation{start: offset, end: offset + i.geo.clusterSize, fresh: true}
	i.mu.lock(co)
	err = i.planPacked(co, a, int64(n))
	i.mu.unlock()
	if err != nil {
		return err
	}
	i.file.Debug(block.DebugL2UpdateCompressed)
	i.file.Debug(block.DebugWriteCompressed)
	err = i.file.CoPwritev(co, a.host, block.Vec{(*packed)[:n]}, 0)
	i.mu.lock(co)
	defer i.mu.unlock()
	defer i.writes.remove(a)
	if err != nil {
		i.frees.add(a.host, int64(n), freeOther)
		return err
	}
	s, err := i.sliceForWrite(co, offset)
	if err != nil {
		return err
	}
	k := s.index(offset)
	old := s.get(k)
	i.setEntry(s, k, mapping{word: i.geo.compressedWord(a.host, int64(n))})
	i.freeEntry(co, old, freeOther)
	return nil
}

// planPacked finds a place for packed data.
func (i *image) planPacked(co *aio.Co, a *allocation, bytes int64) error {
	if err := i.modifying(co); err != nil {
		return err
	}
	i.awaitWrites(co, a.start, a.end)
	if err := i.needDirtyBit(co); err != nil {
		return err
	}
	// The table first: the data follows it in the file.
	s, err := i.sliceForWrite(co, a.start)
	if err != nil {
		return err
	}
	// Only what has no place yet can be packed (observed: own/qcow2/compress-again).
	if m := s.get(s.index(a.start)); m.compressed() || m.host() != 0 {
		return qerr.From(syscall.EIO)
	}
	at, err := i.allocBytes(co, bytes)
	if err != nil {
		return err
	}
	if at+bytes > i.geo.maxCompressed() {
		i.frees.add(at, bytes, freeOther)
		return qerr.From(syscall.EFBIG)
	}
	a.host = at
	i.writes.add(a)
	return i.checkOverlap(co, at, bytes, overlapNone)
}

// allocBytes takes less than a cluster, behind what was packed last if
// possible. Each cluster that the area touches is counted once for it.
func (i *image) allocBytes(co *aio.Co, bytes int64) (int64, error) {
	i.file.Debug(block.DebugClusterAllocBytes)
	at, err := i.allocBehind(co, bytes)
	if err != nil {
		return 0, err
	}
	if at == 0 {
		if at, err = i.alloc(co, 1, "compressed cluster"); err != nil {
			return 0, err
		}
	}
	i.compressEnd = at + bytes
	if i.geo.inCluster(i.compressEnd) == 0 {
		i.compressEnd = 0
	}
	i.used(i.geo.clusterEnd(at + bytes))
	return at, nil
}

// allocBehind takes the place behind what was packed last, or none (0).
func (i *image) allocBehind(co *aio.Co, bytes int64) (int64, error) {
	at := i.compressEnd
	if at == 0 {
		return 0, nil
	}
	next := i.geo.clusterEnd(at)
	spans := at+bytes > next
	if spans {
		got, err := i.refs.allocAt(co, next, 1)
		if got == 0 || err != nil {
			return 0, err
		}
	}
	// A cluster can be counted only so often.
	if i.refs.add(co, at>>i.geo.clusterBits, 1) != nil {
		if spans {
			i.frees.add(next, i.geo.clusterSize, freeOther)
		}
		return 0, nil
	}
	return at, nil
}
