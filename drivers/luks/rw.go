package luks

import (
	"sync"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
)

// maxBounce is how many bytes of a request are copied at a time.
const maxBounce = 1 << 20

// bounces hold free memory for copies, aligned for direct I/O: pieces of
// smallBounce and maxBounce bytes. They are caches without content of their
// own.
var bounces [2]sync.Pool

const smallBounce = 64 << 10

// bounce is memory for a copy of so many bytes.
type bounce struct {
	b     []byte
	class int
}

func getBounce(size int64) *bounce {
	class, room := 0, smallBounce
	if size > smallBounce {
		class, room = 1, maxBounce
	}
	if b, ok := bounces[class].Get().(*bounce); ok {
		return b
	}
	return &bounce{block.AlignedMemory(room), class}
}

func (b *bounce) put() { bounces[b.class].Put(b) }

// CoPreadv decrypts in the request's own buffers, if each holds whole sectors.
func (v *volume) CoPreadv(co *aio.Co, offset int64, vec block.Vec, flags block.ReqFlags) error {
	for _, b := range vec {
		if len(b)%crypto.SectorSize != 0 {
			return v.readBounced(co, offset, vec, flags)
		}
	}
	if err := v.file.CoPreadv(co, v.payload+offset, vec, flags); err != nil {
		return err
	}
	for _, b := range vec {
		v.Decrypt(b, offset)
		offset += int64(len(b))
	}
	return nil
}

// readBounced decrypts in a copy.
func (v *volume) readBounced(co *aio.Co, offset int64, vec block.Vec, flags block.ReqFlags) error {
	return v.pieces(offset, vec, func(offset int64, part block.Vec, b []byte) error {
		if err := v.file.CoPreadv(co, v.payload+offset, block.Vec{b}, flags); err != nil {
			return err
		}
		v.Decrypt(b, offset)
		part.CopyFrom(b)
		return nil
	})
}

// CoPwritev encrypts a copy: the buffers of a write belong to the caller.
func (v *volume) CoPwritev(co *aio.Co, offset int64, vec block.Vec, flags block.ReqFlags) error {
	return v.pieces(offset, vec, func(offset int64, part block.Vec, b []byte) error {
		part.CopyTo(b)
		v.Encrypt(b, offset)
		return v.file.CoPwritev(co, v.payload+offset, block.Vec{b}, flags)
	})
}

// pieces runs f for each part of a request, with memory of its length.
func (v *volume) pieces(offset int64, vec block.Vec, f func(offset int64, part block.Vec, b []byte) error) error {
	total := vec.Len()
	mem := getBounce(total)
	defer mem.put()
	for at := int64(0); at < total; {
		n := min(total-at, int64(len(mem.b)))
		if err := f(offset+at, vec.Slice(at, n), mem.b[:n]); err != nil {
			return err
		}
		at += n
	}
	return nil
}
