package qcow2

import (
	"errors"
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	extHeaderSize  = 8
	extBitmapsSize = 24
)

// setExtension says in the header where the bitmaps are; a count of 0 says that
// there are none. At every point the header is whole, and names bitmaps that
// are there or none: the feature bit is set last and cleared first, and what is
// changed while it is set lies in one sector.
func (i *image) setExtension(co *aio.Co, e bitmapsExtension) error {
	cluster := block.AlignedMemory(int(i.geo.clusterSize))
	if err := i.file.CoPreadv(co, 0, block.Vec{cluster}, 0); err != nil {
		return err
	}
	at, end := i.hdr.findBitmaps(cluster)
	var err error
	switch {
	case e.count == 0 && at < 0:
	case e.count == 0:
		err = i.removeExtension(co, cluster, at, end)
	case at >= 0:
		err = i.replaceExtension(co, at, e)
	default:
		err = i.insertExtension(co, cluster, end, e)
	}
	if err != nil {
		return err
	}
	i.hdr.keepBitmaps(e)
	if e.count == 0 {
		return nil
	}
	return i.setBitmapsBit(co, true)
}

// findBitmaps finds the extension for bitmaps, -1 if there is none, and the end
// of all extensions, where the end marker is or would be.
func (h *header) findBitmaps(cluster []byte) (at, end int64) {
	at, end = -1, int64(h.length)
	// They were read when the image was opened.
	_ = h.eachExtension(cluster, func(e extension) error {
		if e.kind == extBitmaps {
			at = end
		}
		end += extHeaderSize + (int64(len(e.data))+7)&^7
		return nil
	})
	return at, end
}

// keepBitmaps notes what the header says of bitmaps.
func (h *header) keepBitmaps(e bitmapsExtension) {
	h.extensions = slices.DeleteFunc(h.extensions, func(x extension) bool { return x.kind == extBitmaps })
	if e.count > 0 {
		h.extensions = append(h.extensions, extension{extBitmaps, e.format()})
	}
	h.bitmaps, h.staleBitmaps = e, false
}

func (e *bitmapsExtension) format() []byte {
	b := make([]byte, extBitmapsSize)
	be.PutUint32(b, e.count)
	be.PutUint64(b[8:], e.directorySize)
	be.PutUint64(b[16:], e.directoryOffset)
	return b
}

// setBitmapsBit sets or clears, durably, the feature bit that makes the
// extension count.
func (i *image) setBitmapsBit(co *aio.Co, on bool) error {
	v := i.hdr.autoclear &^ autoclearBitmaps
	if on {
		v |= autoclearBitmaps
	}
	if v == i.hdr.autoclear {
		return nil
	}
	b := make([]byte, 8)
	be.PutUint64(b, v)
	if err := i.writeDurably(co, offsetAutoclear, b); err != nil {
		return err
	}
	i.hdr.autoclear = v
	return nil
}

func (i *image) writeDurably(co *aio.Co, offset int64, b []byte) error {
	if err := i.writeHeader(co, offset, b); err != nil {
		return err
	}
	return i.barrier(co)
}

func (i *image) replaceExtension(co *aio.Co, at int64, e bitmapsExtension) error {
	at += extHeaderSize
	if at/sectorSize != (at+extBitmapsSize-1)/sectorSize {
		if err := i.setBitmapsBit(co, false); err != nil {
			return err
		}
	}
	return i.writeDurably(co, at, e.format())
}

// removeExtension ends the extensions where this one begins, or moves those
// that follow.
func (i *image) removeExtension(co *aio.Co, cluster []byte, at, end int64) error {
	if err := i.setBitmapsBit(co, false); err != nil {
		return err
	}
	rest := slices.Concat(cluster[at+extHeaderSize+extBitmapsSize:end], make([]byte, extHeaderSize))
	return i.writeDurably(co, at, rest)
}

// insertExtension puts the extension behind the others: first what lies behind
// its own header, then that header, which was the end marker.
func (i *image) insertExtension(co *aio.Co, cluster []byte, at int64, e bitmapsExtension) error {
	end := at + 2*extHeaderSize + extBitmapsSize
	err := i.clearArea(co, cluster, end)
	if errors.Is(err, syscall.ENOSPC) {
		// The header is nearly full: all of it is written anew, at once.
		return i.updateHeader(co, func(h *header) { h.keepBitmaps(e) })
	}
	if err != nil {
		return err
	}
	behind := append(e.format(), make([]byte, extHeaderSize)...)
	if err := i.writeDurably(co, at+extHeaderSize, behind); err != nil {
		return err
	}
	return i.writeDurably(co, at, appendExtension(nil, extBitmaps, e.format())[:extHeaderSize])
}

// clearArea makes room for extensions up to end: the backing file's name moves
// to where neither they nor it were.
func (i *image) clearArea(co *aio.Co, cluster []byte, end int64) error {
	h := i.hdr
	if end > i.geo.clusterSize {
		return qerr.From(syscall.ENOSPC)
	}
	from, size := int64(h.backingOffset), int64(h.backingSize)
	if from == 0 || from >= end {
		return nil
	}
	to := (max(end, from+size) + 7) &^ 7
	if to+size > i.geo.clusterSize {
		return qerr.From(syscall.ENOSPC)
	}
	if err := i.writeDurably(co, to, cluster[from:from+size]); err != nil {
		return err
	}
	b := make([]byte, 8)
	be.PutUint64(b, uint64(to))
	if err := i.writeDurably(co, offsetBacking, b); err != nil {
		return err
	}
	h.backingOffset = uint64(to)
	return nil
}
