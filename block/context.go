package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/trace"
)

// SetContext moves a node and everything connected with it to another
// context, where its coroutines are spawned from then on. A backend whose
// context is fixed refuses.
func (n *Node) SetContext(l *aio.Lock, ctx *aio.Context) error {
	if n.Context() == ctx {
		return nil
	}
	n.DrainedBegin(l)
	defer n.DrainedEnd()
	return n.graph.Write(l, "move "+n.name, func(w *Write) error { return w.tryMove(n, ctx) })
}

// tryMove moves a node unless a backend somewhere among those it is connected
// with has to stay.
func (w *Write) tryMove(n *Node, ctx *aio.Context) error {
	if n.Context() == ctx {
		return nil
	}
	if n.keptFrom(ctx, make(map[*Node]bool)) {
		return qerr.New("Cannot change iothread of active block backend")
	}
	w.moveInto(n, ctx)
	return nil
}

// meetContexts brings both ends of a new edge together: the child follows the
// parent if it may, else the parent the child.
func (w *Write) meetContexts(parent, child *Node) error {
	if w.tryMove(child, parent.Context()) == nil {
		return nil
	}
	return w.tryMove(parent, child.Context())
}

// keptFrom tells whether a backend keeps the node, or one that would move with
// it, out of a context. seen are the nodes that need not be asked again.
func (n *Node) keptFrom(ctx *aio.Context, seen map[*Node]bool) bool {
	if seen[n] || n.Context() == ctx {
		return false
	}
	seen[n] = true
	for _, c := range n.children {
		if c.node.keptFrom(ctx, seen) {
			return true
		}
	}
	for c := n.parents.head; c != nil; c = c.nextParent {
		switch p := c.owner.(type) {
		case *Node:
			if p.keptFrom(ctx, seen) {
				return true
			}
		case *Backend:
			if p.FixedContext {
				return true
			}
		case *Holding:
			for _, e := range p.edges {
				if e.node.keptFrom(ctx, seen) {
					return true
				}
			}
		}
	}
	return false
}

// moveInto moves a node, its children and its parents, and what is held together
// with it: requests of one chain, and of one job, run in one context.
func (w *Write) moveInto(n *Node, ctx *aio.Context) {
	if n.Context() == ctx {
		return
	}
	old := n.ctx.Swap(ctx)
	w.onAbort(func() { n.ctx.Store(old) })
	w.graph.tracer.At(trace.NodeMoveContext).Str("node", n.name).Str("context", ctx.Name()).Send()
	for _, c := range n.children {
		w.moveInto(c.node, ctx)
	}
	for c := n.parents.head; c != nil; c = c.nextParent {
		switch p := c.owner.(type) {
		case *Node:
			w.moveInto(p, ctx)
		case *Backend:
			p.follow(w, n)
		case *Holding:
			for _, e := range p.edges {
				w.moveInto(e.node, ctx)
			}
		}
	}
}
