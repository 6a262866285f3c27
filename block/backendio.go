package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The requests of a backend. Each exists once, for every caller: the mixed
// wrapper runs it directly in a coroutine and spawns one for all others.

func (b *Backend) context() *aio.Context {
	if n := b.Node(); n != nil {
		return n.ctx
	}
	return b.graph.main
}

func (b *Backend) do(c aio.Caller, op string, f func(*aio.Co, *Node) error) error {
	_, err := aio.Mixed(c, b.context(), op, func(co *aio.Co) (struct{}, error) {
		b.enter(co)
		defer b.leave()
		n, err := b.available()
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, f(co, n)
	})
	return err
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

// Preadv reads into v.
func (b *Backend) Preadv(c aio.Caller, offset int64, v Vec) error {
	return b.do(c, "blk_preadv", func(co *aio.Co, n *Node) error {
		if err := b.checkRequest(co, n, offset, v.Len()); err != nil {
			return err
		}
		return b.root.CoPreadv(co, offset, v, 0)
	})
}

// Pwritev writes v.
func (b *Backend) Pwritev(c aio.Caller, offset int64, v Vec, flags ReqFlags) error {
	return b.do(c, "blk_pwritev", func(co *aio.Co, n *Node) error {
		if err := b.checkRequest(co, n, offset, v.Len()); err != nil {
			return err
		}
		return b.root.CoPwritev(co, offset, v, b.writeFlags(flags))
	})
}

// PwriteZeroes writes zeroes.
func (b *Backend) PwriteZeroes(c aio.Caller, offset, bytes int64, flags ReqFlags) error {
	return b.do(c, "blk_pwrite_zeroes", func(co *aio.Co, n *Node) error {
		if err := b.checkRequest(co, n, offset, bytes); err != nil {
			return err
		}
		return b.root.CoPwriteZeroes(co, offset, bytes, b.writeFlags(flags))
	})
}

// Pdiscard drops an area's data.
func (b *Backend) Pdiscard(c aio.Caller, offset, bytes int64) error {
	return b.do(c, "blk_pdiscard", func(co *aio.Co, n *Node) error {
		if err := b.checkRequest(co, n, offset, bytes); err != nil {
			return err
		}
		return b.root.CoPdiscard(co, offset, bytes)
	})
}

// Flush makes finished writes durable.
func (b *Backend) Flush(c aio.Caller) error {
	return b.do(c, "blk_flush", func(co *aio.Co, n *Node) error { return n.CoFlush(co) })
}

// Truncate resizes the node.
func (b *Backend) Truncate(c aio.Caller, offset int64, exact bool, prealloc PreallocMode, flags ReqFlags) error {
	return b.do(c, "blk_truncate", func(co *aio.Co, n *Node) error {
		return b.root.CoTruncate(co, offset, exact, prealloc, flags)
	})
}

// GetLength is the node's length in bytes.
func (b *Backend) GetLength(c aio.Caller) (int64, error) {
	var length int64
	err := b.do(c, "blk_getlength", func(co *aio.Co, n *Node) error {
		var err error
		length, err = n.CoGetLength(co)
		return err
	})
	return length, err
}

// writeFlags adds FUA for users that never flush.
func (b *Backend) writeFlags(flags ReqFlags) ReqFlags {
	if !b.writeCache {
		flags |= ReqFUA
	}
	return flags
}
