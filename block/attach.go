package block

import (
	"slices"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/trace"
)

// AttachChild makes child a child of parent and computes the permissions of
// everything below. The child's reference passes to the edge.
func (w *Write) AttachChild(parent, child *Node, name string, role Role) (*Child, error) {
	c, err := w.attach(parent, child, name, role, nil)
	if err != nil {
		return nil, err
	}
	if err := w.refreshPerms(nil, child); err != nil {
		return nil, err
	}
	return c, nil
}

// attach is AttachChild before the permissions below are computed: for a change
// that is not complete yet.
func (w *Write) attach(parent, child *Node, name string, role Role, reopen *ReopenState) (*Child, error) {
	if reaches(child, parent) {
		return nil, qerr.New("Making '%s' a %s child of '%s' would create a cycle", child.name, name, parent.name)
	}
	if err := checkActive(parent, child, name); err != nil {
		return nil, err
	}
	c := &Child{name: name, role: role, owner: parent}
	perm, shared := parent.parents.cumulative()
	c.perm, c.shared = parent.childPerm(c, child, role, reopen, perm, shared)
	w.link(c, child)
	parent.children = append([]*Child{c}, parent.children...)
	w.onAbort(func() { parent.removeChild(c) })
	if err := w.meetContexts(parent, child); err != nil {
		return nil, err
	}
	return c, nil
}

// checkActive: a node that this process uses cannot rest on one that another
// process may be writing to.
func checkActive(parent, child *Node, name string) error {
	if parent.Active() && !child.Active() {
		return qerr.New("Inactive '%s' can't be a %s child of active '%s'", child.name, name, parent.name)
	}
	return nil
}

// reaches tells whether there is a way down from one node to another.
func reaches(from, to *Node) bool {
	if from == to || len(from.children) == 0 {
		return from == to
	}
	// Two ways may lead to one node, and so on below it: each is entered once.
	seen := make(map[*Node]bool)
	var visit func(n *Node) bool
	visit = func(n *Node) bool {
		if n == to {
			return true
		}
		if seen[n] {
			return false
		}
		seen[n] = true
		return slices.ContainsFunc(n.children, func(c *Child) bool { return visit(c.node) })
	}
	return visit(from)
}

func (n *Node) removeChild(c *Child) {
	for i, have := range n.children {
		if have == c {
			n.children = append(n.children[:i:i], n.children[i+1:]...)
			return
		}
	}
}

func (n *Node) insertChild(c *Child, at int) {
	n.children = append(n.children[:at:at], append([]*Child{c}, n.children[at:]...)...)
}

// link puts an edge's lower end on a node.
func (w *Write) link(c *Child, n *Node) { w.linkBefore(c, n, n.parents.head) }

// linkBefore is link with a place among the node's parents, nil for the end.
func (w *Write) linkBefore(c *Child, n *Node, next *Child) {
	c.node = n
	n.parents.addBefore(c, next)
	c.blockBacking()
	n.drainOwner(c.owner)
	w.graph.tracer.At(trace.GraphAttachChild).Str("owner", c.owner.describe()).Str("child", c.name).Str("node", n.name).Send()
	w.onAbort(func() {
		c.unblockBacking()
		n.parents.remove(c)
		c.node = nil
		n.undrainOwner(c.owner)
	})
}

// unlink takes an edge's lower end off its node; the node keeps its reference
// until the section commits.
func (w *Write) unlink(c *Child) *Node {
	n := c.node
	next := c.nextParent
	c.unblockBacking()
	n.parents.remove(c)
	c.node = nil
	n.undrainOwner(c.owner)
	w.graph.tracer.At(trace.GraphDetachChild).Str("owner", c.owner.describe()).Str("child", c.name).Str("node", n.name).Send()
	w.onAbort(func() {
		c.node = n
		n.parents.addBefore(c, next)
		c.blockBacking()
		n.drainOwner(c.owner)
	})
	return n
}

// DetachChild removes an edge; its node goes when nobody else uses it. Giving
// up permissions cannot fail; should a driver complain, it keeps what it has.
// Whatever user had taken the node to an iothread, it goes home to the main
// context if the others let it.
func (w *Write) DetachChild(c *Child) error {
	n := w.detach(c)
	if err := w.refreshPerms(nil, n); err != nil {
		return err
	}
	_ = w.tryMove(n, w.graph.main)
	return nil
}

// detach is DetachChild before the permissions are computed. The node's
// reference goes when the section commits.
func (w *Write) detach(c *Child) *Node {
	n := w.unlink(c)
	if parent := c.ParentNode(); parent != nil {
		at := 0
		for i, have := range parent.children {
			if have == c {
				at = i
			}
		}
		parent.removeChild(c)
		w.onAbort(func() { parent.insertChild(c, at) })
		parent.forget(w, c)
	}
	w.onCommit(func() { w.unref(n) })
	return n
}

// forget clears the shortcuts that point to an edge.
func (n *Node) forget(w *Write, c *Child) {
	file, backing := n.file, n.backing
	if n.file == c {
		n.file = nil
	}
	if n.backing == c {
		n.backing = nil
	}
	w.onAbort(func() { n.file, n.backing = file, backing })
}

// ref takes a reference to the node.
func (n *Node) ref() { n.refs++ }

// Ref takes a reference, which keeps users from deleting the node until it is
// given back to [Graph.Unref].
func (n *Node) Ref(*aio.Lock) { n.ref() }

// unref gives one back. The last one takes the node out of the graph; it is
// closed when the write section is over.
func (w *Write) unref(n *Node) {
	n.refs--
	if n.refs > 0 {
		return
	}
	w.dropName(n)
	w.closing = append(w.closing, n)
}

// Unref gives a reference back outside of a write section.
func (g *Graph) Unref(l *aio.Lock, n *Node) {
	// Nothing in here can fail.
	_ = g.Write(l, "unref "+n.name, func(w *Write) error {
		w.unref(n)
		return nil
	})
}

// closeNode ends a node that nobody uses any more: requests are over since no
// edge leads to it.
func (g *Graph) closeNode(l *aio.Lock, n *Node) {
	g.DrainAll(l)
	n.DrainedBegin(l)
	if n.instance != nil {
		if !n.ReadOnly() && n.Active() {
			// What others wrote below becomes durable too. A failing last flush
			// has nobody to report to; the reference ignores it as well.
			_ = n.Flush(l)
		}
		n.instance.Close(l)
		n.instance = nil
	}
	n.DrainedEnd()
	g.shown.gone(n)
	for len(n.children) > 0 {
		c := n.children[0]
		err := g.Write(l, "close "+n.name, func(w *Write) error { return w.DetachChild(c) })
		if err != nil {
			// Only taking permissions can fail, and this gives them up.
			panic("block: detaching a child failed: " + err.Error())
		}
	}
	if g.names[n.name] != n {
		return
	}
	// It could not be opened, and nobody has used it.
	_ = g.Write(l, "drop "+n.name, func(w *Write) error {
		w.dropName(n)
		return nil
	})
}
