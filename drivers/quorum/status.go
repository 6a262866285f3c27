package quorum

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoGetLength is the length of each child.
func (q *quorum) CoGetLength(co *aio.Co) (int64, error) {
	var length int64
	for i, c := range q.children {
		n, err := c.Node().CoGetLength(co)
		if err != nil {
			return 0, err
		}
		if i > 0 && n != length {
			return 0, qerr.From(syscall.EIO)
		}
		length = n
	}
	return length, nil
}

// CoBlockStatus knows zeroes where all children do. A child that cannot tell is
// reported, and may have anything.
func (q *quorum) CoBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (block.Status, error) {
	if !wantZero {
		return block.Status{Flags: block.StatusData, Bytes: bytes}, nil
	}
	zero, data := bytes, int64(0)
	for _, c := range q.children {
		st, err := c.Node().CoBlockStatus(co, true, offset, bytes)
		if err != nil {
			c.Node().ReportQuorumBad(block.QuorumRead, err, offset, bytes)
			return block.Status{Flags: block.StatusData, Bytes: bytes}, nil
		}
		if st.Flags&block.StatusZero != 0 {
			zero = min(zero, st.Bytes)
		} else {
			data = max(data, st.Bytes)
		}
	}
	if data > 0 {
		return block.Status{Flags: block.StatusData, Bytes: data}, nil
	}
	return block.Status{Flags: block.StatusZero, Bytes: zero}, nil
}
