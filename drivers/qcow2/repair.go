package qcow2

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// uses counts the uses of clusters anew, from all that refers to them.
type uses struct {
	img   *image
	pages map[int64]*[usesPage]uint64
	// end is behind the last cluster in use.
	end int64
}

const usesPage = 1024

// add counts an area. What cannot be is none of our references.
func (u *uses) add(offset, bytes int64) {
	if offset < 0 || bytes <= 0 || offset > maxHostOffset-bytes {
		return
	}
	first, last := offset>>u.img.geo.clusterBits, (offset+bytes-1)>>u.img.geo.clusterBits
	for c := first; c <= last; c++ {
		p := u.pages[c/usesPage]
		if p == nil {
			p = new([usesPage]uint64)
			u.pages[c/usesPage] = p
		}
		p[c%usesPage]++
	}
	u.end = max(u.end, last+1)
}

func (u *uses) get(cluster int64) uint64 {
	if p := u.pages[cluster/usesPage]; p != nil {
		return p[cluster%usesPage]
	}
	return 0
}

// count goes through the whole image.
func (u *uses) count(co *aio.Co) error {
	i := u.img
	size := i.geo.clusterSize
	areas := [][2]int64{
		{0, size},
		{int64(i.hdr.refTableOffset), int64(len(i.refs.table)) * 8},
		{int64(i.hdr.snapshotsOffset), i.snapshotTableSize()},
		{int64(i.hdr.bitmaps.directoryOffset), int64(i.hdr.bitmaps.directorySize)},
		{int64(i.hdr.cryptoOffset), min(int64(i.hdr.cryptoLength), i.end-int64(i.hdr.cryptoOffset))},
	}
	for _, at := range i.refs.blocks {
		areas = append(areas, [2]int64{at, size})
	}
	for _, a := range areas {
		u.add(a[0], a[1])
	}
	u.add(int64(i.hdr.l1Offset), i.l1.bytes())
	if err := u.countTables(co, i.l1.used()); err != nil {
		return err
	}
	for n := range i.snapshots {
		s := &i.snapshots[n]
		if s.l1Size > maxL1Size/8 || s.l1Offset < 0 || i.geo.inCluster(s.l1Offset) != 0 {
			continue
		}
		// Behind the end of the file there is nothing but zeroes.
		entries := min(int64(s.l1Size), max(0, i.end-s.l1Offset)/8)
		table, err := i.readTable(co, uint64(s.l1Offset), entries)
		if err != nil {
			return err
		}
		u.add(s.l1Offset, int64(s.l1Size)*8)
		if err := u.countTables(co, slices.All(table)); err != nil {
			return err
		}
	}
	for n := range i.bitmaps {
		if err := u.countBitmap(co, &i.bitmaps[n]); err != nil {
			return err
		}
	}
	return nil
}

// countTables counts the L2 tables that an L1 table names, and what is in
// them.
func (u *uses) countTables(co *aio.Co, l1 iter.Seq2[int, uint64]) error {
	for _, e := range l1 {
		at := int64(e & offsetMask)
		if at == 0 || u.img.geo.inCluster(at) != 0 {
			continue
		}
		u.add(at, u.img.geo.clusterSize)
		if err := u.countL2(co, at); err != nil {
			return err
		}
	}
	return nil
}

func (u *uses) countL2(co *aio.Co, at int64) error {
	i := u.img
	table, err := i.readTable(co, uint64(at), i.geo.clusterSize/8)
	if err != nil {
		return err
	}
	for n := 0; n < len(table); n += int(i.geo.entrySize / 8) {
		m := mapping{word: table[n]}
		switch {
		case m.compressed():
			u.add(i.geo.compressedAt(m.word))
		case m.host() != 0 && !i.external() && i.geo.inCluster(m.host()) == 0:
			u.add(m.host(), i.geo.clusterSize)
		}
	}
	return nil
}

func (u *uses) countBitmap(co *aio.Co, b *bitmap) error {
	u.add(int64(b.tableOffset), int64(b.tableSize)*8)
	table, err := u.img.readTable(co, b.tableOffset, int64(b.tableSize))
	if err != nil {
		return err
	}
	for _, e := range table {
		if at := int64(e & offsetMask); at != 0 {
			u.add(at, u.img.geo.clusterSize)
		}
	}
	return nil
}

// repair counts all references and makes the refcounts what they should be.
// The bit that asks for it is cleared when that is durable.
func (i *image) repair(co *aio.Co) error {
	if err := i.recount(co); err != nil {
		return qerr.Prepend(err, "Could not repair dirty image: ")
	}
	return nil
}

func (i *image) recount(co *aio.Co) error {
	u := &uses{img: i, pages: make(map[int64]*[usesPage]uint64)}
	if err := u.count(co); err != nil {
		return err
	}
	// Clusters for new blocks come from behind all that is used.
	i.used(u.end << i.geo.clusterBits)
	i.refs.hint = i.end >> i.geo.clusterBits
	if err := i.fixMissing(co, u); err != nil {
		return err
	}
	if err := i.fixCounts(co, u); err != nil {
		return err
	}
	if err := i.fixCopied(co, u); err != nil {
		return err
	}
	i.refs.hint = 0
	i.unrepaired = false
	return i.markClean(co)
}

// fixMissing makes blocks for what is used and not counted anywhere. Their own
// clusters are used from then on as well.
func (i *image) fixMissing(co *aio.Co, u *uses) error {
	for _, page := range slices.Sorted(maps.Keys(u.pages)) {
		for n := range int64(usesPage) {
			cluster := page*usesPage + n
			if u.get(cluster) == 0 || i.refs.blockOffset(cluster) != 0 {
				continue
			}
			known, table := slices.Clone(i.refs.blocks), i.hdr.refTableOffset
			err := i.refs.ensureBlock(co, cluster>>i.geo.refBits)
			if errors.Is(err, syscall.EFBIG) {
				break // no image reaches that far: garbage
			}
			if err != nil {
				return err
			}
			if i.hdr.refTableOffset != table {
				return i.recountFrom(co, u)
			}
			for _, at := range i.refs.blocks {
				if _, found := slices.BinarySearch(known, at); !found {
					u.add(at, i.geo.clusterSize)
				}
			}
		}
	}
	return nil
}

// recountFrom begins anew with another refcount table.
func (i *image) recountFrom(co *aio.Co, u *uses) error {
	clear(u.pages)
	i.frees = frees{cluster: i.geo.clusterSize} // the old table is not referred to any more
	if err := u.count(co); err != nil {
		return err
	}
	return i.fixMissing(co, u)
}

func (i *image) fixCounts(co *aio.Co, u *uses) error {
	perBlock := int64(1) << i.geo.refBits
	for n := range i.refs.table {
		first := int64(n) * perBlock
		t, err := i.refs.blockOf(co, first)
		if err != nil {
			return err
		}
		if t == nil {
			continue
		}
		for k := range perBlock {
			want := u.get(first + k)
			if want > i.geo.maxRefcount() {
				return qerr.From(syscall.EIO)
			}
			if readRefcount(t.data, i.geo.refOrder, k) != want {
				writeRefcount(t.data, i.geo.refOrder, k, want)
				i.refs.cache.setDirty(t)
			}
		}
	}
	return nil
}

// fixCopied marks what has a sole use, and nothing else.
func (i *image) fixCopied(co *aio.Co, u *uses) error {
	return i.forEachEntry(co, func(_ *aio.Co, word uint64, l1 bool) (uint64, error) {
		switch {
		case !l1 && (word&flagCompressed != 0 || i.external()):
		case u.get(int64(word&offsetMask)>>i.geo.clusterBits) == 1:
			word |= flagCopied
		default:
			word &^= flagCopied
		}
		return word, nil
	})
}
