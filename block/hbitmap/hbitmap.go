// Package hbitmap is a bitmap in which the next set bit is found at once, how
// far away it may be.
//
// # Units
//
// A bitmap covers a disk in units of its granularity, a power of two. Callers
// speak of bytes: a unit is set when a byte of it is, and cleared only when it
// is cleared whole.
//
// # Levels
//
// The leaves are one bit for each unit. Each bit of the level above says
// whether one word (64 bits) of the level below has a bit set, and so on until
// one word is left. Four levels cover 16 TiB in units of 1 MiB; a search goes
// up and down them, past any number of clear units. Memory of leaves that were
// never touched is not there.
//
// A bitmap is not safe for concurrent use.
package hbitmap

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
)

const (
	wordShift = 6
	wordBits  = 1 << wordShift
	wordMask  = wordBits - 1
)

// Bitmap is a set of units of a disk.
type Bitmap struct {
	size   int64 // of the disk, in bytes
	shift  uint  // log2 of the granularity
	count  int64 // of set units
	levels [][]uint64
}

// New makes an empty bitmap over size bytes. The granularity must be a power
// of two.
func New(size, granularity int64) *Bitmap {
	b := &Bitmap{size: size, shift: uint(bits.TrailingZeros64(uint64(granularity)))}
	b.levels = makeLevels(b.units())
	return b
}

// makeLevels makes the leaves, the last level, and what is above.
func makeLevels(units int64) [][]uint64 {
	var levels [][]uint64
	for {
		units = (units + wordMask) >> wordShift
		levels = append(levels, make([]uint64, max(units, 1)))
		if units <= 1 {
			slices.Reverse(levels)
			return levels
		}
	}
}

// units is the number of units, the last of which may be a partial one.
func (b *Bitmap) units() int64 { return (b.size + b.Granularity() - 1) >> b.shift }

// Size is the length of the disk, in bytes.
func (b *Bitmap) Size() int64 { return b.size }

// Granularity is the length of a unit, in bytes.
func (b *Bitmap) Granularity() int64 { return 1 << b.shift }

// Count is the length of all set units, in bytes; a partial unit at the end
// counts whole.
func (b *Bitmap) Count() int64 { return b.count << b.shift }

// leaves is the level with a bit for each unit.
func (b *Bitmap) leaves() []uint64 { return b.levels[len(b.levels)-1] }

// mask has the bits from first to last.
func mask(first, last int64) uint64 {
	return ^uint64(0) << (first & wordMask) & (^uint64(0) >> (wordMask - last&wordMask))
}

// eachWord calls f for each word that the units from first to last lie in,
// with the bits in question.
func eachWord(first, last int64, f func(word int64, mask uint64)) {
	for word := first >> wordShift; word <= last>>wordShift; word++ {
		f(word, mask(max(first, word<<wordShift), min(last, word<<wordShift|wordMask)))
	}
}

// Set sets the units that the area touches. What lies beyond the end is
// ignored.
func (b *Bitmap) Set(offset, bytes int64) {
	bytes = min(bytes, b.size-offset)
	if bytes <= 0 {
		return
	}
	leaves := b.leaves()
	eachWord(offset>>b.shift, (offset+bytes-1)>>b.shift, func(word int64, mask uint64) {
		old := leaves[word]
		if old|mask == old {
			return
		}
		b.count += int64(bits.OnesCount64(mask &^ old))
		leaves[word] = old | mask
		if old == 0 {
			b.mark(word)
		}
	})
}

// mark says above that a word of the leaves has bits.
func (b *Bitmap) mark(at int64) {
	for level := len(b.levels) - 2; level >= 0; level-- {
		word, bit := at>>wordShift, uint64(1)<<(at&wordMask)
		old := b.levels[level][word]
		b.levels[level][word] = old | bit
		if old != 0 {
			return
		}
		at = word
	}
}

// Reset clears the units that lie in the area whole; the disk's end counts as
// the end of a unit.
func (b *Bitmap) Reset(offset, bytes int64) {
	end := min(offset+bytes, b.size)
	first := (offset + b.Granularity() - 1) >> b.shift
	last := end>>b.shift - 1
	if end == b.size {
		last = b.units() - 1
	}
	if first > last {
		return
	}
	leaves := b.leaves()
	eachWord(first, last, func(word int64, mask uint64) {
		old := leaves[word]
		if old&mask == 0 {
			return
		}
		b.count -= int64(bits.OnesCount64(old & mask))
		leaves[word] = old &^ mask
		if leaves[word] == 0 {
			b.unmark(word)
		}
	})
}

// unmark says above that a word of the leaves has no bits left.
func (b *Bitmap) unmark(at int64) {
	for level := len(b.levels) - 2; level >= 0; level-- {
		word, bit := at>>wordShift, uint64(1)<<(at&wordMask)
		b.levels[level][word] &^= bit
		if b.levels[level][word] != 0 {
			return
		}
		at = word
	}
}

// Clear clears every unit.
func (b *Bitmap) Clear() {
	if b.count > 0 {
		b.levels, b.count = makeLevels(b.units()), 0
	}
}

// Get tells whether the unit at offset is set.
func (b *Bitmap) Get(offset int64) bool {
	unit := offset >> b.shift
	return offset >= 0 && offset < b.size && b.leaves()[unit>>wordShift]&(1<<(unit&wordMask)) != 0
}

// Next finds the first byte from offset on, before offset+bytes, that lies in
// a set unit; -1 if there is none.
func (b *Bitmap) Next(offset, bytes int64) int64 {
	end := b.end(offset, bytes)
	if offset >= end || b.count == 0 {
		return -1
	}
	unit := b.nextUnit(offset >> b.shift)
	if unit < 0 || unit<<b.shift >= end {
		return -1
	}
	return max(offset, unit<<b.shift)
}

// end is the end of an area within the disk.
func (b *Bitmap) end(offset, bytes int64) int64 {
	if bytes > b.size-offset {
		return b.size
	}
	return offset + bytes
}

// nextUnit finds the first set unit from one on: up the levels until a word
// has something to the right, and down again by its lowest bits.
func (b *Bitmap) nextUnit(unit int64) int64 {
	for level := len(b.levels) - 1; level >= 0; level-- {
		word := unit >> wordShift
		if word >= int64(len(b.levels[level])) {
			return -1
		}
		if rest := b.levels[level][word] & (^uint64(0) << (unit & wordMask)); rest != 0 {
			unit = word<<wordShift + int64(bits.TrailingZeros64(rest))
			for level++; level < len(b.levels); level++ {
				unit = unit<<wordShift + int64(bits.TrailingZeros64(b.levels[level][unit]))
			}
			return unit
		}
		unit = word + 1
	}
	return -1
}

// NextZero finds the first byte from offset on, before offset+bytes, that lies
// in a clear unit; -1 if there is none.
func (b *Bitmap) NextZero(offset, bytes int64) int64 {
	end := b.end(offset, bytes)
	if offset >= end {
		return -1
	}
	leaves := b.leaves()
	unit := offset >> b.shift
	for word := unit >> wordShift; word<<wordShift<<b.shift < end; word++ {
		clear := ^leaves[word]
		if word == unit>>wordShift {
			clear &= ^uint64(0) << (unit & wordMask)
		}
		if clear == 0 {
			continue
		}
		at := (word<<wordShift + int64(bits.TrailingZeros64(clear))) << b.shift
		if at >= end {
			return -1
		}
		return max(offset, at)
	}
	return -1
}

// NextArea finds the first run of bytes in set units from offset on, before
// offset+bytes, at most limit long; ok is false if there is none.
func (b *Bitmap) NextArea(offset, bytes, limit int64) (start, length int64, ok bool) {
	end := b.end(offset, bytes)
	start = b.Next(offset, bytes)
	if start < 0 {
		return 0, 0, false
	}
	limit = min(limit, end-start)
	if stop := b.NextZero(start, limit); stop >= 0 {
		return start, stop - start, true
	}
	return start, limit, true
}

// Status tells whether the unit at offset is set and for how many bytes, at
// most bytes, that goes on.
func (b *Bitmap) Status(offset, bytes int64) (set bool, length int64) {
	set = b.Get(offset)
	next := b.Next
	if set {
		next = b.NextZero
	}
	end := b.end(offset, bytes)
	if at := next(offset, end-offset); at >= 0 {
		end = at
	}
	return set, end - offset
}

// Merge sets every unit in which other has a byte set. Granularities may
// differ, sizes must not.
func (b *Bitmap) Merge(other *Bitmap) {
	if b == other {
		return
	}
	for offset := int64(0); ; {
		start, length, ok := other.NextArea(offset, other.size, other.size)
		if !ok {
			return
		}
		b.Set(start, length)
		offset = start + length
	}
}

// Truncate changes the disk's length. What is added is clear.
func (b *Bitmap) Truncate(size int64) {
	n := New(size, b.Granularity())
	for offset := int64(0); ; {
		start, length, ok := b.NextArea(offset, size, size)
		if !ok {
			break
		}
		n.Set(start, length)
		offset = start + length
	}
	*b = *n
}

// Clone returns a copy.
func (b *Bitmap) Clone() *Bitmap {
	c := *b
	c.levels = make([][]uint64, len(b.levels))
	for i, level := range b.levels {
		c.levels[i] = slices.Clone(level)
	}
	return &c
}

// The serialized form of a bitmap is its leaves as little-endian words: one
// bit for each unit, the lowest first.

// SerializedSize is the length of the serialized form, in bytes.
func (b *Bitmap) SerializedSize() int64 { return int64(len(b.leaves())) * 8 }

// Serialize fills dst with the serialized form from a place on, which must be
// a multiple of 8 as must be the length. Beyond the end there are zeroes.
func (b *Bitmap) Serialize(dst []byte, from int64) {
	leaves := b.leaves()
	for i := 0; i < len(dst); i += 8 {
		word := uint64(0)
		if at := (from + int64(i)) / 8; at < int64(len(leaves)) {
			word = leaves[at]
		}
		binary.LittleEndian.PutUint64(dst[i:], word)
	}
}

// Deserialize sets the units of a part of the serialized form; see
// [Bitmap.Serialize]. Bits beyond the end are ignored.
func (b *Bitmap) Deserialize(src []byte, from int64) {
	for i := 0; i+8 <= len(src); i += 8 {
		word := binary.LittleEndian.Uint64(src[i:])
		for word != 0 {
			first := int64(bits.TrailingZeros64(word))
			run := int64(bits.TrailingZeros64(^(word >> first)))
			unit := (from+int64(i))*8 + first
			b.Set(unit<<b.shift, run<<b.shift)
			word &^= mask(first, first+run-1)
		}
	}
}

// SHA256 is the hash of the serialized form.
func (b *Bitmap) SHA256() [sha256.Size]byte {
	h := sha256.New()
	var buf [4096]byte
	for at := int64(0); at < b.SerializedSize(); at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), b.SerializedSize()-at)]
		b.Serialize(part, at)
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
