package export

import (
	"errors"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/nbd"
)

// maxImmediate is the longest request that the reader carries out itself, in
// bytes: while a longer one is copied, others could be read.
const maxImmediate = 256 << 10

// immediate carries the request out if that needs no waiting: most reads and
// writes go no further than to the page cache. False: it is for the workers.
func (r *request) immediate() bool {
	e := r.client.export
	worthIt := r.Command == nbd.CmdRead && e.immediateReads || r.Command == nbd.CmdWrite && e.immediateWrites
	if !worthIt || r.Length > maxImmediate {
		return false
	}
	r.flags = block.ReqImmediate
	r.enter()
	if errors.Is(r.err, syscall.EAGAIN) {
		return false
	}
	r.answer()
	return true
}

// perform carries the request out, however long that takes.
func (r *request) perform() {
	r.flags = 0
	r.enter()
	r.answer()
}

func (r *request) enter() {
	r.err, r.half, r.extents = nil, false, r.extents[:0]
	if p := r.client.export.backend.Context().Enter("nbd", r.run); p != nil {
		r.client.server.set.cfg.Panicked(p)
		r.fail(p, "internal error")
	}
}

// fail notes what the node said and what the client will read.
func (r *request) fail(err error, failure string) {
	if err != nil {
		r.err, r.failure = err, failure
	}
}

// carryOut is the request's coroutine.
func (r *request) carryOut(co *aio.Co) {
	b := r.client.export.backend
	switch r.Command {
	case nbd.CmdRead:
		r.fail(r.read(co, b), "reading from file failed")
	case nbd.CmdWrite:
		r.fail(b.CoPwritev(co, int64(r.Offset), r.vector(0, r.Length), r.flags|r.fua()), "writing to file failed")
	case nbd.CmdWriteZeroes:
		r.fail(r.writeZeroes(co, b), "writing to file failed")
	case nbd.CmdTrim:
		r.fail(r.trim(co, b), "discard failed")
	case nbd.CmdFlush:
		r.fail(b.CoFlush(co), "flush failed")
	case nbd.CmdCache:
		// It is for nodes that keep what they read, and there are none: like
		// the reference, nothing is read then.
	case nbd.CmdBlockStatus:
		r.fail(r.blockStatus(co, b), "can't get block status")
	}
}

// vector is a part of the data's memory, which is taken if there is none yet.
func (r *request) vector(offset, size uint64) block.Vec {
	if r.data == nil {
		r.data = getBuffer(r.Length)
	}
	r.vec[0] = r.data.data(r.Length)[offset : offset+size]
	return r.vec[:]
}

func (r *request) fua() block.ReqFlags {
	if r.Flags&nbd.CmdFlagFUA != 0 {
		return block.ReqFUA
	}
	return 0
}

// sparse tells whether the answer to a read may have holes.
func (r *request) sparse() bool {
	return r.Command == nbd.CmdRead && r.client.mode >= nbd.Structured && r.Flags&nbd.CmdFlagDF == 0 && r.Length > 0
}

func (r *request) read(co *aio.Co, b *block.Backend) error {
	if r.Length == 0 {
		return nil
	}
	if !r.sparse() {
		return b.CoPreadv(co, int64(r.Offset), r.vector(0, r.Length), r.flags)
	}
	if err := r.findHoles(co, b); err != nil {
		return err
	}
	offset := uint64(0)
	for _, e := range r.extents {
		if !e.hole() {
			if err := b.CoPreadv(co, int64(r.Offset+offset), r.vector(offset, e.length), r.flags); err != nil {
				r.half = true
				return err
			}
		}
		offset += e.length
	}
	return nil
}

func (r *request) writeZeroes(co *aio.Co, b *block.Backend) error {
	flags := r.fua()
	if r.Flags&nbd.CmdFlagNoHole == 0 {
		flags |= block.ReqMayUnmap
	}
	if r.Flags&nbd.CmdFlagFastZero != 0 {
		flags |= block.ReqNoFallback
	}
	return r.each(func(offset, bytes int64) error { return b.CoPwriteZeroes(co, offset, bytes, flags) })
}

func (r *request) trim(co *aio.Co, b *block.Backend) error {
	err := r.each(func(offset, bytes int64) error { return b.CoPdiscard(co, offset, bytes) })
	if err == nil && r.fua() != 0 {
		err = b.CoFlush(co)
	}
	return err
}

// each calls f for each part of a request that is too long for one.
func (r *request) each(f func(offset, bytes int64) error) error {
	const longest = 1 << 30
	for done := uint64(0); done < r.Length; {
		part := min(r.Length-done, longest)
		if err := f(int64(r.Offset+done), int64(part)); err != nil {
			return err
		}
		done += part
	}
	return nil
}

// errno is what goes over the wire of an error.
func errno(err error) syscall.Errno {
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	return syscall.EIO
}
