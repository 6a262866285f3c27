package qcow2

import (
	"errors"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// allocation is a write to guest clusters whose entries it will change when
// the data is there.
type allocation struct {
	// start and end are the guest's clusters, in bytes.
	start, end int64
	// host is where the first one will be in the data file. The places are
	// fresh, or those that the entries have already.
	host  int64
	fresh bool
	// from and to are what is written: the request's part, and what has to
	// be copied before and behind it.
	from, to int64
	// blank says that what would be copied reads as zeroes.
	blank bool

	done       chan struct{} // made when somebody waits
	prev, next *allocation
}

// writes are the allocations under way. They never overlap: of two requests for
// one cluster the second waits. It is guarded by the image's mutex.
type writes struct{ head *allocation }

func (w *writes) add(a *allocation) {
	a.next = w.head
	if w.head != nil {
		w.head.prev = a
	}
	w.head = a
}

func (w *writes) remove(a *allocation) {
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		w.head = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	if a.done != nil {
		close(a.done)
	}
}

// conflict finds an allocation in an area.
func (w *writes) conflict(from, to int64) *allocation {
	for a := w.head; a != nil; a = a.next {
		if a.start < to && from < a.end {
			return a
		}
	}
	return nil
}

// awaitWrites waits until no allocation is under way in an area. The mutex is
// held, but given up meanwhile.
func (i *image) awaitWrites(co *aio.Co, from, to int64) {
	for {
		a := i.writes.conflict(from, to)
		if a == nil {
			return
		}
		if a.done == nil {
			a.done = make(chan struct{})
		}
		done := a.done
		i.mu.unlock()
		co.Yield(func() { <-done })
		i.mu.lock(co)
	}
}

// CoPwritev writes.
func (i *image) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if flags&block.ReqCompressed != 0 {
		return i.writeCompressed(co, offset, v)
	}
	flags &= block.ReqImmediate
	bytes := v.Len()
	for done := int64(0); done < bytes; {
		n, err := i.writePart(co, offset+done, v, done, bytes-done, flags)
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

// writePart writes as much as goes to one place, from v on from skip.
func (i *image) writePart(co *aio.Co, offset int64, v block.Vec, skip, bytes int64, flags block.ReqFlags) (int64, error) {
	if err := i.enter(co, offset, flags); err != nil {
		return 0, err
	}
	host, n, err := i.inPlace(co, offset, bytes, flags)
	if err != nil || n > 0 {
		epoch := i.frees.pin()
		i.mu.unlock()
		defer i.frees.unpin(epoch)
		if err != nil {
			return 0, err
		}
		i.file.Debug(block.DebugWriteAIO)
		return n, i.writeData(co, offset, host, v.Slice(skip, n), flags)
	}
	if flags != 0 && !i.allocatesAtOnce(offset, bytes) {
		i.mu.unlock()
		return 0, errWouldWait
	}
	a, n, err := i.allocate(co, offset, bytes)
	i.mu.unlock()
	if err != nil {
		return 0, err
	}
	err = i.writeAllocation(co, a, offset, v.Slice(skip, n), flags)
	i.mu.lock(co)
	defer i.mu.unlock()
	if err == nil {
		err = i.link(co, a)
	} else if a.fresh && !i.external() {
		i.frees.add(a.host, a.end-a.start, freeOther)
	}
	i.writes.remove(a)
	return n, err
}

// inPlace tells where the data at an offset can be overwritten: where a
// cluster is ours alone. It waits for allocations in the way, or fails if the
// request is immediate.
func (i *image) inPlace(co *aio.Co, offset, bytes int64, flags block.ReqFlags) (host, n int64, err error) {
	if flags != 0 && (i.modifyingWaits() || i.writes.conflict(offset, offset+1) != nil) {
		return 0, 0, errWouldWait
	}
	if err := i.modifying(co); err != nil {
		return 0, 0, err
	}
	i.awaitWrites(co, offset, offset+1)
	e, err := i.lookupFor(co, offset, bytes, true)
	if err != nil || e.kind != kindNormal || !e.first.copied() {
		return 0, 0, err
	}
	if n, err = i.copiedRun(co, offset, e.bytes); err != nil {
		return 0, 0, err
	}
	if !i.external() {
		err = i.checkOverlap(co, e.host, n, overlapNone)
	}
	return e.host, n, err
}

// copiedRun cuts an area of the kind normal at the first cluster that is
// shared. The area lies within one slice.
func (i *image) copiedRun(co *aio.Co, offset, bytes int64) (int64, error) {
	end := i.geo.clusterEnd(offset + 1)
	if end-offset >= bytes {
		return bytes, nil
	}
	s, err := i.sliceAt(co, offset)
	if err != nil {
		return 0, err
	}
	for n := s.index(offset) + 1; end-offset < bytes && s.get(n).copied(); n++ {
		end += i.geo.clusterSize
	}
	return min(bytes, end-offset), nil
}

// allocate plans a write that changes entries: it takes clusters for it and
// enters it into the list of writes. n is the part of the request that it
// serves.
func (i *image) allocate(co *aio.Co, offset, bytes int64) (a *allocation, n int64, err error) {
	if err := i.needDirtyBit(co); err != nil {
		return nil, 0, err
	}
	s, err := i.sliceForWrite(co, offset)
	if err != nil {
		return nil, 0, err
	}
	g := &i.geo
	first := s.get(s.index(offset))
	a = &allocation{start: g.clusterStart(offset), fresh: !i.ours(first)}
	clusters := i.sameRun(s, offset, bytes, a.fresh)
	switch {
	case i.external():
		a.host = a.start
	case a.fresh:
		if a.host, err = i.alloc(co, clusters, dataCluster); err != nil {
			return nil, 0, err
		}
		err = i.checkOverlap(co, a.host, clusters<<g.clusterBits, overlapNone)
	default:
		a.host = first.host()
		err = i.checkOverlap(co, a.host, clusters<<g.clusterBits, overlapNone)
	}
	if err != nil {
		return nil, 0, err
	}
	a.end = a.start + clusters<<g.clusterBits
	n = min(bytes, a.end-offset)
	// Taking clusters may have put another slice into the memory of s.
	if s, err = i.sliceForWrite(co, offset); err != nil {
		return nil, 0, err
	}
	a.from = g.copyFrom(first, a.fresh, offset)
	a.to = g.copyTo(s.get(s.index(offset+n-1)), a.fresh, offset+n)
	if a.blank, err = i.blankAround(co, a, offset, offset+n); err != nil {
		return nil, 0, err
	}
	i.writes.add(a)
	return a, n, nil
}

// minBlank is how much has to be copied for it to be worth the while to find
// out that it is zeroes, in bytes.
const minBlank = 32 << 10

// blankAround tells whether what would be copied around a write to a fresh
// place reads as zeroes, and is so much that writing it takes long.
func (i *image) blankAround(co *aio.Co, a *allocation, from, to int64) (bool, error) {
	if !a.fresh || i.crypt != nil || a.to-a.from-(to-from) < minBlank {
		return false, nil
	}
	zero, err := i.readsZero(co, a.from, from)
	if !zero || err != nil {
		return false, err
	}
	return i.readsZero(co, to, min(a.to, i.size.Load()))
}

// ours tells whether an entry has a cluster that nobody else uses.
func (i *image) ours(m mapping) bool {
	return i.geo.allocated(m) && m.copied()
}

// sameRun counts the clusters of a request that can be written at once: they
// need new places, or have places side by side that hold no data yet.
func (i *image) sameRun(s slice, offset, bytes int64, fresh bool) int64 {
	g := &i.geo
	start := s.index(offset)
	most := min(int64(s.entries()-start), g.clusters(g.inCluster(offset)+bytes))
	place := s.get(start).host()
	n := int64(1)
	for ; n < most; n++ {
		m := s.get(start + int(n))
		at := g.clusterStart(offset) + n<<g.clusterBits
		if i.writes.conflict(at, at+1) != nil || i.ours(m) == fresh {
			break
		}
		if !fresh && (m.host() != place+n<<g.clusterBits || !g.extended && g.kindOf(m, 0) == kindNormal) {
			break
		}
	}
	return n
}

// copyFrom tells where a write that begins at an offset has to begin for the
// cluster to be whole: what its entry will call allocated must be there.
func (g *geometry) copyFrom(m mapping, fresh bool, offset int64) int64 {
	start := g.clusterStart(offset)
	if !g.extended || fresh && m.compressed() {
		return start
	}
	sub := g.sub(offset)
	if !fresh && g.kindOf(m, sub) == kindNormal {
		return offset
	}
	if fresh {
		for k := range sub {
			if g.kindOf(m, k) == kindNormal {
				return start + int64(k)<<g.subBits
			}
		}
	}
	return g.subStart(offset)
}

// copyTo is the same for the end.
func (g *geometry) copyTo(m mapping, fresh bool, end int64) int64 {
	start := g.clusterStart(end - 1)
	if !g.extended || fresh && m.compressed() {
		return start + g.clusterSize
	}
	sub := g.sub(end - 1)
	if !fresh && g.kindOf(m, sub) == kindNormal {
		return end
	}
	if fresh {
		for k := uint(subclusters - 1); k > sub; k-- {
			if g.kindOf(m, k) == kindNormal {
				return start + int64(k+1)<<g.subBits
			}
		}
	}
	return g.subEnd(end)
}

// writeAllocation writes the request's part, and around it what was there
// before, all at once. The flags are for a write with nothing around it.
func (i *image) writeAllocation(co *aio.Co, a *allocation, offset int64, v block.Vec, flags block.ReqFlags) error {
	end := offset + v.Len()
	host := a.host + a.from - a.start
	if a.from == offset && a.to == end {
		i.file.Debug(block.DebugWriteAIO)
		return i.writeData(co, offset, host, v, flags)
	}
	if a.blank {
		i.file.Debug(block.DebugClusterAllocSpace)
		err := i.data.CoPwriteZeroes(co, host, a.to-a.from, block.ReqNoFallback)
		if err == nil {
			i.file.Debug(block.DebugWriteAIO)
			return i.data.CoPwritev(co, host+offset-a.from, v, 0)
		}
		if !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
	}
	head, tail := i.getBuffer(offset-a.from), i.getBuffer(a.to-end)
	defer i.putBuffer(head)
	defer i.putBuffer(tail)
	i.file.Debug(block.DebugCowRead)
	if err := i.readBefore(co, a.from, *head); err != nil {
		return err
	}
	if err := i.readBefore(co, end, *tail); err != nil {
		return err
	}
	out := make(block.Vec, 0, len(v)+2)
	out = append(out, *head)
	out = append(out, v...)
	out = append(out, *tail)
	i.file.Debug(block.DebugWriteAIO)
	i.file.Debug(block.DebugCowWrite)
	return i.writeData(co, a.from, host, out, 0)
}

// readBefore reads what a guest sees in an area before it is written. The area
// may lie beyond the end of the disk.
func (i *image) readBefore(co *aio.Co, offset int64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	size := (i.size.Load() + sectorSize - 1) &^ (sectorSize - 1)
	inside := max(0, min(int64(len(b)), size-offset))
	clear(b[inside:])
	if inside == 0 {
		return nil
	}
	return i.CoPreadv(co, offset, block.Vec{b[:inside]}, 0)
}

// link puts the written clusters into the guest's disk.
func (i *image) link(co *aio.Co, a *allocation) error {
	s, err := i.sliceForWrite(co, a.start)
	if err != nil {
		return err
	}
	g := &i.geo
	n := s.index(a.start)
	for at := a.start; at < a.end; at += g.clusterSize {
		old := s.get(n)
		m := mapping{word: uint64(a.host+at-a.start) | flagCopied}
		if g.extended {
			mask := g.subMask(max(a.from, at)-at, min(a.to, at+g.clusterSize)-at)
			m.bitmap = linkBitmap(old, mask, a.fresh)
		}
		i.setEntry(s, n, m)
		if a.fresh {
			i.freeEntry(co, old, freeOther)
		}
		n++
	}
	return nil
}

// linkBitmap is the bitmap of a cluster some of whose subclusters have been
// written. In a fresh place all else that was there was written with them.
func linkBitmap(old mapping, written uint64, fresh bool) uint64 {
	if old.compressed() {
		return written
	}
	alloc, zero := old.bitmap&allSubs, old.bitmap>>subclusters
	if fresh {
		alloc = 0
	}
	return alloc | written | (zero&^written)<<subclusters
}
