package qcow2

import (
	"math/bits"
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
)

// storable tells whether the image should come to hold a bitmap as it is now.
func storable(b *block.DirtyBitmap) bool {
	return b.Persistent() && !b.Inconsistent() && !b.ReadOnly()
}

// storeBitmaps writes the node's persistent bitmaps to the image: their
// content where nothing refers to yet, then a directory that names it, then
// the header. Inconsistent ones stay as they are. Nothing has changed if it
// fails, but for clusters that are leaked at worst.
func (i *image) storeBitmaps(co *aio.Co) error {
	list := slices.Clone(i.bitmaps)
	var written, replaced []bitmap
	for _, d := range i.toStore() {
		b, err := i.storeBitmap(co, d, list)
		if err != nil {
			i.freeBitmaps(co, written)
			return err
		}
		written = append(written, b)
		if n := findBitmap(list, b.name); n >= 0 {
			replaced = append(replaced, list[n])
			list[n] = b
		} else {
			list = append(list, b)
		}
	}
	if len(written) == 0 {
		return nil
	}
	if err := i.writeDirectory(co, list); err != nil {
		return err
	}
	i.freeBitmaps(co, replaced)
	return i.writeBack(co)
}

// toStore lists the bitmaps to store: those that the image knows, in its order,
// then the others.
func (i *image) toStore() []*block.DirtyBitmap {
	list := slices.DeleteFunc(slices.Clone(i.node.DirtyBitmaps()), func(b *block.DirtyBitmap) bool { return !storable(b) })
	places := make(map[string]int)
	for n := range i.bitmaps {
		places[i.bitmaps[n].name] = n
	}
	place := func(b *block.DirtyBitmap) int {
		if n, ok := places[b.Name()]; ok {
			return n
		}
		return len(i.bitmaps)
	}
	slices.SortStableFunc(list, func(a, b *block.DirtyBitmap) int { return place(a) - place(b) })
	return list
}

func (i *image) freeBitmaps(co *aio.Co, list []bitmap) {
	for n := range list {
		i.freeBitmap(co, &list[n])
	}
}

// storeBitmap writes a bitmap for a directory that holds list.
func (i *image) storeBitmap(co *aio.Co, d *block.DirtyBitmap, list []bitmap) (b bitmap, err error) {
	if !i.writable() {
		return b, qerr.New("No write access")
	}
	b = bitmap{name: d.Name(), granularity: uint8(bits.TrailingZeros64(uint64(d.Granularity())))}
	if d.Enabled() {
		b.flags = bitmapAuto
	}
	if findBitmap(list, b.name) < 0 {
		if err := i.canStore(list, b.name, d.Granularity()); err != nil {
			return b, err
		}
	}
	return b, i.writeBitmap(co, &b, d)
}

// writeBitmap writes the content of a bitmap and its table.
func (i *image) writeBitmap(co *aio.Co, b *bitmap, d *block.DirtyBitmap) error {
	if d.Size() == 0 {
		return qerr.From(syscall.EINVAL) // a table cannot be empty
	}
	table := block.AlignedMemory(int(i.bitmapClusters(d.Size(), d.Granularity())) * 8)
	err := i.writeBitmapData(co, d, table)
	var at int64
	if err == nil {
		at, err = i.writeFresh(co, table, "bitmap table")
	}
	if err != nil {
		for n := 0; n < len(table); n += 8 {
			i.freeBitmapArea(int64(be.Uint64(table[n:])), i.geo.clusterSize, freeNever)
		}
		return err
	}
	b.tableOffset, b.tableSize = uint64(at), uint32(len(table)/8)
	return nil
}

// writeBitmapData writes those clusters of a bitmap that are not all clear, and
// fills the table. The node is not written to meanwhile.
func (i *image) writeBitmapData(co *aio.Co, d *block.DirtyBitmap, table []byte) error {
	data := block.AlignedMemory(int(i.geo.clusterSize))
	size, covered := d.Size(), i.covered(d.Granularity())
	for from := int64(0); from < size; {
		var n int64
		d.Use(func(bits *hbitmap.Bitmap) {
			if from = bits.Next(from, size-from); from >= 0 {
				n = from / covered
				bits.Serialize(data, n<<i.geo.clusterBits)
			}
		})
		if from < 0 {
			return nil
		}
		at, err := i.writeFresh(co, data, "bitmap data")
		if err != nil {
			return err
		}
		be.PutUint64(table[n*8:], uint64(at))
		if size/covered == n {
			return nil // the next one would begin behind all disks
		}
		from = (n + 1) * covered
	}
	return nil
}
