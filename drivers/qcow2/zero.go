package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoPwriteZeroes makes an area read as zeroes by changing its entries. Where
// it begins or ends within a subcluster, the rest of that must read as zeroes
// already.
func (i *image) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	start, end := i.geo.subStart(offset), i.geo.subEnd(offset+bytes)
	if i.geo.version < 3 && i.node.Backing() != nil {
		return qerr.From(syscall.ENOTSUP)
	}
	i.mu.lock(co)
	defer i.mu.unlock()
	if err := i.modifying(co); err != nil {
		return err
	}
	i.awaitWrites(co, i.geo.clusterStart(start), i.geo.clusterEnd(end))
	for _, edge := range [][2]int64{{start, offset}, {offset + bytes, min(end, i.size.Load())}} {
		zero, err := i.readsZero(co, edge[0], edge[1])
		if err != nil {
			return err
		}
		if !zero {
			return qerr.From(syscall.ENOTSUP)
		}
	}
	if i.external() && i.hdr.dataRaw() {
		if err := i.data.CoPwriteZeroes(co, offset, bytes, flags&block.ReqMayUnmap); err != nil {
			return err
		}
	}
	c := change{unmap: flags&block.ReqMayUnmap != 0}
	if i.geo.version < 3 {
		c = change{discard: true}
	}
	return i.change(co, start, end, c)
}

// readsZero tells whether an area reads as zeroes, without reading its data.
func (i *image) readsZero(co *aio.Co, from, to int64) (bool, error) {
	for from < to {
		e, err := i.lookup(co, from, to-from)
		if err != nil {
			return false, err
		}
		switch e.kind {
		case kindNormal, kindCompressed:
			return false, nil
		case kindUnallocated, kindReserved:
			zero, n, err := i.backingZero(co, from, e.bytes)
			if !zero || err != nil {
				return false, err
			}
			e.bytes = n
		}
		from += e.bytes
	}
	return true, nil
}

// backingZero tells whether the backing file reads as zeroes at an offset, and
// how far.
func (i *image) backingZero(co *aio.Co, offset, bytes int64) (bool, int64, error) {
	b := i.node.Backing()
	if b == nil {
		return true, bytes, nil
	}
	st, _, err := b.Node().CoBlockStatusAbove(co, nil, false, true, offset, bytes)
	if err != nil {
		return false, 0, err
	}
	if st.Bytes == 0 { // behind its end
		return true, bytes, nil
	}
	return st.Flags&block.StatusZero != 0, st.Bytes, nil
}

// change says what becomes of entries.
type change struct {
	// unmap gives up the clusters, where zeroes are written.
	unmap bool
	// discard means that nobody needs the content any more.
	discard bool
	// full makes a discarded area unallocated even if a backing file shows
	// through then.
	full bool
}

// change applies a change to whole subclusters, or clusters. The mutex is
// held, and no allocation is under way there.
func (i *image) change(co *aio.Co, offset, end int64, c change) error {
	for offset < end {
		n, err := i.changeSlice(co, offset, end, c)
		if err != nil {
			return err
		}
		offset += n
	}
	return nil
}

// changeSlice applies a change as far as one slice goes.
func (i *image) changeSlice(co *aio.Co, offset, end int64, c change) (int64, error) {
	g := &i.geo
	perSlice := g.clusterSize << g.sliceBits
	end = min(end, (offset&^(perSlice-1))+perSlice)
	s, err := i.sliceForWrite(co, offset)
	if err != nil {
		return 0, err
	}
	if i.frees.held > maxHeld {
		if err := i.writeBack(co); err != nil {
			return 0, err
		}
		if s, err = i.sliceForWrite(co, offset); err != nil {
			return 0, err
		}
	}
	var holes []freed
	for at := offset; at < end; at = g.clusterStart(at) + g.clusterSize {
		n := s.index(at)
		old := s.get(n)
		to := min(end, g.clusterStart(at)+g.clusterSize)
		if old.compressed() && to-at < g.clusterSize {
			return 0, qerr.From(syscall.ENOTSUP) // it has no subclusters
		}
		m := i.changed(old, g.inCluster(at), g.inCluster(to-1)+1, c)
		if m == old {
			continue
		}
		i.setEntry(s, n, m)
		if hole := i.giveUp(co, old, m, c); hole >= 0 {
			holes = appendRun(holes, hole, g.clusterSize)
		}
	}
	i.punch(co, holes)
	return end - offset, nil
}

// changed is what becomes of an entry; from and to are offsets in the
// cluster.
func (i *image) changed(old mapping, from, to int64, c change) mapping {
	g := &i.geo
	whole := from == 0 && to == g.clusterSize
	if !whole {
		mask := g.subMask(from, to)
		old.bitmap = old.bitmap&^mask | mask<<subclusters
		return old
	}
	keep := g.allocated(old) && !c.full && (i.opts.noUnref || !c.discard && !c.unmap)
	nothing := !g.allocated(old) && !old.compressed() && i.node.Backing() == nil
	switch {
	case c.discard && (c.full || g.version < 3):
		return mapping{}
	case c.discard && nothing:
		return old // it reads as zeroes anyway
	case keep && g.extended:
		return mapping{old.word, allSubs << subclusters}
	case keep:
		return mapping{word: old.word | flagZero}
	case g.extended:
		return mapping{bitmap: allSubs << subclusters}
	}
	return mapping{word: flagZero}
}

// giveUp frees the cluster that an entry had and has no more. It returns
// where in the file nobody needs the data any more, or -1.
func (i *image) giveUp(co *aio.Co, old, m mapping, c change) int64 {
	reason := freeOther
	if c.discard || c.unmap {
		reason = freeRequest
	}
	whole := !i.geo.extended || m.bitmap&allSubs == 0
	gone := whole && i.geo.allocated(old) && i.opts.passDiscard[reason] && reason == freeRequest
	if i.crypt != nil {
		gone = false // zeroes would be noise as long as the old entry is on disk
	}
	if old.compressed() || old.host() != m.host() {
		// What only this entry had is discarded at once: who loses power
		// now finds the old data or zeroes, and asked for no more.
		if gone && old.copied() && !i.external() {
			i.freeEntry(co, old, freeNever)
		} else {
			i.freeEntry(co, old, reason)
		}
	}
	if gone && old.copied() && i.geo.inCluster(old.host()) == 0 {
		return old.host()
	}
	return -1
}

// punch discards areas of the data file. It is a hint: what the file makes of
// it changes nothing here.
func (i *image) punch(co *aio.Co, holes []freed) {
	for _, h := range holes {
		_ = i.data.CoPdiscard(co, h.offset, h.bytes)
	}
}

// CoPdiscard gives up whole clusters. Their content is zero from then on, or
// undefined where the image is too old to say so.
func (i *image) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	end := offset + bytes
	if end == i.size.Load() {
		end = i.geo.clusterEnd(end)
	}
	if i.geo.inCluster(offset) != 0 || i.geo.inCluster(end) != 0 {
		return qerr.From(syscall.ENOTSUP)
	}
	if i.geo.version < 3 && i.node.Backing() != nil {
		return qerr.From(syscall.ENOTSUP)
	}
	i.mu.lock(co)
	defer i.mu.unlock()
	if err := i.modifying(co); err != nil {
		return err
	}
	i.awaitWrites(co, offset, end)
	return i.change(co, offset, end, change{discard: true})
}
