package quorum

import (
	"bytes"
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoPreadv reads what the children agree on.
func (q *quorum) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	r, err := q.requests.begin(co, offset, v.Len(), false, flags)
	if err != nil {
		return err
	}
	defer q.requests.end(r)
	switch {
	case flags&block.ReqImmediate != 0:
		return q.readAtOnce(co, offset, v)
	case q.fifo:
		return q.readFirst(co, offset, v)
	}
	return q.readAll(co, offset, v)
}

// readFirst believes the first child that can be read.
func (q *quorum) readFirst(co *aio.Co, offset int64, v block.Vec) error {
	var err error
	for _, c := range q.children {
		if err = c.CoPreadv(co, offset, v, 0); err == nil {
			return nil
		}
		c.Node().ReportQuorumBad(block.QuorumRead, err, offset, v.Len())
	}
	return errnoOf(err)
}

// readAtOnce reads as far as that needs no waiting and nothing is to be decided.
func (q *quorum) readAtOnce(co *aio.Co, offset int64, v block.Vec) error {
	b := q.newBallot(offset, v)
	defer q.done(b)
	for i, c := range q.children {
		if c.CoPreadv(co, offset, b.data(i), block.ReqImmediate) != nil || !b.same(0, i) {
			return qerr.From(syscall.EAGAIN)
		}
		if q.fifo {
			return nil
		}
	}
	return nil
}

// readAll reads all children and lets them vote.
func (q *quorum) readAll(co *aio.Co, offset int64, v block.Vec) error {
	b := q.newBallot(offset, v)
	defer q.done(b)
	co.Each("quorum_read", len(q.children), func(co *aio.Co, i int) {
		c := q.children[i]
		if b.errs[i] = c.CoPreadv(co, offset, b.data(i), 0); b.errs[i] != nil {
			c.Node().ReportQuorumBad(block.QuorumRead, b.errs[i], offset, v.Len())
		}
	})
	if err := q.enough(b.errs); err != nil {
		q.node.ReportQuorumFailure(offset, v.Len())
		return err
	}
	if first := slices.Index(b.errs, nil); b.unanimous(first) {
		b.elect(first)
		return nil
	}
	if q.blkverify {
		return q.complain(b)
	}
	return q.vote(co, b)
}

// vote finds what most children have.
func (q *quorum) vote(co *aio.Co, b *ballot) error {
	versions := b.count()
	winner := b.winner(versions)
	if versions[winner].votes < q.threshold {
		q.node.ReportQuorumFailure(b.offset, b.first.Len())
		return qerr.From(syscall.EIO)
	}
	outvoted := b.outvoted(versions, winner)
	b.elect(versions[winner].child)
	for _, i := range outvoted {
		q.children[i].Node().ReportQuorumBad(block.QuorumRead, nil, b.offset, b.first.Len())
	}
	if q.rewrite {
		// A child that cannot be corrected is reported again the next time.
		co.Each("quorum_rewrite", len(outvoted), func(co *aio.Co, k int) {
			_ = q.children[outvoted[k]].CoPwritev(co, b.offset, b.first, 0)
		})
	}
	return nil
}

// complain tells the one who started the program that the two children differ,
// in the reference's words.
func (q *quorum) complain(b *ballot) error {
	other := b.bufs[0].B
	at := int64(0)
	for _, part := range b.first {
		i := 0
		for i < len(part) && part[i] == other[int(at)+i] {
			i++
		}
		at += int64(i)
		if i < len(part) {
			break
		}
	}
	q.node.Complain("quorum: offset=%d bytes=%d contents mismatch at offset %d", b.offset, b.first.Len(), b.offset+at)
	return qerr.From(syscall.EIO)
}

// ballot is what the children have read. The first one reads into the memory of
// the request.
type ballot struct {
	offset int64
	first  block.Vec
	bufs   []*block.Buffer // of the others
	errs   []error
}

func (q *quorum) newBallot(offset int64, v block.Vec) *ballot {
	b, ok := q.ballots.Get().(*ballot)
	if !ok {
		b = new(ballot)
	}
	b.offset, b.first = offset, v
	for i := range q.children {
		if i > 0 && !q.fifo {
			b.bufs = append(b.bufs, block.GetBuffer(v.Len()))
		}
		b.errs = append(b.errs, nil)
	}
	return b
}

func (q *quorum) done(b *ballot) {
	for _, buf := range b.bufs {
		buf.Free()
	}
	clear(b.bufs)
	clear(b.errs)
	*b = ballot{bufs: b.bufs[:0], errs: b.errs[:0]}
	q.ballots.Put(b)
}

// data is what a child reads into.
func (b *ballot) data(i int) block.Vec {
	if i == 0 {
		return b.first
	}
	return block.Vec{b.bufs[i-1].B}
}

// same tells whether two children, i not behind j, have read the same.
func (b *ballot) same(i, j int) bool {
	if i == j {
		return true
	}
	other := b.bufs[j-1].B
	for _, part := range b.data(i) {
		if !bytes.Equal(part, other[:len(part)]) {
			return false
		}
		other = other[len(part):]
	}
	return true
}

// unanimous tells whether all children that could be read, of which first is the
// first, have read the same.
func (b *ballot) unanimous(first int) bool {
	for i := first + 1; i < len(b.errs); i++ {
		if b.errs[i] == nil && !b.same(first, i) {
			return false
		}
	}
	return true
}

// version is what several children have read.
type version struct {
	child int // the first of them
	votes int
}

// count lists the versions in the order of their first children.
func (b *ballot) count() (versions []version) {
	for i, err := range b.errs {
		if err != nil {
			continue
		}
		k := slices.IndexFunc(versions, func(v version) bool { return b.same(v.child, i) })
		if k < 0 {
			k = len(versions)
			versions = append(versions, version{child: i})
		}
		versions[k].votes++
	}
	return versions
}

// winner is the version with the most votes; of several the last one.
func (b *ballot) winner(versions []version) int {
	best := 0
	for k, v := range versions {
		if v.votes >= versions[best].votes {
			best = k
		}
	}
	return best
}

// outvoted lists the children that have read something else, in the order of the
// reference's reports: the last version first, and of each the last child.
func (b *ballot) outvoted(versions []version, winner int) (children []int) {
	for k, v := range slices.Backward(versions) {
		if k == winner {
			continue
		}
		for i, err := range slices.Backward(b.errs) {
			if err == nil && i >= v.child && b.same(v.child, i) {
				children = append(children, i)
			}
		}
	}
	return children
}

// elect makes what a child has read the result.
func (b *ballot) elect(i int) {
	if i > 0 {
		b.first.CopyFrom(b.bufs[i-1].B)
	}
}
