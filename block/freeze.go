package block

import "github.com/qmpblock/qmpblock/qerr"

// FreezeChain keeps every edge from a node down to base (nil: to the end) as it is, until
// [Node.UnfreezeChain]: jobs that walk along a chain rely on it. It fails if
// somebody else does so already.
func (n *Node) FreezeChain(base *Node) error {
	if err := n.CheckFrozen(base); err != nil {
		return err
	}
	for c := n.chainLink(base); c != nil; c = c.node.chainLink(base) {
		c.frozen++
	}
	return nil
}

// UnfreezeChain lets the edges change again.
func (n *Node) UnfreezeChain(base *Node) {
	for c := n.chainLink(base); c != nil; c = c.node.chainLink(base) {
		c.frozen--
	}
}

// CheckFrozen fails if an edge of the chain between two nodes must not change.
func (n *Node) CheckFrozen(base *Node) error {
	for at, c := n, n.chainLink(base); c != nil; at, c = c.node, c.node.chainLink(base) {
		if c.frozen > 0 {
			return qerr.New("Cannot change '%s' link from '%s' to '%s'", c.name, at.name, c.node.name)
		}
	}
	return nil
}

// chainLink is the edge to the next node of the chain that ends at base, nil at the
// end.
func (n *Node) chainLink(base *Node) *Child {
	if n == base {
		return nil
	}
	if c := n.filtered(); c != nil {
		return c
	}
	return n.cow()
}
