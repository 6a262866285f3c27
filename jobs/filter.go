package jobs

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// backingFilter is what the filters that jobs put over a node have in common: the
// node is their backing child, and reading passes them by.
type backingFilter struct{ node *block.Node }

func (f *backingFilter) Close(*aio.Lock) {}

// CoGetLength: a filter that is not in its place yet has none.
func (f *backingFilter) CoGetLength(co *aio.Co) (int64, error) {
	c := f.node.Backing()
	if c == nil {
		return 0, nil
	}
	return c.Node().CoGetLength(co)
}

func (f *backingFilter) belowName() string {
	if c := f.node.Backing(); c != nil {
		return c.Node().Filename()
	}
	return ""
}

func (f *backingFilter) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return f.node.Backing().CoPreadv(co, offset, v, flags)
}
