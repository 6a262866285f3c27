package qcow2

import (
	"strconv"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// hex prints a number as messages of the reference do: zero has no prefix.
func hex(n int64) string {
	if n == 0 {
		return "0"
	}
	return "0x" + strconv.FormatUint(uint64(n), 16)
}

// slice is a part of an L2 table in the cache.
type slice struct {
	table *table
	geo   *geometry
	// l2 is where the L2 table is, first the index in it of the slice's
	// first entry.
	l2    int64
	first int
}

// sliceAt finds the slice with the entry for a guest's offset. It has no table
// if none is allocated. The mutex is held, here and in all that follows.
func (i *image) sliceAt(co *aio.Co, offset int64) (slice, error) {
	n := i.geo.l1Index(offset)
	if n >= i.l1.entries {
		return slice{}, nil
	}
	l2 := int64(i.l1.get(n) & offsetMask)
	if l2 == 0 {
		return slice{}, nil
	}
	if i.geo.inCluster(l2) != 0 {
		return slice{}, i.corrupt(co, true, -1, -1, "L2 table offset %s unaligned (L1 index: %s)", hex(l2), hex(int64(n)))
	}
	return i.sliceOf(co, l2, offset)
}

func (i *image) sliceOf(co *aio.Co, l2, offset int64) (slice, error) {
	first := i.geo.sliceFirst(offset)
	t, err := i.l2.get(co, l2+int64(first)*i.geo.entrySize)
	return slice{t, &i.geo, l2, first}, err
}

// index is that of the entry for an offset, within the slice.
func (s slice) index(offset int64) int { return s.geo.l2Index(offset) - s.first }

// entries is the number of entries in a slice.
func (s slice) entries() int { return 1 << s.geo.sliceBits }

func (s slice) get(n int) mapping {
	if s.geo.extended {
		b := s.table.data[n*16:]
		return mapping{be.Uint64(b), be.Uint64(b[8:])}
	}
	return mapping{word: be.Uint64(s.table.data[n*8:])}
}

func (i *image) setEntry(s slice, n int, m mapping) {
	if s.geo.extended {
		b := s.table.data[n*16:]
		be.PutUint64(b, m.word)
		be.PutUint64(b[8:], m.bitmap)
	} else {
		be.PutUint64(s.table.data[n*8:], m.word)
	}
	i.l2.setDirty(s.table)
}

// extent is an area of the guest's disk which is of one kind, and contiguous
// in the file.
type extent struct {
	kind  kind
	bytes int64
	// host is where it begins in the data file, for the kinds that have a
	// place there.
	host int64
	// first is the first cluster's entry.
	first mapping
}

func (k kind) placed() bool {
	return k == kindReserved || k == kindZeroAllocated || k == kindNormal
}

// lookup tells what lies at a guest's offset, at most bytes far.
func (i *image) lookup(co *aio.Co, offset, bytes int64) (extent, error) {
	return i.lookupFor(co, offset, bytes, false)
}

// lookupFor is lookup for who reads or writes there: they mind different
// things.
func (i *image) lookupFor(co *aio.Co, offset, bytes int64, write bool) (extent, error) {
	s, err := i.sliceAt(co, offset)
	if err != nil {
		return extent{}, err
	}
	g := &i.geo
	if s.table == nil {
		perTable := g.clusterSize << g.l2Bits
		return extent{kind: kindUnallocated, bytes: min(bytes, perTable-offset&(perTable-1))}, nil
	}
	n := s.index(offset)
	m := s.get(n)
	e := extent{kind: g.kindOf(m, g.sub(offset)), first: m}
	if write {
		err = i.checkForWrite(co, s, n, m, e.kind, offset)
	} else {
		err = i.checkForRead(co, s, n, m, e.kind, offset)
	}
	if err != nil {
		return extent{}, err
	}
	if e.kind.placed() {
		e.host = m.host() + g.inCluster(offset)
	}
	at := g.subStart(offset) + g.subSize
	for at-offset < bytes {
		if g.inCluster(at) == 0 {
			if n++; n >= s.entries() {
				break
			}
			m = s.get(n)
			if e.kind == kindCompressed || e.kind.placed() && m.host() != e.host+at-offset {
				break
			}
		}
		if g.kindOf(m, g.sub(at)) != e.kind {
			break
		}
		at += g.subSize
	}
	e.bytes = min(at-offset, bytes)
	return e, nil
}

// checkForRead refuses entries that cannot be.
func (i *image) checkForRead(co *aio.Co, s slice, n int, m mapping, k kind, offset int64) error {
	index := func() string { return hex(int64(s.first + n)) }
	switch {
	case k == kindInvalid:
		return i.corrupt(co, true, -1, -1, "Invalid cluster entry found  (L2 offset: %s, L2 index: %s)", hex(s.l2), index())
	case k == kindCompressed && i.external():
		return i.corrupt(co, true, -1, -1, "Compressed cluster entry found in image with external data file (L2 offset: %s, L2 index: %s)",
			hex(s.l2), index())
	case k.placed() && i.geo.inCluster(m.host()) != 0:
		return i.corrupt(co, true, -1, -1, "Cluster allocation offset %s unaligned (L2 offset: %s, L2 index: %s)",
			hex(m.host()), hex(s.l2), index())
	case k.placed() && i.external() && m.host() != i.geo.clusterStart(offset):
		return i.corrupt(co, true, -1, -1, "External data file host cluster offset %s does not match guest cluster offset: %s, L2 index: %s)",
			hex(m.host()), hex(i.geo.clusterStart(offset)), index())
	}
	return nil
}

// checkForWrite does it for who will put another entry in its place, unless the
// cluster can be used again.
func (i *image) checkForWrite(co *aio.Co, s slice, n int, m mapping, k kind, offset int64) error {
	what := "Data cluster"
	if k == kindZeroAllocated && !i.geo.extended {
		what = "Preallocated zero cluster"
	}
	switch {
	case k == kindInvalid:
		return i.corrupt(co, true, -1, -1, "Invalid cluster entry found (L2 offset: %s, L2 index: %s)", hex(s.l2), hex(int64(s.first+n)))
	case i.ours(m) && i.geo.inCluster(m.host()) != 0:
		return i.corrupt(co, true, -1, -1, "%s offset %s unaligned (guest offset: %s)", what, hex(m.host()), hex(offset))
	}
	return nil
}

// sliceForWrite is sliceAt for who changes the entry: it makes the L2 table,
// or copies one that snapshots share.
func (i *image) sliceForWrite(co *aio.Co, offset int64) (slice, error) {
	n := i.geo.l1Index(offset)
	if n >= i.l1.entries {
		return slice{}, qerr.From(syscall.EIO)
	}
	if e := i.l1.get(n); e&offsetMask != 0 && e&flagCopied != 0 {
		return i.sliceAt(co, offset)
	}
	if err := i.needDirtyBit(co); err != nil {
		return slice{}, err
	}
	old, err := i.sliceAt(co, offset) // checks the old offset as well
	if err != nil {
		return slice{}, err
	}
	content, err := i.tableContent(co, old.l2)
	if err != nil {
		return slice{}, err
	}
	at, err := i.alloc(co, 1, "L2 table")
	if err != nil {
		return slice{}, err
	}
	i.tellOfTable()
	// The table is there before anything refers to it: a write-back flushes
	// before it writes the L1 table.
	if err := i.writeMeta(co, at, content, overlapNone); err != nil {
		i.frees.add(at, i.geo.clusterSize, freeOther)
		return slice{}, err
	}
	if old.table != nil {
		i.frees.add(old.l2, i.geo.clusterSize, freeOther)
	}
	i.setL1(n, uint64(at)|flagCopied)
	if err := i.keep(co, at, content); err != nil {
		return slice{}, err
	}
	return i.sliceOf(co, at, offset)
}

// keep puts a table that was just written into the cache: what has written to
// it once is likely to do so again.
func (i *image) keep(co *aio.Co, at int64, content []byte) error {
	for from := int64(0); from < int64(len(content)); from += i.opts.sliceSize {
		if err := i.l2.put(co, at+from, content[from:]); err != nil {
			return err
		}
	}
	return nil
}

// tellOfTable tells of all that the reference writes when it makes an L2 table;
// here the refcounts and the L1 table follow with the next write-back. The
// request is to fail all the same that makes it necessary.
func (i *image) tellOfTable() {
	i.file.Debug(block.DebugL2AllocWrite)
	i.file.Debug(block.DebugRefblockUpdatePart)
	i.file.Debug(block.DebugL2Update)
	i.file.Debug(block.DebugL1Update)
}

// tableContent is a copy of an L2 table, or an empty one. Nobody changes it.
func (i *image) tableContent(co *aio.Co, at int64) ([]byte, error) {
	if at == 0 {
		if i.emptyTable == nil {
			i.emptyTable = block.AlignedMemory(int(i.geo.clusterSize))
		}
		return i.emptyTable, nil
	}
	if err := i.l2.flush(co); err != nil {
		return nil, err
	}
	b := block.AlignedMemory(int(i.geo.clusterSize))
	i.file.Debug(block.DebugL2AllocCowRead)
	return b, i.file.CoPreadv(co, at, block.Vec{b}, 0)
}

// dataCluster is what clusters are taken for, in messages.
const dataCluster = "data cluster"

// alloc takes clusters for something.
func (i *image) alloc(co *aio.Co, n int64, what string) (offset int64, err error) {
	if i.frees.held > maxHeld {
		if err := i.writeBack(co); err != nil {
			return 0, err
		}
	}
	i.file.Debug(block.DebugClusterAlloc)
	offset, err = i.refs.alloc(co, n)
	if err == nil && offset == 0 {
		if what == dataCluster {
			err = i.checkOverlap(co, 0, n<<i.geo.clusterBits, overlapNone)
		}
		if err != nil {
			return 0, err
		}
		return 0, i.corrupt(co, true, -1, -1, "Preventing invalid allocation of %s at offset 0", what)
	}
	i.used(offset + n<<i.geo.clusterBits)
	return offset, err
}

// freeEntry gives up what an entry refers to.
func (i *image) freeEntry(co *aio.Co, m mapping, reason freeReason) {
	if m.compressed() || m.host() != 0 {
		i.file.Debug(block.DebugClusterFree)
	}
	switch {
	case !m.compressed() && !i.external() && i.geo.inCluster(m.host()) != 0:
		_ = i.corrupt(co, false, -1, -1, "Cannot free unaligned cluster %s", hex(m.host()))
	case m.compressed():
		at, bytes := i.geo.compressedAt(m.word)
		i.frees.add(at, bytes, reason)
	case m.host() != 0 && !i.external():
		i.frees.add(m.host(), i.geo.clusterSize, reason)
	}
}
