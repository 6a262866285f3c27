package chardev

import (
	"bytes"
	stdbase64 "encoding/base64"
	"sync"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qom/base64"
)

// maxRingbuf is the largest ring buffer, in bytes. The reference has no limit
// and dies of a size it cannot allocate.
const maxRingbuf = 1 << 30

// ringbuf keeps the newest bytes that a frontend or ringbuf-write wrote.
type ringbuf struct {
	*stream
	mu   sync.Mutex
	size int
	data []byte // as many bytes as came yet, at most size
	next int    // place of the next byte in data, when it has its full size
	n    int    // bytes not read yet
}

func newRingbuf(name string, b *Ringbuf) (device, error) {
	size := int64(65536)
	if b.Size != nil {
		size = *b.Size
	}
	switch {
	case size&(size-1) != 0:
		return nil, qerr.New("size of ringbuf chardev must be power of two")
	case size < 0 || size > maxRingbuf:
		return nil, qerr.New("size of ringbuf chardev must be at most %d", maxRingbuf)
	}
	r := &ringbuf{size: int(size)}
	r.stream = newStream(name, nil, r)
	return r, nil
}

// Write adds bytes; the oldest give way.
func (r *ringbuf) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	written := len(p)
	if r.size == 0 {
		return written, nil
	}
	p = p[max(0, len(p)-r.size):]
	if room := r.size - len(r.data); room > 0 && r.next == len(r.data) {
		// The buffer grows to its size only as it is used.
		k := min(room, len(p))
		r.data = append(r.data, p[:k]...)
		r.advance(k)
		p = p[k:]
	}
	for len(p) > 0 {
		k := copy(r.data[r.next:], p)
		r.advance(k)
		p = p[k:]
	}
	return written, nil
}

func (r *ringbuf) advance(k int) {
	r.next = (r.next + k) % r.size
	r.n = min(r.n+k, r.size)
}

// read takes out the oldest bytes, limit at most.
func (r *ringbuf) read(limit int64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := int(min(limit, int64(r.n)))
	out := make([]byte, 0, k)
	start := (r.next - r.n + r.size) % max(r.size, 1)
	out = append(out, r.data[start:min(start+k, len(r.data))]...)
	out = append(out, r.data[:k-len(out)]...)
	r.n -= k
	return out
}

// RingbufWrite writes text to a ring buffer, or what the base64 text stands
// for.
func (s *Set) RingbufWrite(label, text string, isBase64 bool) error {
	r, err := s.ringbuf(label)
	if err != nil {
		return err
	}
	data := []byte(text)
	if isBase64 {
		if data, err = base64.Decode(data); err != nil {
			return err
		}
	}
	_, err = r.Write(data)
	return err
}

// RingbufRead takes the oldest bytes out of a ring buffer, size at most. As
// text it returns what is in front of a zero byte, and the rest is lost.
func (s *Set) RingbufRead(label string, size int64, asBase64 bool) (string, error) {
	r, err := s.ringbuf(label)
	if err != nil {
		return "", err
	}
	if size <= 0 {
		return "", qerr.New("size must be greater than zero")
	}
	data := r.read(size)
	if asBase64 {
		return stdbase64.StdEncoding.EncodeToString(data), nil
	}
	data, _, _ = bytes.Cut(data, []byte{0})
	return string(data), nil
}
