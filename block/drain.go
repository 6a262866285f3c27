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
	n.keepOut()
	n.drainedBegin()
	aio.WaitWhile(l, n.busy)
}

// DrainedEnd ends a drained section; requests that waited go on.
func (n *Node) DrainedEnd() {
	n.drainedEnd()
	n.letIn()
	n.graph.tracer.At(trace.GraphDrainEnd).Str("node", n.name).Send()
}

// LetIn lets requests in during a drained section whose owner waits for
// somebody, who may never come. All else rests as before.
func (n *Node) LetIn() { n.letIn() }

// KeepOut ends what LetIn has begun: when it returns no request is under way.
func (n *Node) KeepOut(l *aio.Lock) {
	n.keepOut()
	aio.WaitWhile(l, n.busy)
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

func (n *Node) keepOut() {
	if n.shut.Add(1) > 1 {
		return
	}
	for c := n.parents.head; c != nil; c = c.nextParent {
		c.owner.keepOut()
	}
}

func (n *Node) letIn() {
	if n.shut.Add(-1) > 0 {
		return
	}
	for c := n.parents.head; c != nil; c = c.nextParent {
		c.owner.letIn()
	}
}

// drainOwner makes a new owner part of the node's drained section, if there is
// one.
func (n *Node) drainOwner(o owner) {
	if n.shut.Load() > 0 {
		o.keepOut()
	}
	if n.quiesce.Load() > 0 {
		o.drainedBegin()
	}
}

// undrainOwner lets an owner go that uses the node no more.
func (n *Node) undrainOwner(o owner) {
	if n.quiesce.Load() > 0 {
		o.drainedEnd()
	}
	if n.shut.Load() > 0 {
		o.letIn()
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
