package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/trace"
)

// Truncate changes the node's length to offset bytes. Without exact, the
// driver may make it longer; prealloc prepares what is added.
func (c *Child) Truncate(caller aio.Caller, offset int64, exact bool, prealloc PreallocMode, flags ReqFlags) error {
	_, err := aio.Mixed(caller, c.node.Context(), "truncate", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, c.CoTruncate(co, offset, exact, prealloc, flags)
	})
	return err
}

// CoTruncate is Truncate for coroutines.
func (c *Child) CoTruncate(co *aio.Co, offset int64, exact bool, prealloc PreallocMode, flags ReqFlags) error {
	n := c.node
	if n.absent() {
		return qerr.New("No medium inserted")
	}
	if offset < 0 {
		return qerr.New("Image size cannot be negative")
	}
	if offset > maxLength {
		return qerr.New("offset(%d) exceeds maximum(%d)", offset, int64(maxLength))
	}
	old, err := n.CoGetLength(co)
	if err != nil {
		return lengthError(err)
	}
	if n.ReadOnly() {
		return qerr.WithErrnoOnly(syscall.EACCES, "Image is read-only")
	}
	n.begin()
	defer n.end()
	n.graph.tracer.At(trace.NodeTruncate).Str("node", n.name).Int64("from", old).Int64("to", offset).Send()
	return n.truncate(co, old, offset, exact, prealloc, flags)
}

func lengthError(err error) error {
	return qerr.Prepend(err, "Failed to get image length: ")
}

func (n *Node) truncate(co *aio.Co, old, offset int64, exact bool, prealloc PreallocMode, flags ReqFlags) error {
	// No write may touch the area that comes or goes meanwhile.
	growing := max(0, offset-old)
	r := n.tracked.begin(offset-growing, growing, min(growing, 1))
	defer n.tracked.end(r)
	if growing > 0 {
		if err := n.tracked.wait(co, r, 0); err != nil {
			return err
		}
	}
	if b := n.cow(); b != nil && growing > 0 {
		// A backing file longer than the overlay must not show through.
		length, err := b.node.CoGetLength(co)
		if err != nil {
			return qerr.Prepend(err, "Could not get backing file size: ")
		}
		if length > old {
			flags |= ReqZeroWrite
		}
	}
	err := n.truncateDriver(co, offset, exact, prealloc, flags)
	n.extents.forgetAll()
	if err != nil {
		return err
	}
	n.writeGen.Add(1)
	if err := n.CoRefreshTotalSectors(co, offset/SectorSize); err != nil {
		return qerr.Prepend(err, "Could not refresh total sector count: ")
	}
	n.resized()
	return nil
}

func (n *Node) truncateDriver(co *aio.Co, offset int64, exact bool, prealloc PreallocMode, flags ReqFlags) error {
	if flags&^n.limits.TruncateFlags&ReqZeroWrite != 0 {
		return qerr.WithErrnoOnly(syscall.ENOTSUP, "Block driver does not support requested flags")
	}
	if t, ok := n.instance.(Truncater); ok {
		return t.CoTruncate(co, offset, exact, prealloc, flags)
	}
	if f := n.filtered(); f != nil {
		return f.CoTruncate(co, offset, exact, prealloc, flags)
	}
	return qerr.WithErrnoOnly(syscall.ENOTSUP, "Image format driver does not support resize")
}
