package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// bitmap is a persistent dirty bitmap, as the image's directory describes it.
type bitmap struct {
	tableOffset uint64
	tableSize   uint32
	flags       uint32
	granularity uint8 // binary logarithm of the bytes
	name        string
}

// The flags of a bitmap.
const (
	bitmapInUse = 1 << iota
	bitmapAuto
	bitmapExtraCompatible

	bitmapFlags = bitmapInUse | bitmapAuto | bitmapExtraCompatible
)

const (
	bitmapEntrySize      = 24
	bitmapTypeDirty      = 1
	minBitmapGranularity = 9
	maxBitmapGranularity = 31
	maxBitmapName        = 1023
	maxBitmapTable       = 0x8000000
)

// loadBitmaps reads the directory of bitmaps.
func (i *image) loadBitmaps(co *aio.Co) error {
	i.bitmaps = nil
	ext := i.hdr.bitmaps
	if ext.count == 0 {
		return nil
	}
	if ext.directorySize == 0 {
		return qerr.New("Requested bitmap directory size is zero")
	}
	dir := block.AlignedMemory(int(ext.directorySize))
	if err := i.file.CoPreadv(co, int64(ext.directoryOffset), block.Vec{dir}, 0); err != nil {
		return qerr.Prepend(err, "Failed to read bitmap directory: ")
	}
	for len(dir) > 0 {
		if len(dir) < bitmapEntrySize {
			return qerr.New("Broken bitmap directory")
		}
		nameLen, extraLen := int(be.Uint16(dir[18:])), int64(be.Uint32(dir[20:]))
		size := (bitmapEntrySize + extraLen + int64(nameLen) + 7) &^ 7
		if size > int64(len(dir)) {
			return qerr.New("Broken bitmap directory")
		}
		if uint32(len(i.bitmaps)) == ext.count {
			return qerr.New("More bitmaps found than specified in header extension")
		}
		at := bitmapEntrySize + int(extraLen)
		b := bitmap{
			tableOffset: be.Uint64(dir), tableSize: be.Uint32(dir[8:]), flags: be.Uint32(dir[12:]),
			granularity: dir[17], name: string(dir[at : at+nameLen]),
		}
		if extraLen != 0 {
			return qerr.New("Bitmap extra data is not supported")
		}
		if !i.validBitmap(&b, dir[16]) {
			return qerr.New("Bitmap '%s' doesn't satisfy the constraints", b.name)
		}
		i.bitmaps = append(i.bitmaps, b)
		dir = dir[size:]
	}
	if uint32(len(i.bitmaps)) != ext.count {
		return qerr.New("Less bitmaps found than specified in header extension")
	}
	return nil
}

func (i *image) validBitmap(b *bitmap, kind uint8) bool {
	size := uint64(i.geo.clusterSize)
	ok := b.tableSize != 0 && b.tableOffset != 0 && b.tableOffset%size == 0 && len(b.name) != 0 &&
		len(b.name) <= maxBitmapName && b.tableSize <= maxBitmapTable && b.flags&^bitmapFlags == 0 &&
		b.granularity >= minBitmapGranularity && b.granularity <= maxBitmapGranularity && kind == bitmapTypeDirty
	if !ok {
		return false
	}
	covered := uint64(b.tableSize) * size << 3 << b.granularity
	return b.flags&bitmapInUse != 0 || covered >= i.hdr.size
}

// listBitmaps describes the bitmaps that can be trusted to be those of the
// image.
func (i *image) listBitmaps() []Bitmap {
	var list []Bitmap
	for _, b := range i.bitmaps {
		list = append(list, Bitmap{
			Name: b.name, Granularity: 1 << b.granularity,
			InUse: b.flags&bitmapInUse != 0, Auto: b.flags&bitmapAuto != 0,
		})
	}
	return list
}
