package qcow2

// geometry is how an image is divided; it never changes.
type geometry struct {
	clusterBits uint
	clusterSize int64
	// l2Bits is the binary logarithm of the number of entries in an L2
	// table, sliceBits that of the entries which the cache holds together.
	l2Bits, sliceBits uint
	entrySize         int64
	// subBits is that of a subcluster's size; without extended L2 entries a
	// cluster is its own only subcluster.
	subBits  uint
	subSize  int64
	extended bool
	// external says that the data is in a file of its own.
	external bool
	// refBits is that of the number of refcounts in a block, refOrder that
	// of a refcount's width in bits.
	refBits, refOrder uint
	version           uint32
}

func newGeometry(h *header) geometry {
	g := geometry{
		clusterBits: uint(h.clusterBits),
		clusterSize: h.clusterSize(),
		entrySize:   h.l2EntrySize(),
		subSize:     h.subclusterSize(),
		extended:    h.extendedL2(),
		external:    h.incompatible&featureDataFile != 0,
		refOrder:    uint(h.refcountOrder),
		version:     h.version,
	}
	g.l2Bits = g.clusterBits - 3
	g.subBits = g.clusterBits
	if g.extended {
		g.l2Bits--
		g.subBits -= 5
	}
	g.refBits = g.clusterBits + 3 - g.refOrder
	return g
}

func (g *geometry) setSlice(bytes int64) {
	g.sliceBits = log2(uint64(bytes / g.entrySize))
}

func log2(n uint64) uint {
	b := uint(0)
	for n > 1 {
		n >>= 1
		b++
	}
	return b
}

func (g *geometry) l1Index(offset int64) int { return int(offset >> (g.clusterBits + g.l2Bits)) }

func (g *geometry) l2Index(offset int64) int {
	return int(offset>>g.clusterBits) & (1<<g.l2Bits - 1)
}

// sliceFirst is the index of the first entry in the slice with an offset's.
func (g *geometry) sliceFirst(offset int64) int {
	return g.l2Index(offset) &^ (1<<g.sliceBits - 1)
}

func (g *geometry) inCluster(offset int64) int64 { return offset & (g.clusterSize - 1) }
func (g *geometry) clusterStart(o int64) int64   { return o &^ (g.clusterSize - 1) }
func (g *geometry) clusterEnd(o int64) int64     { return (o + g.clusterSize - 1) &^ (g.clusterSize - 1) }
func (g *geometry) clusters(bytes int64) int64   { return g.clusterEnd(bytes) >> g.clusterBits }
func (g *geometry) subStart(o int64) int64       { return o &^ (g.subSize - 1) }
func (g *geometry) subEnd(o int64) int64         { return (o + g.subSize - 1) &^ (g.subSize - 1) }
func (g *geometry) maxRefcount() uint64 {
	if g.refOrder == 6 {
		return 1<<63 - 1 // as the reference, which keeps the sign free
	}
	return 1<<(1<<g.refOrder) - 1
}

// The parts of L1 and L2 entries.
const (
	flagCopied     = 1 << 63
	flagCompressed = 1 << 62
	flagZero       = 1
	offsetMask     = 0x00fffffffffffe00
	reservedL1     = 0x7f000000000001ff
	reservedL2     = 0x3f000000000001fe
	reservedRef    = 0x1ff
	// maxHostOffset is the end of what L1 and L2 entries can point to.
	maxHostOffset = 1 << 56
)

// mapping is an L2 entry: the word that every format has, and the bitmap of
// extended entries (allocated subclusters below, zero ones above).
type mapping struct {
	word   uint64
	bitmap uint64
}

func (m mapping) compressed() bool { return m.word&flagCompressed != 0 }
func (m mapping) copied() bool     { return m.word&flagCopied != 0 }
func (m mapping) host() int64      { return int64(m.word & offsetMask) }

// allocated tells whether an entry holds a cluster of its own. With an external
// data file the offset 0 is one, if the flag says so.
func (g *geometry) allocated(m mapping) bool {
	return !m.compressed() && (m.host() != 0 || g.external && m.copied())
}

// kind is what is found at a guest's offset.
type kind uint8

const (
	// kindUnallocated: the backing file is read, or zeroes.
	kindUnallocated kind = iota
	// kindReserved: the same, but there is room in a cluster of the file.
	kindReserved
	// kindZero: zeroes, without room in the file.
	kindZero
	// kindZeroAllocated: zeroes, with room.
	kindZeroAllocated
	// kindNormal: data in the file.
	kindNormal
	// kindCompressed: a compressed cluster.
	kindCompressed
	// kindInvalid: an entry that means nothing.
	kindInvalid
)

// kindOf is the kind of a subcluster.
func (g *geometry) kindOf(m mapping, sub uint) kind {
	if m.compressed() {
		return kindCompressed
	}
	if !g.extended {
		switch {
		case m.word&flagZero != 0 && g.allocated(m):
			return kindZeroAllocated
		case m.word&flagZero != 0:
			return kindZero
		case g.allocated(m):
			return kindNormal
		}
		return kindUnallocated
	}
	alloc, zero := m.bitmap>>sub&1 != 0, m.bitmap>>(sub+subclusters)&1 != 0
	switch {
	case alloc && (zero || !g.allocated(m)):
		return kindInvalid
	case alloc:
		return kindNormal
	case zero && g.allocated(m):
		return kindZeroAllocated
	case zero:
		return kindZero
	case g.allocated(m):
		return kindReserved
	}
	return kindUnallocated
}

// sub is the number of the subcluster at an offset.
func (g *geometry) sub(offset int64) uint {
	return uint(g.inCluster(offset) >> g.subBits)
}

// subMask is the set of subclusters that an area within a cluster touches.
func (g *geometry) subMask(from, to int64) uint64 {
	if !g.extended {
		return 1
	}
	first, last := uint(from>>g.subBits), uint((to-1)>>g.subBits)
	return (1<<(last+1) - 1) &^ (1<<first - 1)
}

const allSubs = 1<<subclusters - 1

// compressedAt tells where a compressed cluster's data lies: it ends with
// the last sector that the entry names.
func (g *geometry) compressedAt(word uint64) (offset, bytes int64) {
	shift := 62 - (g.clusterBits - 8)
	offset = int64(word & (1<<shift - 1) & (maxHostOffset - 1))
	sectors := int64(word>>shift&(1<<(g.clusterBits-8)-1)) + 1
	return offset, sectors*sectorSize - offset&(sectorSize-1)
}

// compressedWord is the entry for compressed data.
func (g *geometry) compressedWord(offset, bytes int64) uint64 {
	shift := 62 - (g.clusterBits - 8)
	sectors := (offset+bytes-1)/sectorSize - offset/sectorSize
	return uint64(offset) | uint64(sectors)<<shift | flagCompressed
}

// maxCompressed is the end of where compressed data can be.
func (g *geometry) maxCompressed() int64 {
	return min(int64(1)<<(62-(g.clusterBits-8)), maxHostOffset)
}

const sectorSize = 512
