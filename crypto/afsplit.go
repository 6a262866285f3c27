package crypto

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// The anti-forensic splitter spreads a key over stripes such that all are
// needed to get it back (LUKS1 On-Disk Format, 2.4). luksy has one of its own,
// which it does not show.

// afSplit spreads a key over its stripes.
func afSplit(key []byte, h hash.Hash) []byte {
	material := make([]byte, len(key)*stripes)
	last := material[len(key)*(stripes-1):]
	rand.Read(material[:len(material)-len(last)])
	subtle.XORBytes(last, key, afDiffuse(material, len(key), h))
	return material
}

// afMerge is the reverse of afSplit.
func afMerge(material []byte, h hash.Hash) []byte {
	n := len(material) / stripes
	key := afDiffuse(material, n, h)
	subtle.XORBytes(key, key, material[n*(stripes-1):])
	return key
}

// afDiffuse is what all stripes but the last, n bytes each, make of zeroes.
func afDiffuse(material []byte, n int, h hash.Hash) []byte {
	block := make([]byte, n)
	sum := make([]byte, 0, h.Size())
	for stripe := range stripes - 1 {
		subtle.XORBytes(block, block, material[stripe*n:][:n])
		var number [4]byte
		for at := 0; at < n; at += h.Size() {
			part := block[at:min(at+h.Size(), n)]
			h.Reset()
			h.Write(number[:])
			h.Write(part)
			sum = h.Sum(sum[:0])
			copy(part, sum)
			binary.BigEndian.PutUint32(number[:], binary.BigEndian.Uint32(number[:])+1)
		}
	}
	return block
}
