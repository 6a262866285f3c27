package block

import (
	"errors"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// maxZeroBounce bounds the buffer with which zeroes are written by hand, in
// bytes.
const maxZeroBounce = 1 << 20

// driverZeroes zeroes an aligned area, by the driver's own means where it has
// some and by writing zeroes elsewhere. The result tells whether it is as
// durable as was asked.
func (n *Node) driverZeroes(co *aio.Co, offset, bytes int64, flags ReqFlags) (durable bool, err error) {
	defer n.extents.forget(offset, bytes)
	unit := max(n.limits.PWriteZeroesAlignment, n.limits.RequestAlignment)
	limit := n.limits.MaxPWriteZeroes
	needFlush := false
	for bytes > 0 {
		piece := zeroPiece(offset, bytes, unit, limit)
		err := n.zeroByDriver(co, offset, piece, flags, &needFlush)
		if errors.Is(err, syscall.ENOTSUP) && flags&ReqNoFallback == 0 {
			err = n.zeroByHand(co, offset, piece, flags, &needFlush)
		}
		if err != nil {
			return false, err
		}
		offset += piece
		bytes -= piece
	}
	return !needFlush, nil
}

// zeroPiece is the length of the next part: up to the first unit boundary, or
// as many whole units as there are, or the rest.
func zeroPiece(offset, bytes, unit, limit int64) int64 {
	if unit > 1 {
		if off := offset % unit; off != 0 {
			return min(bytes, unit-off)
		}
		if bytes > unit {
			bytes -= bytes % unit
		}
	}
	if limit > 0 {
		bytes = min(bytes, max(limit-limit%unit, unit))
	}
	return bytes
}

func (n *Node) zeroByDriver(co *aio.Co, offset, bytes int64, flags ReqFlags, needFlush *bool) error {
	z, ok := n.instance.(ZeroWriter)
	if !ok {
		return qerr.From(syscall.ENOTSUP)
	}
	err := z.CoPwriteZeroes(co, offset, bytes, flags&n.limits.ZeroFlags)
	if err == nil && flags&ReqFUA != 0 && n.limits.ZeroFlags&ReqFUA == 0 {
		*needFlush = true
	}
	return err
}

func (n *Node) zeroByHand(co *aio.Co, offset, bytes int64, flags ReqFlags, needFlush *bool) error {
	w, ok := n.instance.(Writer)
	if !ok {
		return qerr.From(syscall.ENOTSUP)
	}
	own := flags & n.limits.WriteFlags &^ ReqMayUnmap
	if flags&ReqFUA != 0 && own&ReqFUA == 0 {
		*needFlush = true
	}
	chunk := min(bytes, maxZeroBounce)
	if n.limits.MaxTransfer > 0 {
		chunk = min(chunk, n.limits.MaxTransfer)
	}
	// Alignment goes first, however large.
	chunk = max(alignDown(chunk, n.limits.RequestAlignment), n.limits.RequestAlignment)
	buf := GetBuffer(chunk)
	defer buf.Free()
	clear(buf.B)
	return n.split(bytes, chunk, func(at, count int64) error {
		return w.CoPwritev(co, offset+at, Vec{buf.B[:count]}, own)
	})
}

// CoPdiscard drops an area's data where the node passes discards on.
// Discarding is a hint: a driver that cannot is no failure.
func (n *Node) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	if err := n.checkWritable(offset, bytes); err != nil {
		return err
	}
	d, ok := n.instance.(Discarder)
	if bytes == 0 || n.flags&FlagUnmap == 0 || !ok {
		return nil
	}
	n.begin()
	defer n.end()
	r := n.tracked.begin(offset, bytes, 0)
	defer n.tracked.end(r)
	if err := n.tracked.wait(co, r, 0); err != nil {
		return err
	}
	err := n.discardPieces(co, d, offset, bytes)
	n.extents.forget(offset, bytes)
	n.writeGen.Add(1)
	n.setDirty(offset, bytes)
	return err
}

func (n *Node) discardPieces(co *aio.Co, d Discarder, offset, bytes int64) error {
	unit := max(n.limits.PDiscardAlignment, n.limits.RequestAlignment)
	for bytes > 0 {
		piece := zeroPiece(offset, bytes, unit, n.limits.MaxPDiscard)
		// Unaligned pieces at the edges are passed on as they are, for the
		// driver to refuse.
		err := d.CoPdiscard(co, offset, piece)
		if err != nil && !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
		offset += piece
		bytes -= piece
	}
	return nil
}

// CoPdiscard drops an area's data; see [Node.CoPdiscard].
func (c *Child) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	return c.node.CoPdiscard(co, offset, bytes)
}
