package quorum

import (
	"slices"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// ChildOption is the child's place among the others: names have gaps once a
// child has been taken away.
func (q *quorum) ChildOption(c *block.Child) string { return childName(slices.Index(q.children, c)) }

// AddChild puts a node behind the other children.
func (q *quorum) AddChild(l *aio.Lock, n *block.Node) error {
	if q.blkverify {
		return qerr.New("Cannot add a child to a quorum in blkverify mode")
	}
	return q.node.ChangeChildren(l, func(w *block.Write) error {
		c, err := w.ShareChild(q.node, n, childName(q.next), block.RoleData)
		if err != nil {
			return err
		}
		q.children = append(q.children, c)
		q.next++
		return nil
	})
}

// RemoveChild takes one of the children away. Only the name of the last one is
// free again.
func (q *quorum) RemoveChild(l *aio.Lock, c *block.Child) error {
	if len(q.children) <= q.threshold {
		return qerr.New("The number of children cannot be lower than the vote threshold %d", q.threshold)
	}
	return q.node.ChangeChildren(l, func(w *block.Write) error {
		if err := w.DetachChild(c); err != nil {
			return err
		}
		if c.Name() == childName(q.next-1) {
			q.next--
		}
		at := slices.Index(q.children, c)
		q.children = slices.Concat(q.children[:at], q.children[at+1:])
		return nil
	})
}

// CanReplace tells whether a node is one of the children, and nothing else: others
// may see that it is not the same as the copy.
func (q *quorum) CanReplace(n *block.Node) bool {
	parents, ours := 0, false
	n.Parents(func(c *block.Child) bool {
		parents++
		ours = slices.Contains(q.children, c)
		return parents < 2
	})
	return parents == 1 && ours
}
