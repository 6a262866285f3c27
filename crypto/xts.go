package crypto

import "encoding/binary"

// xtsBlock is the only length of blocks that XTS works with, in bytes.
const xtsBlock = 16

// xts holds the masks of a sector's blocks. They are made first and combined
// with the whole sector at once, which takes a third of the time of going
// block by block. golang.org/x/crypto/xts does that, and takes no
// initialization vector but a sector's number.
type xts [SectorSize / 8]uint64

// start makes the masks: each is the one before times x in GF(2^128), where
// x^128 = x^7 + x^2 + x + 1 (IEEE 1619-2007, 5.2).
func (x *xts) start(first []byte) {
	lo, hi := binary.LittleEndian.Uint64(first), binary.LittleEndian.Uint64(first[8:])
	for n := 0; n < len(x); n += 2 {
		x[n], x[n+1] = lo, hi
		carry := uint64(int64(hi)>>63) & 0x87
		lo, hi = lo<<1^carry, hi<<1|lo>>63
	}
}

// mask combines a sector with the masks.
func (x *xts) mask(b []byte) {
	b = b[:SectorSize]
	for n := range x {
		word := b[n*8 : n*8+8]
		binary.LittleEndian.PutUint64(word, binary.LittleEndian.Uint64(word)^x[n])
	}
}
