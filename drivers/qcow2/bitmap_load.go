package qcow2

import (
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
)

// maxLoadedBitmaps bounds the memory of all bitmaps of an image, in bytes: a
// few tables full of zeroes can claim any number of large ones.
const maxLoadedBitmaps = 4 << 30

// adoptBitmaps makes the image's bitmaps those of the node, and marks them as
// in use if they are about to change. Bitmaps that were made while the node was
// inactive are stored first. Inconsistent ones that the node has kept from before
// stay where they are.
func (i *image) adoptBitmaps(co *aio.Co) error {
	if !i.node.Active() {
		return nil
	}
	known := make(map[string]*block.DirtyBitmap)
	for _, b := range i.node.DirtyBitmaps() {
		known[b.Name()] = b
	}
	for n := range i.bitmaps {
		b := &i.bitmaps[n]
		if d := known[b.name]; d != nil && !keeps(d, b) || findBitmap(i.bitmaps, b.name) != n {
			return qerr.New("Bitmap already exists: %s", b.name)
		}
	}
	if i.writable() {
		if err := i.storeBitmaps(co); err != nil {
			return err
		}
	}
	loaded, err := i.readBitmaps(co, known)
	if err != nil {
		return err
	}
	if i.writable() {
		if err := i.markInUse(co); err != nil {
			return err
		}
		i.node.ReleaseDirtyBitmaps(storable) // they were loaded again
	}
	i.node.AddDirtyBitmaps(loaded...)
	return nil
}

// keeps tells whether the node's bitmap d is what it has kept of the image's
// bitmap b.
func keeps(d *block.DirtyBitmap, b *bitmap) bool {
	return d.Inconsistent() && b.flags&bitmapInUse != 0
}

// readBitmaps makes bitmaps of what is in the image, the last one first, but for
// those kept.
func (i *image) readBitmaps(co *aio.Co, known map[string]*block.DirtyBitmap) ([]*block.DirtyBitmap, error) {
	var loaded []*block.DirtyBitmap
	room := int64(maxLoadedBitmaps)
	for n := range i.bitmaps {
		b := &i.bitmaps[n]
		if d := known[b.name]; d != nil && keeps(d, b) {
			continue
		}
		if room -= i.size.Load() >> b.granularity / 8; room < 0 {
			return nil, qerr.WithErrno(syscall.ENOMEM, "Could not read bitmap '%s' from image", b.name)
		}
		bits, err := i.readBitmap(co, b)
		if err != nil {
			return nil, err
		}
		d := block.NewDirtyBitmap(i.node, b.name, bits)
		d.SetPersistent(true)
		d.SetReadOnly(i.node.ReadOnly())
		d.SetEnabled(b.flags&bitmapAuto != 0)
		if b.flags&bitmapInUse != 0 {
			d.SetInconsistent()
		}
		loaded = append(loaded, d)
	}
	slices.Reverse(loaded)
	return loaded, nil
}

// readBitmapTable reads the table that says where the bitmap's clusters are.
func (i *image) readBitmapTable(co *aio.Co, b *bitmap) ([]uint64, error) {
	table, err := i.readTable(co, b.tableOffset, int64(b.tableSize))
	for _, e := range table {
		if at := e & offsetMask; e&^(offsetMask|1) != 0 || at != 0 && (e&1 != 0 || i.geo.inCluster(int64(at)) != 0) {
			err = qerr.From(syscall.EINVAL)
		}
	}
	if err != nil {
		return nil, qerr.Prepend(err, "Could not read bitmap_table table from image for bitmap '"+b.name+"': ")
	}
	return table, nil
}

// readBitmap reads the content of a bitmap. That of one in use is worth
// nothing.
func (i *image) readBitmap(co *aio.Co, b *bitmap) (*hbitmap.Bitmap, error) {
	length, err := i.CoGetLength(co)
	if err != nil {
		return nil, err
	}
	bits := hbitmap.New(length, 1<<b.granularity)
	if b.flags&bitmapInUse != 0 {
		return bits, nil
	}
	table, err := i.readBitmapTable(co, b)
	if err != nil {
		return nil, err
	}
	if int64(len(table)) != i.bitmapClusters(length, bits.Granularity()) {
		return nil, qerr.WithErrno(syscall.EINVAL, "Could not read bitmap '%s' from image", b.name)
	}
	data := block.AlignedMemory(int(i.geo.clusterSize))
	for n, e := range table {
		from := int64(n) << i.geo.clusterBits
		at := int64(e & offsetMask)
		switch {
		case at == 0 && e&1 != 0:
			covered := i.covered(bits.Granularity())
			bits.Set(int64(n)*covered, covered)
		case at != 0:
			if err := i.file.CoPreadv(co, at, block.Vec{data}, 0); err != nil {
				return nil, qerr.Prepend(err, "Could not read bitmap '"+b.name+"' from image: ")
			}
			bits.Deserialize(data, from)
		}
	}
	return bits, nil
}

// covered is the part of the disk of which a cluster of the bitmap tells, in
// bytes.
func (i *image) covered(granularity int64) int64 { return i.geo.clusterSize * 8 * granularity }

// bitmapClusters is the number of entries of a bitmap's table.
func (i *image) bitmapClusters(size, granularity int64) int64 {
	covered := i.covered(granularity)
	n := size / covered
	if size%covered != 0 {
		n++
	}
	return n
}

// markInUse says in the image that its bitmaps may be out of date, before they
// are. Nothing but a flag in each entry changes, so the directory keeps its
// place.
func (i *image) markInUse(co *aio.Co) error {
	list, changed := slices.Clone(i.bitmaps), false
	for n := range list {
		changed = changed || list[n].flags&bitmapInUse == 0
		list[n].flags |= bitmapInUse
	}
	if changed {
		if err := i.writeMeta(co, int64(i.hdr.bitmaps.directoryOffset), formatDirectory(list), overlapBitmaps); err != nil {
			return qerr.Prepend(err, "Can't update bitmap directory: ")
		}
		if err := i.barrier(co); err != nil {
			return qerr.Prepend(err, "Can't update bitmap directory: ")
		}
	}
	i.bitmaps, i.unmarked = list, false
	return nil
}
