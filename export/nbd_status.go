package export

import (
	"encoding/binary"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/nbd"
)

// maxExtents bounds the extents of one reply. Clients ask on from where it
// ends.
const maxExtents = (128 << 10) / 8

// extent is an area with one status.
type extent struct {
	length uint64 // in bytes
	flags  uint32
}

// hole tells whether a read need not send the extent.
func (e extent) hole() bool { return e.flags&nbd.StateZero != 0 }

// addExtent appends an extent, or lengthens the last one if that is alike.
func (r *request) addExtent(length uint64, flags uint32) {
	if n := len(r.extents); n > 0 && r.extents[n-1].flags == flags {
		r.extents[n-1].length += length
		return
	}
	r.extents = append(r.extents, extent{length, flags})
}

// findHoles fills the extents with what a read has to send: a chunk for each
// answer of the node, even where two are alike (observed).
func (r *request) findHoles(co *aio.Co, b *block.Backend) error {
	for done := uint64(0); done < r.Length; {
		st, _, err := b.CoBlockStatusAbove(co, nil, false, true, int64(r.Offset+done), int64(r.Length-done))
		if err != nil {
			return err
		}
		length := uint64(st.Bytes)
		if length == 0 {
			length = r.Length - done // behind the end of a node that has shrunk
		}
		r.extents = append(r.extents, extent{length, allocation(st) & nbd.StateZero})
		done += length
	}
	return nil
}

// allocation translates the status of base:allocation.
func allocation(st block.Status) uint32 {
	flags := uint32(0)
	if st.Flags&block.StatusData == 0 {
		flags |= nbd.StateHole
	}
	if st.Flags&block.StatusZero != 0 {
		flags |= nbd.StateZero
	}
	return flags
}

// blockStatus asks for each context and encodes the answers.
func (r *request) blockStatus(co *aio.Co, b *block.Backend) error {
	r.status = r.status[:0]
	for i, m := range r.metas {
		var err error
		switch m.ID {
		case idAllocation:
			err = r.allocations(co, b)
		case idAllocationDepth:
			err = r.depths(co, b)
		default:
			err = r.dirt(r.client.export.bitmaps[m.ID-idBitmap])
		}
		if err != nil {
			return err
		}
		r.encodeStatus(m, i == len(r.metas)-1)
	}
	return nil
}

// collect asks for extents until there are enough. ask tells of the area that
// begins at an offset how far its flags go.
func (r *request) collect(ask func(offset, bytes int64) (length int64, flags uint32, err error)) error {
	r.extents = r.extents[:0]
	enough := maxExtents
	if r.Flags&nbd.CmdFlagReqOne != 0 {
		enough = 1
	}
	for done := uint64(0); done < r.Length; {
		length, flags, err := ask(int64(r.Offset+done), int64(r.Length-done))
		if err != nil {
			return err
		}
		if length == 0 {
			length = int64(r.Length - done)
		}
		before := len(r.extents)
		r.addExtent(uint64(length), flags)
		if len(r.extents) > enough {
			// The one that is too much is asked for again.
			r.extents = r.extents[:before]
			break
		}
		done += uint64(length)
	}
	return nil
}

func (r *request) allocations(co *aio.Co, b *block.Backend) error {
	return r.collect(func(offset, bytes int64) (int64, uint32, error) {
		st, _, err := b.CoBlockStatusAbove(co, nil, false, true, offset, bytes)
		return st.Bytes, allocation(st), err
	})
}

func (r *request) depths(co *aio.Co, b *block.Backend) error {
	return r.collect(func(offset, bytes int64) (int64, uint32, error) {
		depth, length, err := b.CoIsAllocatedAbove(co, nil, false, offset, bytes)
		return length, uint32(depth), err
	})
}

// dirt asks a bitmap.
func (r *request) dirt(bm *block.DirtyBitmap) error {
	return r.collect(func(offset, bytes int64) (length int64, flags uint32, err error) {
		bm.Use(func(bits *hbitmap.Bitmap) {
			var dirty bool
			if dirty, length = bits.Status(offset, bytes); dirty {
				flags = nbd.StateDirty
			}
		})
		return length, flags, nil
	})
}

// encodeStatus appends the chunk of one context.
func (r *request) encodeStatus(m nbd.MetaContext, last bool) {
	var flags nbd.ReplyFlags
	if last {
		flags = nbd.ReplyDone
	}
	c := nbd.Chunk{Flags: flags, Type: nbd.ReplyBlockStatus, Cookie: r.Cookie, Offset: r.Offset}
	n := uint64(len(r.extents))
	mode := r.client.mode
	if mode == nbd.Extended {
		c.Type, c.Length = nbd.ReplyBlockStatusExt, 8+16*n
		r.status = mode.AppendChunk(r.status, c)
		r.status = binary.BigEndian.AppendUint32(r.status, m.ID)
		r.status = binary.BigEndian.AppendUint32(r.status, uint32(n))
		for _, e := range r.extents {
			r.status = binary.BigEndian.AppendUint64(r.status, e.length)
			r.status = binary.BigEndian.AppendUint64(r.status, uint64(e.flags))
		}
		return
	}
	c.Length = 4 + 8*n
	r.status = mode.AppendChunk(r.status, c)
	r.status = binary.BigEndian.AppendUint32(r.status, m.ID)
	for _, e := range r.extents {
		r.status = binary.BigEndian.AppendUint32(r.status, uint32(e.length))
		r.status = binary.BigEndian.AppendUint32(r.status, e.flags)
	}
}
