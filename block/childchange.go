package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// AddChild gives a node one child more, where its driver can use it. The new
// child must not be in use.
func (n *Node) AddChild(l *aio.Lock, child *Node) error {
	changer, ok := n.instance.(ChildChanger)
	if !ok {
		return qerr.New("The node %s does not support adding a child", n.name)
	}
	if child.parents.head != nil {
		return qerr.New("The node %s already has a parent", child.name)
	}
	return changer.AddChild(l, child)
}

// RemoveChild takes a child from a node.
func (n *Node) RemoveChild(l *aio.Lock, c *Child) error {
	changer, ok := n.instance.(ChildChanger)
	if !ok {
		return qerr.New("The node %s does not support removing a child", n.name)
	}
	return changer.RemoveChild(l, c)
}

// ChangeChildren is for drivers: it makes a change while no request is under way,
// and adapts what the node can do to its children.
func (n *Node) ChangeChildren(l *aio.Lock, change func(*Write) error) error {
	n.DrainedBegin(l)
	defer n.DrainedEnd()
	return n.graph.Write(l, "children of "+n.name, func(w *Write) error {
		if err := change(w); err != nil {
			return err
		}
		return n.refreshLimits()
	})
}

// ShareChild is [Write.AttachChild] of a node that others hold as well: the edge
// gets a reference of its own.
func (w *Write) ShareChild(parent, child *Node, name string, role Role) (*Child, error) {
	child.ref()
	w.onAbort(func() { child.refs-- })
	return w.AttachChild(parent, child, name, role)
}
