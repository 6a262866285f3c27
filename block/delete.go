package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// DeleteNode removes a node which a user added and nobody uses.
func (g *Graph) DeleteNode(l *aio.Lock, name string) error {
	n, err := g.FindNode(name)
	if err != nil {
		return err
	}
	if n.HasBackend() {
		return qerr.New("Node %s is in use", name)
	}
	if err := n.CheckBlocked(BlockOpDelete); err != nil {
		return err
	}
	if !n.monitorOwned {
		return qerr.New("Node %s is not owned by the monitor", name)
	}
	if n.refs > 1 {
		return qerr.New("Block device %s is in use", name)
	}
	n.monitorOwned = false
	g.Unref(l, n)
	return nil
}

// HasBackend tells whether a device, an export or a job uses the node.
func (n *Node) HasBackend() bool {
	for c := n.parents.head; c != nil; c = c.nextParent {
		if _, ok := c.owner.(*Backend); ok {
			return true
		}
	}
	return false
}

// Close ends the graph: users' nodes are given up, the newest last, and every
// context is waited for. Backends must have been closed.
func (g *Graph) Close() {
	l := g.main.Acquire()
	for _, n := range g.ownedNodes() {
		n.monitorOwned = false
		g.Unref(l, n)
	}
	l.Release()
	for _, ctx := range g.contexts() {
		ctx.Close()
	}
}

func (g *Graph) ownedNodes() []*Node {
	var owned []*Node
	g.NodesOldestFirst(func(n *Node) bool {
		if n.monitorOwned {
			owned = append(owned, n)
		}
		return true
	})
	return owned
}
