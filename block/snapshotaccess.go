package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// SnapshotAccesser shows its data as it was at some time, beside as it is.
type SnapshotAccesser interface {
	CoPreadvSnapshot(co *aio.Co, offset int64, v Vec) error
	// CoSnapshotBlockStatus is CoBlockStatus of the data as it was.
	CoSnapshotBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (Status, error)
	// CoPdiscardSnapshot says that the area will not be read any more.
	CoPdiscardSnapshot(co *aio.Co, offset, bytes int64) error
}

// accesser is the node's snapshot, ENOTSUP if it keeps none.
func (n *Node) accesser(offset, bytes int64) (SnapshotAccesser, error) {
	if err := n.checkReady(offset, bytes); err != nil {
		return nil, err
	}
	a, ok := n.instance.(SnapshotAccesser)
	if !ok {
		return nil, qerr.From(syscall.ENOTSUP)
	}
	return a, nil
}

// CoPreadvSnapshot reads from the node as it was.
func (c *Child) CoPreadvSnapshot(co *aio.Co, offset int64, v Vec) error {
	a, err := c.node.accesser(offset, v.Len())
	if err != nil {
		return err
	}
	c.node.begin()
	defer c.node.end()
	return a.CoPreadvSnapshot(co, offset, v)
}

// CoSnapshotBlockStatus tells what was at offset.
func (c *Child) CoSnapshotBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (Status, error) {
	a, err := c.node.accesser(offset, bytes)
	if err != nil {
		return Status{}, err
	}
	c.node.begin()
	defer c.node.end()
	return a.CoSnapshotBlockStatus(co, wantZero, offset, bytes)
}

// CoPdiscardSnapshot says that an area of the node as it was is not needed any
// more.
func (c *Child) CoPdiscardSnapshot(co *aio.Co, offset, bytes int64) error {
	a, err := c.node.accesser(offset, bytes)
	if err != nil {
		return err
	}
	c.node.begin()
	defer c.node.end()
	return a.CoPdiscardSnapshot(co, offset, bytes)
}
