package qcow2

import (
	"iter"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// l1Page is a part of an L1 table, as long as a page of memory.
type l1Page [4096 / 8]uint64

// l1Table is the active L1 table, all of it in memory. It grows with the disk,
// not with what is in there, so pages without an entry take none.
type l1Table struct {
	entries int
	pages   []*l1Page // nil if all entries are 0
}

func newL1(entries int) l1Table {
	return l1Table{entries, make([]*l1Page, (entries+len(l1Page{})-1)/len(l1Page{}))}
}

// bytes is the length in the file.
func (t *l1Table) bytes() int64 { return int64(t.entries) * 8 }

func (t *l1Table) get(n int) uint64 {
	if p := t.pages[n/len(l1Page{})]; p != nil {
		return p[n%len(l1Page{})]
	}
	return 0
}

func (t *l1Table) set(n int, v uint64) {
	p := &t.pages[n/len(l1Page{})]
	if *p == nil {
		*p = new(l1Page)
	}
	(*p)[n%len(l1Page{})] = v
}

// used lists the entries that are not 0. They may be changed meanwhile.
func (t *l1Table) used() iter.Seq2[int, uint64] {
	return func(yield func(int, uint64) bool) {
		for k, p := range t.pages {
			if p == nil {
				continue
			}
			for n := range p {
				if p[n] != 0 && !yield(k*len(p)+n, p[n]) {
					return
				}
			}
		}
	}
}

// parts are the pages that have entries.
func (t *l1Table) parts() [][]uint64 {
	var parts [][]uint64
	for _, p := range t.pages {
		if p != nil {
			parts = append(parts, p[:])
		}
	}
	return parts
}

// decode takes over entries, from one that begins a page on.
func (t *l1Table) decode(first int, raw []byte) {
	const size = len(l1Page{}) * 8
	for k := first / len(l1Page{}); len(raw) > 0; k++ {
		part := raw[:min(len(raw), size)]
		raw = raw[len(part):]
		if (block.Vec{part}).IsZero() {
			continue
		}
		t.pages[k] = new(l1Page)
		for n := range len(part) / 8 {
			t.pages[k][n] = be.Uint64(part[n*8:])
		}
	}
}

// encode is the table as it is in the file, with some flags cleared.
func (t *l1Table) encode(clear uint64) []byte {
	raw := block.AlignedMemory(int(t.bytes()))
	for n, e := range t.used() {
		be.PutUint64(raw[n*8:], e&^clear)
	}
	return raw
}

// longer is a copy with more entries.
func (t *l1Table) longer(entries int) l1Table {
	l := newL1(entries)
	copy(l.pages, t.pages)
	return l
}

// l1Piece is how much of the table is read at once, in bytes: memory for more
// would cost more than the reading.
const l1Piece = 128 << 10

// loadL1 reads the table, and notes which L2 tables it names.
func (i *image) loadL1(co *aio.Co) error {
	i.l1Dirty = make(map[int64]struct{})
	i.l1 = newL1(int(i.hdr.l1Size))
	raw := block.AlignedMemory(int(min(i.l1.bytes(), l1Piece)))
	for at := int64(0); at < i.l1.bytes(); at += l1Piece {
		part := raw[:min(i.l1.bytes()-at, l1Piece)]
		if err := i.file.CoPreadv(co, int64(i.hdr.l1Offset)+at, block.Vec{part}, 0); err != nil {
			return qerr.Prepend(err, "Could not read L1 table: ")
		}
		i.l1.decode(int(at/8), part)
	}
	i.tables = offsetsOf(offsetMask, i.l1.parts()...)
	return nil
}

// setL1 changes an entry of the L1 table, in memory until the next write-back.
func (i *image) setL1(n int, v uint64) {
	if old := int64(i.l1.get(n) & offsetMask); old != 0 {
		i.tables.remove(old)
	}
	if at := int64(v & offsetMask); at != 0 {
		i.tables.add(at)
	}
	i.l1.set(n, v)
	i.l1Dirty[int64(n)*8/sectorSize] = struct{}{}
}
