package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The requests of a backend. Those with Co are for coroutines and run without
// an allocation of their own; the others serve every caller through the mixed
// wrapper.

func (b *Backend) mixed(c aio.Caller, op string, f func(*aio.Co) error) error {
	_, err := aio.Mixed(c, b.ctx.Load(), op, func(co *aio.Co) (struct{}, error) { return struct{}{}, f(co) })
	return err
}

// start lets a request in, once no drained section keeps it out; the caller
// ends it with leave, also after an error.
func (b *Backend) start(co *aio.Co, flags ReqFlags) (*Node, error) {
	if err := b.enter(co, flags); err != nil {
		return nil, err
	}
	n, err := b.available()
	if err != nil {
		return nil, err
	}
	if m, ok := n.instance.(Inserter); ok && !m.CoIsInserted(co) {
		return nil, qerr.From(syscall.ENOMEDIUM)
	}
	return n, nil
}

// startAt is start for a request on an area, which it checks.
func (b *Backend) startAt(co *aio.Co, offset, bytes int64, flags ReqFlags) (*Node, error) {
	n, err := b.start(co, flags)
	if err != nil {
		return nil, err
	}
	return n, b.checkRequest(co, n, offset, bytes)
}

// checkRequest refuses requests that are too long or beyond the end.
func (b *Backend) checkRequest(co *aio.Co, n *Node, offset, bytes int64) error {
	if bytes < 0 || offset < 0 {
		return qerr.From(syscall.EIO)
	}
	if b.AllowWriteBeyondEOF {
		return nil
	}
	length, err := n.CoGetLength(co)
	if err != nil {
		return err
	}
	if offset > length || length-offset < bytes {
		return qerr.From(syscall.EIO)
	}
	return nil
}

// CoPreadv reads into v.
func (b *Backend) CoPreadv(co *aio.Co, offset int64, v Vec, flags ReqFlags) error {
	defer b.leave()
	if _, err := b.startAt(co, offset, v.Len(), flags); err != nil {
		return err
	}
	return b.root.CoPreadv(co, offset, v, flags)
}

// Preadv reads into v.
func (b *Backend) Preadv(c aio.Caller, offset int64, v Vec) error {
	return b.mixed(c, "blk_preadv", func(co *aio.Co) error { return b.CoPreadv(co, offset, v, 0) })
}

// CoPwritev writes v.
func (b *Backend) CoPwritev(co *aio.Co, offset int64, v Vec, flags ReqFlags) error {
	defer b.leave()
	if _, err := b.startAt(co, offset, v.Len(), flags); err != nil {
		return err
	}
	return b.root.CoPwritev(co, offset, v, b.writeFlags(flags))
}

// Pwritev writes v.
func (b *Backend) Pwritev(c aio.Caller, offset int64, v Vec, flags ReqFlags) error {
	return b.mixed(c, "blk_pwritev", func(co *aio.Co) error { return b.CoPwritev(co, offset, v, flags) })
}

// CoPwriteZeroes writes zeroes.
func (b *Backend) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags ReqFlags) error {
	defer b.leave()
	if _, err := b.startAt(co, offset, bytes, flags); err != nil {
		return err
	}
	return b.root.CoPwriteZeroes(co, offset, bytes, b.writeFlags(flags))
}

// PwriteZeroes writes zeroes.
func (b *Backend) PwriteZeroes(c aio.Caller, offset, bytes int64, flags ReqFlags) error {
	return b.mixed(c, "blk_pwrite_zeroes", func(co *aio.Co) error { return b.CoPwriteZeroes(co, offset, bytes, flags) })
}

// CoPdiscard drops an area's data.
func (b *Backend) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	defer b.leave()
	if _, err := b.startAt(co, offset, bytes, 0); err != nil {
		return err
	}
	return b.root.CoPdiscard(co, offset, bytes)
}

// Pdiscard drops an area's data.
func (b *Backend) Pdiscard(c aio.Caller, offset, bytes int64) error {
	return b.mixed(c, "blk_pdiscard", func(co *aio.Co) error { return b.CoPdiscard(co, offset, bytes) })
}

// CoFlush makes finished writes durable.
func (b *Backend) CoFlush(co *aio.Co) error {
	defer b.leave()
	n, err := b.start(co, 0)
	if err != nil {
		return err
	}
	return n.CoFlush(co)
}

// Flush makes finished writes durable.
func (b *Backend) Flush(c aio.Caller) error { return b.mixed(c, "blk_flush", b.CoFlush) }

// Truncate resizes the node.
func (b *Backend) Truncate(c aio.Caller, offset int64, exact bool, prealloc PreallocMode, flags ReqFlags) error {
	return b.mixed(c, "blk_truncate", func(co *aio.Co) error {
		defer b.leave()
		_ = b.enter(co, 0) // waits, and does not fail
		if _, err := b.available(); err != nil {
			return err
		}
		return b.root.CoTruncate(co, offset, exact, prealloc, flags)
	})
}

// CoGetLength is the node's length in bytes.
func (b *Backend) CoGetLength(co *aio.Co) (int64, error) {
	defer b.leave()
	n, err := b.start(co, 0)
	if err != nil {
		return 0, err
	}
	return n.CoGetLength(co)
}

// GetLength is the node's length in bytes.
func (b *Backend) GetLength(c aio.Caller) (int64, error) {
	return aio.Mixed(c, b.ctx.Load(), "blk_getlength", b.CoGetLength)
}

// CoBlockStatusAbove tells what is read at offset; see
// [Node.CoBlockStatusAbove].
func (b *Backend) CoBlockStatusAbove(co *aio.Co, base *Node, includeBase, wantZero bool, offset, bytes int64) (Status, int, error) {
	defer b.leave()
	n, err := b.startAt(co, offset, bytes, 0)
	if err != nil {
		return Status{}, 0, err
	}
	return n.CoBlockStatusAbove(co, base, includeBase, wantZero, offset, bytes)
}

// CoIsAllocatedAbove tells which layer decides what is read at offset; see
// [Node.CoIsAllocatedAbove].
func (b *Backend) CoIsAllocatedAbove(co *aio.Co, base *Node, includeBase bool, offset, bytes int64) (depth int, count int64, err error) {
	st, depth, err := b.CoBlockStatusAbove(co, base, includeBase, false, offset, bytes)
	return depth, st.Bytes, err
}

// writeFlags adds FUA for users that never flush.
func (b *Backend) writeFlags(flags ReqFlags) ReqFlags {
	if !b.writeCache {
		flags |= ReqFUA
	}
	return flags
}
