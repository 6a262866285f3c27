package luks

import (
	"sync"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
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

// CoPreadv decrypts in the request's own buffers.
func (v *volume) CoPreadv(co *aio.Co, offset int64, vec block.Vec, flags block.ReqFlags) error {
	if err := v.file.CoPreadv(co, v.payload+offset, vec, flags); err != nil {
		return err
	}
	v.DecryptVec(vec, offset)
	return nil
}

// CoPwritev encrypts a copy, piece by piece: the buffers of a write belong to
// the caller.
func (v *volume) CoPwritev(co *aio.Co, offset int64, vec block.Vec, flags block.ReqFlags) error {
	total := vec.Len()
	mem := getBounce(total)
	defer mem.put()
	for done := int64(0); done < total; {
		b := mem.b[:min(total-done, int64(len(mem.b)))]
		vec.Slice(done, int64(len(b))).CopyTo(b)
		v.Encrypt(b, offset+done)
		if err := v.file.CoPwritev(co, v.payload+offset+done, block.Vec{b}, flags); err != nil {
			return err
		}
		done += int64(len(b))
	}
	return nil
}
