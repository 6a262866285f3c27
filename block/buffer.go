package block

import (
	"math/bits"
	"sync"
	"unsafe"
)

// buffer is bounce memory, aligned for direct I/O.
type buffer struct {
	b     []byte
	class int
}

// bufferPools hold free buffers by size class, powers of two from 512 bytes to
// 1 MiB. They are caches without content of their own.
var bufferPools [12]sync.Pool

const minBufferShift = 9

// getBuffer returns aligned memory of the given size, in bytes, with whatever
// content.
func getBuffer(size int64) *buffer {
	class := max(bits.Len64(uint64(max(size, 1)-1))-minBufferShift, 0)
	if class >= len(bufferPools) {
		return &buffer{b: AlignedMemory(int(size)), class: -1}
	}
	if buf, ok := bufferPools[class].Get().(*buffer); ok {
		buf.b = buf.b[:size]
		return buf
	}
	return &buffer{b: AlignedMemory(1 << (class + minBufferShift))[:size], class: class}
}

func putBuffer(buf *buffer) {
	if buf.class >= 0 {
		buf.b = buf.b[:cap(buf.b)]
		bufferPools[buf.class].Put(buf)
	}
}

// AlignedMemory allocates memory fit for direct I/O.
func AlignedMemory(size int) []byte {
	raw := make([]byte, size+defaultMemAlignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(raw)))) & (defaultMemAlignment - 1)
	return raw[skip : skip+size : skip+size]
}
