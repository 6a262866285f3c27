package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// preallocate gives every cluster of a new area, which begins with a cluster
// and reaches to the end of the disk, a place, where the reference does. What the
// file may hold there is cleared; with zero the entries say that it reads as
// zeroes, too.
func (i *image) preallocate(co *aio.Co, from, size int64, mode block.PreallocMode, zero bool) error {
	if err := i.needDirtyBit(co); err != nil {
		return err
	}
	i.hollowKnown = false
	place, start := i.placeAnywhere, from
	reserved := !i.external() && mode >= block.PreallocFalloc
	switch {
	case i.external():
		place = func(_ *aio.Co, from, _ int64) (int64, error) { return from, nil }
	case reserved:
		first, err := i.reserve(co, from, i.geo.clusterEnd(size), mode)
		if err != nil {
			return err
		}
		place = func(_ *aio.Co, at, _ int64) (int64, error) { return first + at - start, nil }
	}
	var end int64
	for from < size {
		n, until, err := i.preallocateRun(co, from, i.geo.clusterEnd(size), zero, place)
		if err != nil {
			return qerr.Prepend(err, "Could not preallocate metadata: ")
		}
		from, end = from+n, until
	}
	if start >= size || reserved {
		return nil
	}
	return i.finishFile(co, end-(i.geo.clusterEnd(size)-size))
}

// finishFile makes the file that holds the data long enough for what was placed
// in it. at is where the disk ends there; what is left of that subcluster is
// written, as by a request that allocates it.
func (i *image) finishFile(co *aio.Co, at int64) error {
	end := i.geo.subEnd(at)
	if end > at {
		b := i.getBuffer(end - at)
		defer i.putBuffer(b)
		clear(*b)
		return i.data.CoPwritev(co, at, block.Vec{*b}, 0)
	}
	if i.external() {
		return nil
	}
	length, err := i.file.Node().CoGetLength(co)
	if err != nil || length >= end {
		return err
	}
	return i.file.CoTruncate(co, end, false, block.PreallocOff, 0)
}

// placeFunc finds a place in the file for the clusters from a guest's offset on.
type placeFunc func(co *aio.Co, from, clusters int64) (host int64, err error)

// preallocateRun does it as far as one slice goes: for how many bytes, and until
// where in the file.
func (i *image) preallocateRun(co *aio.Co, from, to int64, zero bool, place placeFunc) (n, end int64, err error) {
	g := &i.geo
	s, err := i.sliceForWrite(co, from)
	if err != nil {
		return 0, 0, err
	}
	clusters := min(int64(s.entries()-s.index(from)), (to-from)>>g.clusterBits)
	host, err := place(co, from, clusters)
	if err != nil {
		return 0, 0, err
	}
	// Finding places may have put another slice in its memory.
	if s, err = i.sliceForWrite(co, from); err != nil {
		return 0, 0, err
	}
	for k := range clusters {
		m := mapping{word: uint64(host+k<<g.clusterBits) | flagCopied}
		switch {
		case g.extended && zero:
			m.bitmap = allSubs << subclusters
		case zero:
			m.word |= flagZero
		}
		i.setEntry(s, s.index(from)+int(k), m)
	}
	return clusters << g.clusterBits, host + clusters<<g.clusterBits, nil
}

// placeAnywhere takes the first clusters that are free.
func (i *image) placeAnywhere(co *aio.Co, _, clusters int64) (host int64, err error) {
	used := i.end
	if host, err = i.refs.alloc(co, clusters); err != nil {
		return 0, err
	}
	end := host + clusters<<i.geo.clusterBits
	i.used(end)
	return host, i.clearOld(co, host, min(end, used))
}

// clearOld clears what the file may hold in an area, which may be empty.
func (i *image) clearOld(co *aio.Co, from, to int64) error {
	if from >= to {
		return nil
	}
	return i.file.CoPwriteZeroes(co, from, to-from, 0)
}

// reserve takes room for a new area behind the last cluster in use, and has the
// file allocate it. All of it is counted before, by blocks in front of it, with
// the tables that will be needed.
func (i *image) reserve(co *aio.Co, from, to int64, mode block.PreallocMode) (int64, error) {
	clusters := (to - from) >> i.geo.clusterBits
	perTable := int64(1) << i.geo.l2Bits
	used := i.end
	last, err := i.lastUsed(co)
	if err != nil {
		return 0, err
	}
	first, err := i.refs.countAhead(co, last+1, clusters+(clusters+perTable-1)/perTable)
	if err != nil {
		return 0, qerr.Prepend(err, "Failed to resize refcount structures: ")
	}
	host := first << i.geo.clusterBits
	end := host + clusters<<i.geo.clusterBits
	if got, err := i.refs.allocAt(co, host, clusters); err != nil || got < clusters {
		return 0, qerr.Prepend(qerr.From(qerr.ErrnoOf(err, syscall.EIO)), "Failed to allocate data clusters: ")
	}
	if err = i.allocateFile(co, end, mode); err == nil {
		err = i.clearOld(co, host, min(end, used))
	}
	if err != nil {
		i.frees.add(host, end-host, freeOther)
		return 0, err
	}
	i.used(end)
	return host, nil
}

// allocateFile makes the file longer in the given mode. It may be long enough:
// its last clusters are free, and are cleared. Only where an image is made that
// is refused, as in the reference, which frees the ends of files at once.
func (i *image) allocateFile(co *aio.Co, end int64, mode block.PreallocMode) error {
	length, err := i.file.Node().CoGetLength(co)
	if err == nil && (length < end || i.unfinished) {
		err = i.file.CoTruncate(co, end, false, mode, 0)
	}
	if err != nil {
		return qerr.Prepend(err, "Failed to resize underlying file: ")
	}
	return nil
}

// lastUsed is the last cluster of the file that is used.
func (i *image) lastUsed(co *aio.Co) (int64, error) {
	for last := i.geo.clusters(i.end) - 1; last > 0; last-- {
		uses, err := i.refs.get(co, last)
		if uses != 0 || err != nil {
			return last, err
		}
	}
	return 0, nil
}

// countAhead makes sure that extra clusters can be counted: from start on it
// puts the blocks that are missing, and a table that names all; the clusters
// follow. It returns the first of them.
func (r *refcounts) countAhead(co *aio.Co, start, extra int64) (int64, error) {
	g := &r.img.geo
	var missing []int64
	table := make([]uint64, 0)
	for {
		last := (start + int64(len(missing)) + r.tableClusters(table) + extra - 1) >> g.refBits
		entries := max(last+1, r.entries())
		if entries*8 > maxRefTableSize {
			return 0, qerr.From(syscall.EFBIG)
		}
		more := r.missing(start>>g.refBits, last)
		if len(more) == len(missing) && int(entries) <= len(table) {
			break
		}
		missing, table = more, make([]uint64, (entries*8+g.clusterSize-1)>>g.clusterBits<<g.clusterBits/8)
	}
	copy(table, r.table)
	for k, index := range missing {
		table[index] = uint64(start+int64(k)) << g.clusterBits
	}
	at := start + int64(len(missing))
	end := at + r.tableClusters(table)
	if err := r.countNew(co, start, end, missing); err != nil {
		return 0, err
	}
	if err := r.replaceTable(co, at, table); err != nil {
		return 0, err
	}
	for _, index := range missing {
		r.blocks.add(int64(table[index]))
	}
	return end, nil
}

func (r *refcounts) tableClusters(table []uint64) int64 {
	return int64(len(table)) * 8 >> r.img.geo.clusterBits
}

// entries is the number of entries of the table up to the last one in use.
func (r *refcounts) entries() int64 {
	n := len(r.table)
	for n > 0 && r.table[n-1]&^reservedRef == 0 {
		n--
	}
	return int64(n)
}

// missing lists the blocks between two indices that are not there.
func (r *refcounts) missing(first, last int64) (list []int64) {
	for n := first; n <= last; n++ {
		if n >= int64(len(r.table)) || r.table[n]&^reservedRef == 0 {
			list = append(list, n)
		}
	}
	return list
}

// countNew counts the clusters from start to end. The blocks with the given
// indices are made for that, in the first ones.
func (r *refcounts) countNew(co *aio.Co, start, end int64, missing []int64) error {
	g := &r.img.geo
	for k, index := range missing {
		err := r.writeNewBlock(co, (start+int64(k))<<g.clusterBits, func(b []byte) {
			for c := max(start, index<<g.refBits); c < min(end, (index+1)<<g.refBits); c++ {
				writeRefcount(b, g.refOrder, r.inBlock(c), 1)
			}
		})
		if err != nil {
			return err
		}
	}
	for c := start; c < end; c++ {
		if r.blockOffset(c) == 0 {
			continue // a new one counts it
		}
		if err := r.addOne(co, c); err != nil {
			return err
		}
	}
	return r.cache.flush(co)
}

// replaceTable puts another table at a cluster, durably, and gives the old one
// up. Nobody looks at that any more.
func (r *refcounts) replaceTable(co *aio.Co, at int64, table []uint64) error {
	g := &r.img.geo
	raw := block.AlignedMemory(len(table) * 8)
	for i, v := range table {
		be.PutUint64(raw[i*8:], v)
	}
	r.img.used((at + r.tableClusters(table)) << g.clusterBits)
	if err := r.img.writeMeta(co, at<<g.clusterBits, raw, overlapNone); err != nil {
		return err
	}
	if err := r.img.barrier(co); err != nil {
		return err
	}
	old, clusters := int64(r.img.hdr.refTableOffset)>>g.clusterBits, int64(r.img.hdr.refTableClusters)
	if err := r.img.moveRefTable(co, at<<g.clusterBits, r.tableClusters(table)); err != nil {
		return err
	}
	r.table = table
	for c := old; c < old+clusters; c++ {
		left, err := r.drop(co, c)
		if err != nil {
			return err
		}
		if left == 0 {
			r.img.dropped(c << g.clusterBits)
		}
	}
	return nil
}
