package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// minNamedCluster is the smallest cluster, in bytes, in which the reference
// leaves room for the names of features (observed).
const minNamedCluster = 8192

// The kinds of features, as the table of their names knows them.
const (
	kindIncompatible = iota
	kindCompatible
	kindAutoclear
)

// features are the names that programs which do not know a feature tell users.
var features = []struct {
	kind, bit byte
	name      string
}{
	{kindIncompatible, 0, "dirty bit"},
	{kindIncompatible, 1, "corrupt bit"},
	{kindIncompatible, 2, "external data file"},
	{kindIncompatible, 3, "compression type"},
	{kindIncompatible, 4, "extended L2 entries"},
	{kindCompatible, 0, "lazy refcounts"},
	{kindAutoclear, 0, "bitmaps"},
	{kindAutoclear, 1, "raw external data"},
}

// appendFixed appends the fields of the header.
func (h *header) appendFixed(b []byte) []byte {
	b = be.AppendUint32(b, magic)
	b = be.AppendUint32(b, h.version)
	b = be.AppendUint64(b, h.backingOffset)
	b = be.AppendUint32(b, h.backingSize)
	b = be.AppendUint32(b, h.clusterBits)
	b = be.AppendUint64(b, h.size)
	b = be.AppendUint32(b, h.cryptMethod)
	b = be.AppendUint32(b, h.l1Size)
	b = be.AppendUint64(b, h.l1Offset)
	b = be.AppendUint64(b, h.refTableOffset)
	b = be.AppendUint32(b, h.refTableClusters)
	b = be.AppendUint32(b, h.snapshots)
	b = be.AppendUint64(b, h.snapshotsOffset)
	if h.version < 3 {
		return b
	}
	b = be.AppendUint64(b, h.incompatible)
	b = be.AppendUint64(b, h.compatible)
	b = be.AppendUint64(b, h.autoclear)
	b = be.AppendUint32(b, h.refcountOrder)
	b = be.AppendUint32(b, headerSizeMax+uint32(len(h.unknown)))
	b = append(b, h.compression)
	b = append(b, make([]byte, headerSizeMax-len(b))...)
	return append(b, h.unknown...)
}

// appendExtension appends one that ends where the next may begin.
func appendExtension(b []byte, kind uint32, data []byte) []byte {
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&7)...)
}

// appendExtensions appends what the header says besides its fields, in the
// reference's order, and then the extensions we do not know.
func (h *header) appendExtensions(b []byte) []byte {
	if h.backingFormat != "" {
		b = appendExtension(b, extBackingFormat, []byte(h.backingFormat))
	}
	if h.hasDataFileName {
		b = appendExtension(b, extDataFile, []byte(h.dataFile))
	}
	if h.haveCrypto {
		b = appendExtension(b, extCrypto, be.AppendUint64(be.AppendUint64(nil, h.cryptoOffset), h.cryptoLength))
	}
	if h.version >= 3 && h.clusterSize() >= minNamedCluster {
		b = appendExtension(b, extFeatureNames, featureNames())
	}
	for _, e := range h.extensions {
		switch e.kind {
		case extBackingFormat, extCrypto, extDataFile, extFeatureNames:
		default:
			b = appendExtension(b, e.kind, e.data)
		}
	}
	return appendExtension(b, extEnd, nil)
}

func featureNames() []byte {
	table := make([]byte, 0, len(features)*featureNameSize)
	for _, f := range features {
		var entry [featureNameSize]byte
		entry[0], entry[1] = f.kind, f.bit
		copy(entry[2:], f.name)
		table = append(table, entry[:]...)
	}
	return table
}

// encode is the image's first cluster. It fails with ENOSPC if not all that it
// has to hold fits.
func (h *header) encode() ([]byte, error) {
	b := h.appendExtensions(h.appendFixed(nil))
	if h.namesBacking() {
		h.backingOffset, h.backingSize = uint64(len(b)), uint32(len(h.backing))
		b = append(b, h.backing...)
	}
	if int64(len(b)) > h.clusterSize() {
		return nil, qerr.From(syscall.ENOSPC)
	}
	cluster := block.AlignedMemory(int(h.clusterSize()))
	copy(cluster, b)
	h.appendFixed(cluster[:0]) // with the place of the name
	return cluster, nil
}

// namesBacking tells whether there is a name of a backing file, which may be
// empty.
func (h *header) namesBacking() bool { return h.backing != "" || h.backingOffset != 0 }

// updateHeader writes the image's whole header anew, as change has it. If it
// does not fit nothing has changed.
func (i *image) updateHeader(co *aio.Co, change func(*header)) error {
	next := *i.hdr
	change(&next)
	b, err := next.encode()
	if err != nil {
		return err
	}
	if err := i.writeMeta(co, 0, b, overlapHeader); err != nil {
		return err
	}
	*i.hdr = next
	return i.barrier(co)
}

// setBacking makes the header name a backing file. What a format's name is too
// long for is cut off (observed: own/snapshots/filters).
func (h *header) setBacking(name, format string) {
	h.backing, h.backingFormat = name, format[:min(len(format), maxFormatName-1)]
	h.backingOffset = headerSizeMax // not 0: encode finds its place
}
