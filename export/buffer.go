package export

import (
	"math/bits"
	"sync"

	"github.com/qmpblock/qmpblock/block"
)

// headroom is the room before the data in which a reply's header is put, so
// that both leave in one piece. It keeps the data aligned for direct I/O.
const headroom = 4096

// buffer is memory for the data of one request.
type buffer struct {
	mem   []byte // with the headroom
	class int
}

// The sizes of data are rounded up to powers of two.
const (
	minBufferShift = 12
	maxBufferShift = 25 // nbd.MaxPayload
)

// bufferPools hold free memory by size. They are caches without content.
var bufferPools [maxBufferShift - minBufferShift + 1]sync.Pool

// getBuffer returns memory for size bytes of data, with whatever content.
func getBuffer(size uint64) *buffer {
	class := max(bits.Len64(max(size, 1)-1)-minBufferShift, 0)
	if b, ok := bufferPools[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{mem: block.AlignedMemory(headroom + 1<<(class+minBufferShift)), class: class}
}

func (b *buffer) free() { bufferPools[b.class].Put(b) }

// data is the memory behind the headroom.
func (b *buffer) data(size uint64) []byte { return b.mem[headroom : headroom+size : headroom+size] }

// prefixed is the data with header in front of it, in the headroom.
func (b *buffer) prefixed(header []byte, size uint64) []byte {
	start := headroom - len(header)
	copy(b.mem[start:], header)
	return b.mem[start : headroom+size]
}
