package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/trace"
)

// SetContext moves a node and everything connected with it to another
// context, where its coroutines are spawned from then on.
func (n *Node) SetContext(l *aio.Lock, ctx *aio.Context) error {
	if n.Context() == ctx {
		return nil
	}
	n.DrainedBegin(l)
	defer n.DrainedEnd()
	return n.graph.Write(l, "move "+n.name, func(w *Write) error {
		w.moveInto(n, ctx)
		return nil
	})
}

// moveInto moves a node, its children and its parents: requests of one chain
// run in one context.
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
		}
	}
}
