package block

// Vec is the memory of one request: buffers one after the other.
type Vec [][]byte

// Len is the length of all buffers, in bytes.
func (v Vec) Len() int64 {
	var n int64
	for _, b := range v {
		n += int64(len(b))
	}
	return n
}

// Slice is the part of v from offset on, bytes long. The buffers are shared.
func (v Vec) Slice(offset, bytes int64) Vec {
	if offset == 0 && bytes == v.Len() {
		return v
	}
	var out Vec
	for _, b := range v {
		if bytes == 0 {
			break
		}
		if offset >= int64(len(b)) {
			offset -= int64(len(b))
			continue
		}
		b = b[offset:]
		offset = 0
		if int64(len(b)) > bytes {
			b = b[:bytes]
		}
		out = append(out, b)
		bytes -= int64(len(b))
	}
	return out
}

// CopyFrom fills v from src and returns the number of bytes copied.
func (v Vec) CopyFrom(src []byte) int {
	n := 0
	for _, b := range v {
		k := copy(b, src[n:])
		n += k
		if k < len(b) {
			break
		}
	}
	return n
}

// CopyTo fills dst from v and returns the number of bytes copied.
func (v Vec) CopyTo(dst []byte) int {
	n := 0
	for _, b := range v {
		n += copy(dst[n:], b)
	}
	return n
}

// Zero clears every buffer.
func (v Vec) Zero() {
	for _, b := range v {
		clear(b)
	}
}

// IsZero tells whether every byte is zero.
func (v Vec) IsZero() bool {
	for _, b := range v {
		if !isZero(b) {
			return false
		}
	}
	return true
}

var zeroBlock [4096]byte

func isZero(b []byte) bool {
	for len(b) > len(zeroBlock) {
		if string(b[:len(zeroBlock)]) != string(zeroBlock[:]) {
			return false
		}
		b = b[len(zeroBlock):]
	}
	return string(b) == string(zeroBlock[:len(b)])
}
