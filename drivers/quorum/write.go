package quorum

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoPwritev writes to all children.
func (q *quorum) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return q.write(co, offset, v.Len(), func(co *aio.Co, c *block.Child) error {
		return c.CoPwritev(co, offset, v, flags)
	})
}

// CoPwriteZeroes writes zeroes to all children.
func (q *quorum) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	return q.write(co, offset, bytes, func(co *aio.Co, c *block.Child) error {
		return c.CoPwriteZeroes(co, offset, bytes, flags)
	})
}

func (q *quorum) write(co *aio.Co, offset, bytes int64, one func(*aio.Co, *block.Child) error) error {
	r, err := q.requests.begin(co, offset, bytes, true, 0)
	if err != nil {
		return err
	}
	defer q.requests.end(r)
	errs := make([]error, len(q.children))
	co.Each("quorum_write", len(errs), func(co *aio.Co, i int) {
		c := q.children[i]
		if errs[i] = one(co, c); errs[i] != nil {
			c.Node().ReportQuorumBad(block.QuorumWrite, errs[i], offset, bytes)
		}
	})
	if err = q.enough(errs); err != nil {
		q.node.ReportQuorumFailure(offset, bytes)
	}
	return err
}

// CoFlushAll flushes one child after the other, also behind one that fails.
func (q *quorum) CoFlushAll(co *aio.Co) error {
	errs := make([]error, len(q.children))
	for i, c := range q.children {
		if errs[i] = c.Node().CoFlush(co); errs[i] != nil {
			c.Node().ReportQuorumBad(block.QuorumFlush, errs[i], 0, 0)
		}
	}
	return q.enough(errs)
}

// enough returns nil if enough children could do what they were asked for, else
// the error that most of those had which could not; of several the last one to
// appear.
func (q *quorum) enough(errs []error) error {
	type vote struct {
		err   *qerr.Error
		count int
	}
	var votes []vote
	good := 0
	for _, err := range errs {
		if err == nil {
			good++
			continue
		}
		e, k := errnoOf(err), 0
		for k < len(votes) && votes[k].err.Errno != e.Errno {
			k++
		}
		if k == len(votes) {
			votes = append(votes, vote{err: e})
		}
		votes[k].count++
	}
	if good >= q.threshold {
		return nil
	}
	winner := votes[0]
	for _, v := range votes[1:] {
		if v.count >= winner.count {
			winner = v
		}
	}
	return winner.err
}

// errnoOf is all that the reference keeps of a child's error.
func errnoOf(err error) *qerr.Error { return qerr.From(qerr.ErrnoOf(err, syscall.EIO)) }
