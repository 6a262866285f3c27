package block

import (
	"math/bits"
	"sync"
	"unsafe"
)

// Buffer is memory B for the data of one request, aligned for direct I/O. It is
// used again once it is free.
type Buffer struct {
	B     []byte
	class int
}

// bufferPools hold free buffers by size class, powers of two from 512 bytes to
// 64 MiB. They are caches without content of their own.
var bufferPools [18]sync.Pool

const minBufferShift = 9

// GetBuffer returns a buffer of the given size, in bytes, with whatever content.
func GetBuffer(size int64) *Buffer {
	class := max(bits.Len64(uint64(max(size, 1)-1))-minBufferShift, 0)
	if class >= len(bufferPools) {
		return &Buffer{B: AlignedMemory(int(size)), class: -1}
	}
	if buf, ok := bufferPools[class].Get().(*Buffer); ok {
		buf.B = buf.B[:size]
		return buf
	}
	return &Buffer{B: AlignedMemory(1 << (class + minBufferShift))[:size], class: class}
}

// Free gives the buffer back, which nobody may use any more.
func (b *Buffer) Free() {
	if b.class >= 0 {
		b.B = b.B[:cap(b.B)]
		bufferPools[b.class].Put(b)
	}
}

// AlignedMemory allocates memory fit for direct I/O.
func AlignedMemory(size int) []byte {
	raw := make([]byte, size+defaultMemAlignment)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(raw)))) & (defaultMemAlignment - 1)
	return raw[skip : skip+size : skip+size]
}
