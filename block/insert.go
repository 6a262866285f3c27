package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// InsertFilter opens a filter and makes it stand over a node, in whose place it
// serves the node's users. The options name the node as its file. The caller gets
// a reference to it.
func (g *Graph) InsertFilter(l *aio.Lock, options *Options, below *Node) (*Node, error) {
	options.setRootDefaults()
	filter, err := g.openNode(l, &openRequest{options: options, flags: FlagRDWR, trusted: true})
	if err != nil {
		return nil, qerr.Prepend(err, "Could not create node: ")
	}
	if err := g.ReplaceNode(l, below, filter); err != nil {
		g.Unref(l, filter)
		return nil, qerr.Prepend(err, "Could not replace node: ")
	}
	return filter, nil
}

// MakeImplicit hides a filter from users: it shows what it filters, and who names
// that means the filter as well.
func (n *Node) MakeImplicit(*aio.Lock) { n.implicit = true }

// SkipImplicit is the first node of a chain that users know of.
func (n *Node) SkipImplicit() *Node {
	for f := n.filtered(); n.implicit && f != nil; f = n.filtered() {
		n = f.node
	}
	return n
}

// Internal is a filter that the block layer's own users put into the graph.
type Internal struct {
	Driver *Driver
	// Name is the node's name, which must be free; nil: it gets one.
	Name *string
	// Flags are those it is open with.
	Flags Flags
}

// OpenInternal opens a node whose driver nobody can name, without children. The
// caller gets a reference to it.
func (g *Graph) OpenInternal(l *aio.Lock, f Internal) (*Node, error) {
	o := NewOptions()
	o.Set(optDriver, StringOpt(f.Driver.Name))
	if f.Name != nil {
		o.Set(optNodeName, StringOpt(*f.Name))
	}
	n := &Node{graph: g, serial: g.made.Add(1), refs: 1, flags: f.Flags, drv: f.Driver, options: o, explicit: o.Clone(), implicit: f.Name == nil}
	n.ctx.Store(g.main)
	left := o.Clone()
	left.Delete(optDriver)
	if err := g.openDriver(&OpenArgs{Lock: l, Node: n, Options: left, Flags: f.Flags}); err != nil {
		n.refs = 0
		g.closeNode(l, n)
		return nil, err
	}
	return n, nil
}

// IsInserted tells whether the node's medium is there.
func (n *Node) IsInserted(c aio.Caller) bool {
	m, ok := n.instance.(Inserter)
	if !ok {
		return true
	}
	inserted, err := aio.Mixed(c, n.Context(), "is_inserted", func(co *aio.Co) (bool, error) { return m.CoIsInserted(co), nil })
	return err == nil && inserted
}
