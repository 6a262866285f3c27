package block

import (
	"cmp"
	"slices"
)

// The reference drains the whole graph node by node, the oldest first, each with
// all above it. Holders pause when the first node is drained that they hold or that
// is below one; they go on when the last of these is not any more (observed:
// own/jobs/drains-order).

// pauseOrder are the holders in the order in which they pause.
func (g *Graph) pauseOrder() (order []*Holding) {
	if g.soleHolder() {
		return []*Holding{g.holders}
	}
	seen := make(map[*Node]bool)
	var drain func(n *Node)
	drain = func(n *Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		for c := n.parents.head; c != nil; c = c.nextParent {
			switch owner := c.owner.(type) {
			case *Node:
				drain(owner)
			case *Holding:
				if !slices.Contains(order, owner) {
					order = append(order, owner)
				}
			}
		}
	}
	for _, n := range g.heldNodes() {
		drain(n)
	}
	return g.withIdle(order)
}

// resumeOrder are the holders in the order in which they go on.
func (g *Graph) resumeOrder() (order []*Holding) {
	if g.soleHolder() {
		return []*Holding{g.holders}
	}
	nodes := g.heldNodes()
	drains := make(map[*Node]int, len(nodes)) // of its own, and one for each child
	for _, n := range nodes {
		drains[n] = 1 + len(n.children)
	}
	edges := make(map[*Holding]int) // that are still drained
	for h := g.holders; h != nil; h = h.next {
		edges[h] = len(h.edges)
	}
	var end func(n *Node)
	end = func(n *Node) {
		drains[n]--
		if drains[n] != 0 {
			return
		}
		for c := n.parents.head; c != nil; c = c.nextParent {
			switch owner := c.owner.(type) {
			case *Node:
				end(owner)
			case *Holding:
				if edges[owner]--; edges[owner] == 0 {
					order = append(order, owner)
				}
			}
		}
	}
	for _, n := range nodes {
		end(n)
	}
	return g.withIdle(order)
}

// soleHolder tells whether there is one holder and no more.
func (g *Graph) soleHolder() bool { return g.holders != nil && g.holders.next == nil }

// heldNodes are the nodes that are held and those below, the oldest first.
func (g *Graph) heldNodes() (nodes []*Node) {
	seen := make(map[*Node]bool)
	var add func(n *Node)
	add = func(n *Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		nodes = append(nodes, n)
		for _, c := range n.children {
			add(c.node)
		}
	}
	for h := g.holders; h != nil; h = h.next {
		for _, c := range h.edges {
			add(c.node)
		}
	}
	slices.SortFunc(nodes, func(a, b *Node) int { return cmp.Compare(a.serial, b.serial) })
	return nodes
}

// withIdle completes a list of holders by those that hold nothing.
func (g *Graph) withIdle(order []*Holding) []*Holding {
	for h := g.holders; h != nil; h = h.next {
		if len(h.edges) == 0 {
			order = append(order, h)
		}
	}
	return order
}
