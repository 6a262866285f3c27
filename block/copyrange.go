package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoCopyRange copies bytes from srcOffset in src, a node without children, to
// offset, without moving them through memory; the two may share blocks of the
// host afterwards. ENOTSUP: that is not possible, and nothing has happened.
// Whatever else it fails with, reading and writing may succeed.
func (c *Child) CoCopyRange(co *aio.Co, src *Node, srcOffset, offset, bytes int64, flags ReqFlags) error {
	return c.node.coCopyRange(co, src, srcOffset, offset, bytes, flags)
}

func (n *Node) coCopyRange(co *aio.Co, src *Node, srcOffset, offset, bytes int64, flags ReqFlags) error {
	r, ok := n.instance.(CopyRanger)
	if !ok || n.detectZeroes != DetectZeroesOff || !n.aligned(offset, bytes) {
		return qerr.From(syscall.ENOTSUP)
	}
	if err := n.checkWritable(offset, bytes); err != nil {
		return err
	}
	src.begin()
	defer src.end()
	n.begin()
	defer n.end()
	var unit int64
	if flags&ReqSerialising != 0 {
		unit = n.limits.RequestAlignment
	}
	req := n.tracked.begin(offset, bytes, unit)
	defer n.tracked.end(req)
	if err := n.tracked.wait(co, req, flags); err != nil {
		return err
	}
	n.checkThreshold(offset, bytes)
	err := r.CoCopyRange(co, src, srcOffset, offset, bytes)
	n.finishWrite(offset, bytes, err)
	return err
}

// copyRangeSource finds out where the host has what a reader of n finds in an
// area of which the status is known; nil if a copy from there would not be what
// the reader gets, or would go past a filter.
func (n *Node) copyRangeSource(st Status) *Node {
	const plain = StatusData | StatusOffsetValid
	if st.Flags&(plain|StatusZero) != plain || st.File == nil || !n.standsOn(st.File) {
		return nil
	}
	return st.File
}

// standsOn tells whether a node is below n, with nothing but formats in between.
func (n *Node) standsOn(below *Node) bool {
	if n == below {
		return true
	}
	if n.Driver().Kind == Filter {
		return false
	}
	for _, c := range n.children {
		if c.node.standsOn(below) {
			return true
		}
	}
	return false
}
