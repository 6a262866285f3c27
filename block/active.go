package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// SetActive hands a node over to another process (active false) or takes it
// back. Inactive nodes hold no locks on their image.
func (n *Node) SetActive(l *aio.Lock, active bool) error {
	if active == n.Active() {
		return nil
	}
	if active {
		return n.activate(l)
	}
	if n.hasActiveNodeParent() {
		return qerr.New("Node has active parent node")
	}
	if err := n.inactivate(l); err != nil {
		return qerr.Prepend(err, "Failed to inactivate node: ")
	}
	return nil
}

// SetAllActive hands over the nodes or takes them back: inactivation begins at
// those that no other node uses. Not quite all: see [Graph.visited].
func (g *Graph) SetAllActive(l *aio.Lock, active bool) error {
	for _, n := range g.visited() {
		switch {
		case active == n.Active():
		case active:
			if err := n.activate(l); err != nil {
				return err
			}
		case !n.hasActiveNodeParent():
			if err := n.inactivate(l); err != nil {
				return qerr.Prepend(err, "Failed to inactivate all nodes: ")
			}
		}
	}
	return nil
}

// visited are the nodes that the reference visits when it means all: those
// with backends, then users' nodes from behind the last of these on. Older ones
// are passed over, and all of them if that last one is no user's (observed:
// own/export/inactive-all).
func (g *Graph) visited() []*Node {
	var nodes []*Node
	var last *Node
	seen := make(map[*Node]bool)
	g.Backends(func(b *Backend) bool {
		if n := b.Node(); n != nil {
			last = n
			if !seen[n] {
				seen[n] = true
				nodes = append(nodes, n)
			}
		}
		return true
	})
	if last != nil && !last.monitorOwned {
		return nodes
	}
	n := g.nodes.head
	if last != nil {
		n = last.nextNode
	}
	for ; n != nil; n = n.nextNode {
		if n.monitorOwned && !seen[n] {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// activate takes the children first: the node may read them.
func (n *Node) activate(l *aio.Lock) error {
	for _, c := range n.children {
		if err := c.node.SetActive(l, true); err != nil {
			return err
		}
	}
	if n.Active() {
		return nil
	}
	err := n.graph.Write(l, "activate "+n.name, func(w *Write) error {
		n.flags &^= FlagInactive
		w.onAbort(func() { n.flags |= FlagInactive })
		w.enableBackends(n)
		return w.refreshPerms(nil, n)
	})
	if err != nil {
		return err
	}
	if err := n.invalidate(l); err != nil {
		n.flags |= FlagInactive
		return err
	}
	return nil
}

// invalidate forgets what another process may have changed.
func (n *Node) invalidate(l *aio.Lock) error {
	n.extents.forgetAll()
	if v, ok := n.instance.(Invalidator); ok {
		_, err := aio.Mixed(l, n.Context(), "invalidate_cache", func(co *aio.Co) (struct{}, error) {
			return struct{}{}, v.CoInvalidateCache(co)
		})
		if err != nil {
			return err
		}
	}
	return n.RefreshTotalSectors(l, n.totalSectors.Load())
}

// inactivate gives the node up, then those children that nobody else uses.
func (n *Node) inactivate(l *aio.Lock) error {
	n.DrainedBegin(l)
	defer n.DrainedEnd()
	if err := n.Flush(l); err != nil {
		return err
	}
	// A driver's work is not undone: whatever else may refuse comes first.
	if err := n.canInactivate(); err != nil {
		return err
	}
	if i, ok := n.instance.(Inactivator); ok {
		if err := i.Inactivate(l); err != nil {
			return err
		}
	}
	err := n.graph.Write(l, "inactivate "+n.name, func(w *Write) error {
		w.disableBackends(n)
		n.flags |= FlagInactive
		w.onAbort(func() { n.flags &^= FlagInactive })
		n.extents.forgetAll()
		return w.refreshPerms(nil, n)
	})
	if err != nil {
		return err
	}
	for _, c := range n.children {
		if c.node.Active() && !c.node.hasActiveNodeParent() {
			if err := c.node.inactivate(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// canInactivate fails if a user needs the node active, or one of its stored
// bitmaps.
func (n *Node) canInactivate() error {
	for c := n.parents.head; c != nil; c = c.nextParent {
		if b, ok := c.owner.(*Backend); ok && !b.inactive && !b.canInactivate() {
			return qerr.From(syscall.EPERM)
		}
	}
	for _, b := range n.DirtyBitmaps() {
		if b.persistent && b.busy {
			return b.Check(0)
		}
	}
	return nil
}

// disableBackends takes the permissions of the node's users away for as long
// as it is inactive.
func (w *Write) disableBackends(n *Node) {
	for c := n.parents.head; c != nil; c = c.nextParent {
		b, ok := c.owner.(*Backend)
		if !ok || b.inactive {
			continue
		}
		b.inactive = true
		w.onAbort(func() { b.inactive = false })
		w.setPerm(c, 0, PermAll)
	}
}

func (w *Write) enableBackends(n *Node) {
	for c := n.parents.head; c != nil; c = c.nextParent {
		if b, ok := c.owner.(*Backend); ok && b.inactive {
			b.inactive = false
			w.onAbort(func() { b.inactive = true })
			w.setPerm(c, b.perm, b.shared)
		}
	}
}

func (n *Node) hasActiveNodeParent() bool {
	for c := n.parents.head; c != nil; c = c.nextParent {
		if p := c.ParentNode(); p != nil && p.Active() {
			return true
		}
	}
	return false
}
