package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/trace"
)

// DrainedBegin starts a drained section: when it returns, no request is under
// way on the node or comes through its parents until [Node.DrainedEnd].
// Sections nest. The main context's lock is released while requests finish.
func (n *Node) DrainedBegin(l *aio.Lock) {
	n.graph.tracer.At(trace.GraphDrainBegin).Str("node", n.name).Send()
	l.Settle()
	n.drainedBegin()
	aio.WaitWhile(l, n.busy)
}

// DrainedEnd ends a drained section; requests that waited go on.
func (n *Node) DrainedEnd() {
	n.drainedEnd()
	n.graph.tracer.At(trace.GraphDrainEnd).Str("node", n.name).Send()
}

// drainTwice is what the reference does to a node that a backend lets go of
// (observed: own/jobs/drains).
func (n *Node) drainTwice(l *aio.Lock) {
	for range 2 {
		n.DrainedBegin(l)
		n.DrainedEnd()
	}
}

func (n *Node) drainedBegin() {
	if n.quiesce.Add(1) > 1 {
		return
	}
	for c := n.parents.head; c != nil; c = c.nextParent {
		c.owner.drainedBegin()
	}
	if d, ok := n.instance.(Drainer); ok {
		d.DrainBegin()
	}
}

func (n *Node) drainedEnd() {
	if n.quiesce.Add(-1) > 0 {
		return
	}
	if d, ok := n.instance.(Drainer); ok {
		d.DrainEnd()
	}
	for c := n.parents.head; c != nil; c = c.nextParent {
		c.owner.drainedEnd()
	}
}

// busy tells whether a request is under way on the node or on its way to it.
func (n *Node) busy() bool {
	if n.inFlight.Load() > 0 {
		return true
	}
	for c := n.parents.head; c != nil; c = c.nextParent {
		if c.owner.busy() {
			return true
		}
	}
	return false
}

// begin and end count requests of the node for drained sections.
func (n *Node) begin() { n.inFlight.Add(1) }

func (n *Node) end() {
	if n.inFlight.Add(-1) == 0 && n.quiesce.Load() > 0 {
		n.graph.main.Kick()
	}
}
