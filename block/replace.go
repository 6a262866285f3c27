package block

import (
	"slices"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// movedEdge is an edge that was moved to another node, and the one in front of
// which it stood among the parents of its old node; nil: it was the last.
type movedEdge struct{ child, before *Child }

// ReplaceNode puts a node in the place of another one for all of its users
// that can move. Where the node is already below a user, moving that user's
// edge would make a cycle, so it stays; a job's edge stays because the job
// means the node and not its place. A frozen edge is an error.
func (w *Write) ReplaceNode(from, to *Node) error {
	if _, err := w.moveParents(from, to); err != nil {
		return err
	}
	return w.refreshPerms(nil, from, to)
}

// moveParents is ReplaceNode before the permissions are computed. It returns
// the edges that it moved, in the order of their moves.
func (w *Write) moveParents(from, to *Node) (moved []movedEdge, err error) {
	if from == to {
		return nil, nil
	}
	from.keepShown()
	// One that loses its last users stays until the section is over.
	w.hold(from)
	w.hold(to)
	var next *Child
	for c := from.parents.head; c != nil; c = next {
		next = c.nextParent
		if !c.movesTo(to) {
			continue
		}
		if c.frozen > 0 {
			return nil, qerr.New("Cannot change '%s' link to '%s'", c.name, from.name)
		}
		if err := w.moveEdge(c, to, to.parents.head); err != nil {
			return nil, err
		}
		moved = append(moved, movedEdge{c, next})
	}
	return moved, nil
}

// movesTo tells whether an edge follows when another node takes the place of
// its own.
func (c *Child) movesTo(to *Node) bool {
	switch owner := c.owner.(type) {
	case *Node:
		return !reaches(to, owner)
	case *Holding:
		return false
	}
	return true
}

// moveEdge puts the lower end of an edge on another node, in front of next
// among its parents. That may be the node where it is, and its place.
func (w *Write) moveEdge(c *Child, to *Node, next *Child) error {
	if next == c {
		next = c.nextParent
	}
	from := w.unlink(c)
	w.linkBefore(c, to, next)
	to.ref()
	w.onAbort(func() { to.refs-- })
	w.onCommit(func() { w.unref(from) })
	if parent := c.ParentNode(); parent != nil {
		w.renew(parent, c)
		return checkActive(parent, to, c.name)
	}
	if b, ok := c.owner.(*Backend); ok {
		b.follow(w, to)
	}
	return nil
}

// hold keeps a node until the section is over.
func (w *Write) hold(n *Node) {
	n.ref()
	w.onAbort(func() { n.refs-- })
	w.onCommit(func() { w.unref(n) })
}

// ReplaceNode is [Write.ReplaceNode] in a drained section of both nodes.
func (g *Graph) ReplaceNode(l *aio.Lock, from, to *Node) error {
	defer drainBoth(l, from, to)()
	return g.Write(l, "replace "+from.name, func(w *Write) error { return w.ReplaceNode(from, to) })
}

// drainBoth begins drained sections of two nodes and returns what ends them.
func drainBoth(l *aio.Lock, a, b *Node) (end func()) {
	a.DrainedBegin(l)
	b.DrainedBegin(l)
	a.graph.DrainAll(l)
	return func() {
		b.DrainedEnd()
		a.DrainedEnd()
	}
}

// SetBacking changes the backing file of a node; nil: it has none from then on.
func (w *Write) SetBacking(n, to *Node) error {
	n.keepShown()
	if _, err := w.setChild(n, to, optBacking, nil); err != nil {
		return err
	}
	return w.refreshPerms(nil, n)
}

// setChild makes another node a node's file or backing child, or takes the
// child away, before the permissions are computed. It returns the node that
// was there, nil if there was none.
func (w *Write) setChild(n, to *Node, name string, reopen *ReopenState) (was *Node, err error) {
	old := n.Child(name)
	if old != nil && old.frozen > 0 {
		return nil, qerr.New("Cannot change frozen '%s' link from '%s' to '%s'", name, n.name, old.node.name)
	}
	switch {
	case to == nil && old == nil:
	case to == nil:
		was = w.detach(old)
	case old == nil && !n.drv.SupportsBacking:
		err = qerr.New("Driver '%s' of node '%s' does not support backing files", n.drv.Name, n.name)
	case old == nil:
		to.ref()
		w.onAbort(func() { to.refs-- })
		err = w.attachAs(n, to, name, RoleCOW, reopen)
	default:
		// Drivers know their file by its edge.
		was = old.node
		err = w.moveEdge(old, to, to.parents.head)
	}
	if err == nil && to != nil {
		w.inheritFurther(n, to)
	}
	return was, err
}

// renew makes a child the newest of its parent's: one that is put on another
// node is (observed: own/jobs/backup-graph).
func (w *Write) renew(n *Node, c *Child) {
	at := slices.Index(n.children, c)
	n.removeChild(c)
	n.insertChild(c, 0)
	w.onAbort(func() {
		n.removeChild(c)
		n.insertChild(c, at)
	})
}

// attachAs attaches a file or backing child and makes it what the node knows as
// such.
func (w *Write) attachAs(n, child *Node, name string, role Role, reopen *ReopenState) error {
	c, err := w.attach(n, child, name, role, reopen)
	if err != nil {
		return err
	}
	file, backing := n.file, n.backing
	w.onAbort(func() { n.file, n.backing = file, backing })
	if name == optBacking {
		n.backing = c
	} else {
		n.file = c
	}
	return nil
}

// inheritFurther lets a node that inherited its options from another one by way
// of nodes that are gone from between now inherit from that one itself.
func (w *Write) inheritFurther(n, child *Node) {
	from := child.inheritsFrom
	for at := from; at != nil; at = at.inheritsFrom {
		if at == n {
			child.inheritsFrom = n
			w.onAbort(func() { child.inheritsFrom = from })
			return
		}
	}
}
