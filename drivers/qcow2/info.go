package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// Specific is what only images of this format have.
type Specific struct {
	// Compat is the version of the format: "0.10" or "1.1".
	Compat          string
	RefcountBits    int64
	CompressionType string
	Bitmaps         []Bitmap
	// Encrypt is nil if the data is plain.
	Encrypt *Encryption
	// V3 is what version 1.1 has besides, nil for older images.
	V3 *SpecificV3
}

// SpecificV3 is what only newer images have.
type SpecificV3 struct {
	LazyRefcounts, Corrupt, ExtendedL2 bool
	// DataFile is the name of the external data file that the image
	// remembers.
	DataFile              string
	External, DataFileRaw bool
}

// Bitmap is a persistent bitmap.
type Bitmap struct {
	Name        string
	Granularity int64 // bytes
	InUse, Auto bool
}

// CoGetInfo tells the geometry.
func (i *image) CoGetInfo(co *aio.Co) (block.DriverInfo, error) {
	i.mu.lock(co)
	defer i.mu.unlock()
	perL1 := uint64(i.geo.clusterSize) << i.geo.l2Bits
	return block.DriverInfo{
		ClusterSize:    i.geo.clusterSize,
		SubclusterSize: i.geo.subSize,
		VMStateOffset:  int64(i.hdr.l1Needed(i.hdr.size) * perL1),
		Dirty:          i.hdr.incompatible&featureDirty != 0,
	}, nil
}

// SpecificInfo tells what only images of this format have.
func (i *image) SpecificInfo(co *aio.Co) (*block.SpecificInfo, error) {
	i.mu.lock(co)
	defer i.mu.unlock()
	if i.directoryErr != nil {
		return nil, i.directoryErr
	}
	h := i.hdr
	info := Specific{
		Compat:          "0.10",
		RefcountBits:    1 << h.refcountOrder,
		CompressionType: compressionNames[h.compression],
		Bitmaps:         i.listBitmaps(),
		Encrypt:         i.describeCrypt(),
	}
	if h.version >= 3 {
		info.Compat = "1.1"
		info.V3 = &SpecificV3{
			LazyRefcounts: h.compatible&featureLazy != 0,
			Corrupt:       h.incompatible&featureCorrupt != 0,
			ExtendedL2:    h.extendedL2(),
			DataFile:      h.dataFile,
			External:      i.external(),
			DataFileRaw:   h.dataRaw(),
		}
	}
	return &block.SpecificInfo{Type: "qcow2", Data: info}, nil
}
