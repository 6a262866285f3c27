package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"

	"github.com/qmpblock/qmpblock/qerr"
)

const (
	magic         = 0x514649fb // "QFI\xfb"
	headerSizeV2  = 72
	headerSizeV3  = 104
	headerSizeMax = 112 // what we know of

	minClusterBits = 9
	maxClusterBits = 21

	// The longest tables that are accepted, in bytes.
	maxL1Size       = 32 << 20
	maxRefTableSize = 8 << 20
	maxSnapshots    = 65536
	maxBackingName  = 1023
	maxSnapTable    = 64 << 20
	maxBitmaps      = 65535
	maxBitmapDir    = maxBitmaps * 1024
	maxFormatName   = 16
)

// Where single fields are in the header.
const (
	offsetBacking      = 8
	offsetL1Size       = 36
	offsetRefTable     = 48
	offsetIncompatible = 72
	offsetAutoclear    = 88
	offsetSize         = 24
	offsetSnapshots    = 60
)

// Incompatible features.
const (
	featureDirty = 1 << iota
	featureCorrupt
	featureDataFile
	featureCompression
	featureExtendedL2

	featuresKnown = featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2
)

// A compatible feature, and those that who does not know them clears.
const (
	featureLazy = 1

	autoclearBitmaps = 1
	autoclearDataRaw = 2
)

// Compression types.
const (
	compressDeflate = iota
	compressZstd
)

var compressionNames = []string{compressDeflate: "zlib", compressZstd: "zstd"}

// Encryption methods.
const (
	cryptNone = iota
	cryptAES
	cryptLUKS
)

// header is the image's first cluster, but for the backing file's name.
type header struct {
	version          uint32
	backingOffset    uint64
	backingSize      uint32
	clusterBits      uint32
	size             uint64
	cryptMethod      uint32
	l1Size           uint32
	l1Offset         uint64
	refTableOffset   uint64
	refTableClusters uint32
	snapshots        uint32
	snapshotsOffset  uint64
	incompatible     uint64
	compatible       uint64
	autoclear        uint64
	refcountOrder    uint32
	length           uint32
	compression      uint8
	unknown          []byte // fields behind those we know
	extensions       []extension
	backing          string
	backingTooLong   bool
	backingFormat    string
	dataFile         string
	hasDataFileName  bool
	bitmaps          bitmapsExtension
	// staleBitmaps: there are some, but somebody who does not know them
	// has written to the image.
	staleBitmaps bool
	cryptoOffset uint64
	cryptoLength uint64
	haveCrypto   bool
	featureNames []byte
}

// extension is a header extension, with the type as it is in the file.
type extension struct {
	kind uint32
	data []byte
}

// The header extensions.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
	extBitmaps       = 0x23852875
	extCrypto        = 0x0537be77
	extDataFile      = 0x44415441
)

// bitmapsExtension says where the image's bitmaps are.
type bitmapsExtension struct {
	count           uint32
	directorySize   uint64
	directoryOffset uint64
}

// be is the byte order of everything in an image.
var be = binary.BigEndian

// parseHeader reads the fixed part; b holds headerSizeMax bytes. The texts of
// all errors are the reference's.
func parseHeader(b []byte) (*header, error) {
	h := &header{
		version:          be.Uint32(b[4:]),
		backingOffset:    be.Uint64(b[8:]),
		backingSize:      be.Uint32(b[16:]),
		clusterBits:      be.Uint32(b[20:]),
		size:             be.Uint64(b[offsetSize:]),
		cryptMethod:      be.Uint32(b[32:]),
		l1Size:           be.Uint32(b[offsetL1Size:]),
		l1Offset:         be.Uint64(b[40:]),
		refTableOffset:   be.Uint64(b[offsetRefTable:]),
		refTableClusters: be.Uint32(b[56:]),
		snapshots:        be.Uint32(b[offsetSnapshots:]),
		snapshotsOffset:  be.Uint64(b[64:]),
		refcountOrder:    4,
		length:           headerSizeV2,
	}
	switch {
	case be.Uint32(b) != magic:
		return nil, qerr.New("Image is not in qcow2 format")
	case h.version != 2 && h.version != 3:
		return nil, qerr.New("Unsupported qcow2 version %d", h.version)
	case h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits:
		return nil, qerr.New("Unsupported cluster size: 2^%d", h.clusterBits)
	}
	if h.version == 2 {
		return h, nil
	}
	h.incompatible = be.Uint64(b[offsetIncompatible:])
	h.compatible = be.Uint64(b[80:])
	h.autoclear = be.Uint64(b[offsetAutoclear:])
	h.refcountOrder = be.Uint32(b[96:])
	h.length = be.Uint32(b[100:])
	if h.length < headerSizeV3 {
		return nil, qerr.New("qcow2 header too short")
	}
	if h.length > 1<<h.clusterBits {
		return nil, qerr.New("qcow2 header exceeds cluster size")
	}
	if h.length > headerSizeV3 {
		h.compression = b[headerSizeV3]
	}
	return h, nil
}

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// extensionsEnd is where the area of extensions ends: the name of the backing
// file follows.
func (h *header) extensionsEnd() (int64, error) {
	if h.backingOffset > uint64(h.clusterSize()) {
		return 0, qerr.New("Invalid backing file offset")
	}
	if h.backingOffset != 0 {
		return int64(h.backingOffset), nil
	}
	return h.clusterSize(), nil
}

// parseFeatures refuses features that we do not know, by the names that the
// image gives them.
func (h *header) parseFeatures(cluster []byte) error {
	if h.length > headerSizeMax {
		h.unknown = bytes.Clone(cluster[headerSizeMax:h.length])
	}
	if unknown := h.incompatible &^ featuresKnown; unknown != 0 {
		names := featureTable(h.findExtension(cluster, extFeatureNames))
		return qerr.WithErrnoOnly(syscall.ENOTSUP, "Unsupported qcow2 feature(s): %s", nameFeatures(names, unknown))
	}
	return nil
}

// findExtension looks for one extension; garbage is no error here.
func (h *header) findExtension(cluster []byte, kind uint32) []byte {
	var found []byte
	_ = h.eachExtension(cluster, func(e extension) error {
		if e.kind == kind && found == nil {
			found = e.data
		}
		return nil
	})
	return found
}

// eachExtension visits the extensions between header and backing file name.
func (h *header) eachExtension(cluster []byte, f func(extension) error) error {
	end, err := h.extensionsEnd()
	if err != nil {
		return err
	}
	at := int64(h.length)
	for at < end && at+8 <= int64(len(cluster)) {
		kind, size := be.Uint32(cluster[at:]), int64(be.Uint32(cluster[at+4:]))
		at += 8
		if at > end || size > end-at {
			return qerr.New("Header extension too large")
		}
		if kind == extEnd {
			return nil
		}
		if err := f(extension{kind, cluster[at : at+size]}); err != nil {
			return err
		}
		at += (size + 7) &^ 7
	}
	return nil
}

// parseExtensions reads all extensions and keeps those we do not know. openLUKS
// is called when the place of a LUKS header is known.
func (h *header) parseExtensions(cluster []byte, openLUKS func() error) error {
	return h.eachExtension(cluster, func(e extension) error {
		e.data = bytes.Clone(e.data)
		h.extensions = append(h.extensions, e)
		switch e.kind {
		case extBackingFormat:
			if len(e.data) >= maxFormatName {
				return qerr.New("ERROR: ext_backing_format: len=%d too large (>=%d)", len(e.data), maxFormatName)
			}
			h.backingFormat = cString(e.data)
		case extFeatureNames:
			h.featureNames = e.data
		case extDataFile:
			h.dataFile, h.hasDataFileName = cString(e.data), true
		case extCrypto:
			if err := h.parseCrypto(e.data); err != nil {
				return err
			}
			return openLUKS()
		case extBitmaps:
			return h.parseBitmaps(e.data)
		}
		return nil
	})
}

func (h *header) parseCrypto(data []byte) error {
	if h.cryptMethod != cryptLUKS {
		return qerr.New("CRYPTO header extension only expected with LUKS encryption method")
	}
	if len(data) != 16 {
		return qerr.New("CRYPTO header extension size %d, but expected size 16", len(data))
	}
	h.cryptoOffset, h.cryptoLength, h.haveCrypto = be.Uint64(data), be.Uint64(data[8:]), true
	if h.cryptoOffset%uint64(h.clusterSize()) != 0 {
		return qerr.New("Encryption header offset '%d' is not a multiple of cluster size '%d'", h.cryptoOffset, h.clusterSize())
	}
	return nil
}

// parseBitmaps: what the extension says counts only if its feature bit is set.
func (h *header) parseBitmaps(data []byte) error {
	if len(data) != 24 {
		return qerr.New("bitmaps_ext: Invalid extension length")
	}
	if h.autoclear&autoclearBitmaps == 0 {
		h.staleBitmaps = true
		return nil
	}
	b := bitmapsExtension{be.Uint32(data), be.Uint64(data[8:]), be.Uint64(data[16:])}
	switch {
	case be.Uint32(data[4:]) != 0:
		return qerr.New("bitmaps_ext: Reserved field is not zero")
	case b.count > maxBitmaps:
		return qerr.New("bitmaps_ext: Image has %d bitmaps, exceeding the QEMU supported maximum of %d", b.count, maxBitmaps)
	case b.count == 0:
		return qerr.New("found bitmaps extension with zero bitmaps")
	case b.directoryOffset%uint64(h.clusterSize()) != 0:
		return qerr.New("bitmaps_ext: invalid bitmap directory offset")
	case b.directorySize > maxBitmapDir:
		return qerr.New("bitmaps_ext: bitmap directory size (%d) exceeds the maximum supported size (%d)",
			b.directorySize, maxBitmapDir)
	}
	h.bitmaps = b
	return nil
}

// parseBacking reads the name of the backing file. That it is too long is
// reported when all else is in order.
func (h *header) parseBacking(cluster []byte) {
	if h.backingOffset == 0 {
		return
	}
	room := min(uint64(maxBackingName), uint64(h.clusterSize())-h.backingOffset)
	if uint64(h.backingSize) > room {
		h.backingTooLong = true
		return
	}
	h.backing = cString(cluster[h.backingOffset : h.backingOffset+uint64(h.backingSize)])
}

// cString is text up to its first zero byte.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// featureName is an entry of the table of feature names.
type featureName struct {
	bit  uint8
	name string
}

const featureNameSize = 48

// featureTable lists the names of incompatible features.
func featureTable(data []byte) []featureName {
	var names []featureName
	for ; len(data) >= featureNameSize; data = data[featureNameSize:] {
		if data[0] == 0 && data[1] < 64 {
			names = append(names, featureName{data[1], cString(data[2:featureNameSize])})
		}
	}
	return names
}

func nameFeatures(names []featureName, set uint64) string {
	var parts []string
	for _, f := range names {
		if f.name != "" && set&(1<<f.bit) != 0 {
			parts = append(parts, f.name)
			set &^= 1 << f.bit
		}
	}
	if set != 0 {
		parts = append(parts, fmt.Sprintf("Unknown incompatible feature: %x", set))
	}
	return strings.Join(parts, ", ")
}

// checkGeometry checks the fields that say where the tables are.
func (h *header) checkGeometry(refuseAES bool) error {
	if sub := h.subclusterSize(); sub < minSubcluster {
		return qerr.New("Unsupported subcluster size: %d", sub)
	}
	if h.refcountOrder > 6 {
		return qerr.New("Reference count entry width too large; may not exceed 64 bits")
	}
	if h.cryptMethod == cryptAES && refuseAES {
		return qerr.New("Use of AES-CBC encrypted qcow2 images is no longer supported in system emulators")
	}
	if h.refTableClusters == 0 {
		return qerr.New("Image does not contain a reference count table")
	}
	if err := h.checkTable(h.refTableOffset, uint64(h.refTableClusters), uint64(h.clusterSize()), maxRefTableSize, "Reference count table"); err != nil {
		return err
	}
	if err := h.checkTable(h.snapshotsOffset, uint64(h.snapshots), snapshotSize, snapshotSize*maxSnapshots, "Snapshot table"); err != nil {
		return err
	}
	if err := h.checkTable(h.l1Offset, uint64(h.l1Size), 8, maxL1Size, "Active L1 table"); err != nil {
		return err
	}
	needed := h.l1Needed(h.size)
	if needed > maxInt32 {
		return qerr.WithErrnoOnly(syscall.EFBIG, "Image is too big")
	}
	if uint64(h.l1Size) < needed {
		return qerr.New("L1 table is too small")
	}
	return nil
}

const maxInt32 = 1<<31 - 1

// checkTable checks a table's length and place.
func (h *header) checkTable(offset, entries, entrySize, most uint64, what string) error {
	if entries > most/entrySize {
		return qerr.WithErrnoOnly(syscall.EFBIG, "%s too large", what)
	}
	if size := entries * entrySize; offset > 1<<63-1-size || offset%uint64(h.clusterSize()) != 0 {
		return qerr.New("%s offset invalid", what)
	}
	return nil
}

// checkCompression: type and feature bit must agree.
func (h *header) checkCompression() error {
	bit := h.incompatible&featureCompression != 0
	switch {
	case int(h.compression) >= len(compressionNames):
		return qerr.WithErrnoOnly(syscall.ENOTSUP, "qcow2: unknown compression type: %d", h.compression)
	case h.compression == compressDeflate && bit:
		return qerr.New("qcow2: Compression type incompatible feature bit must not be set")
	case h.compression != compressDeflate && !bit:
		return qerr.New("qcow2: Compression type incompatible feature bit must be set")
	}
	return nil
}

func (h *header) extendedL2() bool { return h.incompatible&featureExtendedL2 != 0 }
func (h *header) dataRaw() bool    { return h.autoclear&autoclearDataRaw != 0 }

// l2EntrySize is the length of an entry of an L2 table, in bytes.
func (h *header) l2EntrySize() int64 {
	if h.extendedL2() {
		return 16
	}
	return 8
}

const (
	subclusters   = 32 // of a cluster, with extended L2 entries
	minSubcluster = 512
)

func (h *header) subclusterSize() int64 {
	if h.extendedL2() {
		return h.clusterSize() / subclusters
	}
	return h.clusterSize()
}

// l1Needed is the number of L1 entries that a disk of the given size takes. For
// sizes near 2^64 it wraps, as in the reference; these are refused later.
func (h *header) l1Needed(size uint64) uint64 {
	perEntry := uint64(h.clusterSize()) * uint64(h.clusterSize()/h.l2EntrySize())
	return (size + perEntry - 1) / perEntry
}
