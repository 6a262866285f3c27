package file

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoPreadv reads with one system call where the kernel plays along. What lies
// behind the end of the file reads as zeroes.
func (n *node) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if flags&block.ReqImmediate != 0 {
		return n.file.readImmediate(offset, v)
	}
	co.BeginBlocking()
	defer co.EndBlocking()
	if n.file.aligned(v) {
		return n.file.read(offset, v)
	}
	return n.bounced(v, func(buf block.Vec, at int64) error {
		if err := n.file.read(offset+at, buf); err != nil {
			return err
		}
		v.Slice(at, buf.Len()).CopyFrom(buf[0])
		return nil
	})
}

// CoPwritev writes.
func (n *node) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if flags&block.ReqImmediate != 0 {
		return n.file.writeImmediate(offset, v)
	}
	co.BeginBlocking()
	defer co.EndBlocking()
	if n.file.aligned(v) {
		return n.file.write(offset, v)
	}
	return n.bounced(v, func(buf block.Vec, at int64) error {
		v.Slice(at, buf.Len()).CopyTo(buf[0])
		return n.file.write(offset+at, buf)
	})
}

func (d *descriptor) read(offset int64, v block.Vec) error {
	total := v.Len()
	for done := int64(0); done < total; {
		n, err := d.preadv(v.Slice(done, total-done), offset+done)
		switch {
		case err == unix.EINTR:
			continue
		case n == 0 && err == nil, err == unix.EINVAL && done > 0 && d.direct():
			// The end; a short read has left an offset there that O_DIRECT
			// may not like.
			v.Slice(done, total-done).Zero()
			return nil
		case err != nil:
			return qerr.From(err)
		}
		done += int64(n)
	}
	return nil
}

func (d *descriptor) write(offset int64, v block.Vec) error {
	total := v.Len()
	for done := int64(0); done < total; {
		n, err := d.pwritev(v.Slice(done, total-done), offset+done)
		switch {
		case err == unix.EINTR:
			continue
		case n == 0 && err == nil:
			return qerr.From(unix.ENOSPC)
		case err != nil:
			return qerr.From(err)
		}
		done += int64(n)
	}
	return nil
}

func (d *descriptor) preadv(v block.Vec, offset int64) (int, error) {
	if len(v) == 1 {
		return unix.Pread(d.fd, v[0], offset)
	}
	return unix.Preadv(d.fd, v[:min(len(v), maxIov)], offset)
}

func (d *descriptor) pwritev(v block.Vec, offset int64) (int, error) {
	if len(v) == 1 {
		return unix.Pwrite(d.fd, v[0], offset)
	}
	return unix.Pwritev(d.fd, v[:min(len(v), maxIov)], offset)
}

// aligned tells whether memory can be handed to the kernel as it is.
func (d *descriptor) aligned(v block.Vec) bool {
	mask := uintptr(d.align.memory - 1)
	if mask == 0 {
		return true
	}
	for _, b := range v {
		if (uintptr(unsafe.Pointer(unsafe.SliceData(b)))|uintptr(len(b)))&mask != 0 {
			return false
		}
	}
	return true
}

// bounceSize is the length of a bounce buffer; longer requests go in parts.
const bounceSize = 256 << 10

// bouncePool keeps aligned memory for callers whose own is not.
type bouncePool struct{ pool sync.Pool }

func (p *bouncePool) get() *[]byte {
	if buf, ok := p.pool.Get().(*[]byte); ok {
		return buf
	}
	buf := block.AlignedMemory(bounceSize)
	return &buf
}

// bounced calls do for each part of v, with aligned memory as long as it.
func (n *node) bounced(v block.Vec, do func(buf block.Vec, at int64) error) error {
	buf := n.bounce.get()
	defer n.bounce.pool.Put(buf)
	total := v.Len()
	for at := int64(0); at < total; at += bounceSize {
		part := (*buf)[:min(bounceSize, total-at)]
		if err := do(block.Vec{part}, at); err != nil {
			return err
		}
	}
	return nil
}
