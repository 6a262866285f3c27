package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
)

// Holder is somebody outside of the graph who holds nodes without sending
// requests through the edge: a job. Its methods are called with the main
// context's lock.
type Holder interface {
	// Describe names the holder in permission errors.
	Describe() string
	// Label names it in the dump of the graph.
	Label() string
	// DrainedBegin and DrainedEnd bracket a drained section of a node that is
	// held; Busy tells whether the holder is still at work there. They must not
	// wait; who waits for Busy polls the main context.
	DrainedBegin()
	DrainedEnd()
	Busy() bool
}

// Holding is the edges by which a [Holder] holds nodes. For the graph it is
// their owner.
type Holding struct {
	holder     Holder
	graph      *Graph
	edges      []*Child // the newest first
	prev, next *Holding
}

func (h *Holding) describe() string { return h.holder.Describe() }
func (h *Holding) drainedBegin()    { h.holder.DrainedBegin() }
func (h *Holding) drainedEnd()      { h.holder.DrainedEnd() }
func (h *Holding) busy() bool       { return h.holder.Busy() }
func (h *Holding) keepOut()         {}
func (h *Holding) letIn()           {}
func (h *Holding) resized()         {}

// NewHolding makes a holder known to the graph. It holds nothing yet.
func (g *Graph) NewHolding(holder Holder) *Holding {
	h := &Holding{holder: holder, graph: g, next: g.holders}
	if h.next != nil {
		h.next.prev = h
	}
	g.holders = h
	for range g.drainedAll {
		h.drainedBegin()
	}
	return h
}

// Add holds a node; it fails if the permissions do not allow it. The node comes
// to the main context, where holders are at home, if its other users let it
// (observed: jobs/iothread).
func (h *Holding) Add(l *aio.Lock, n *Node, name string, perm, shared Perm) error {
	return n.graph.Write(l, "hold "+n.name, func(w *Write) error {
		c := &Child{name: name, role: RoleFilter, owner: h, perm: perm, shared: shared}
		n.ref()
		w.onAbort(func() { n.refs-- })
		w.link(c, n)
		before := h.edges
		h.edges = append([]*Child{c}, before...)
		w.onAbort(func() { h.edges = before })
		_ = w.tryMove(n, w.graph.main)
		return w.refreshPerms(nil, n)
	})
}

// Edges are the edges, the newest first.
func (h *Holding) Edges() []*Child { return h.edges }

// Clear lets go of every node, the newest first.
func (h *Holding) Clear(l *aio.Lock) {
	if len(h.edges) > 0 {
		h.graph.DrainAll(l)
	}
	for len(h.edges) > 0 {
		c := h.edges[0]
		// Giving up permissions cannot fail.
		_ = h.graph.Write(l, "let go of "+c.node.name, func(w *Write) error {
			h.edges = h.edges[1:]
			return w.DetachChild(c)
		})
	}
}

// Close lets go of every node and makes the graph forget the holder.
func (h *Holding) Close(l *aio.Lock) {
	h.Clear(l)
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		h.graph.holders = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	}
}

// DrainAll pauses and resumes every holder: what a drained section of the whole
// graph means for those who send no requests through their edges. Those with
// work under way are waited for. The reference has such a section around each
// change of the graph's edges, and jobs show their users how many there were
// (observed: own/jobs/drains, own/jobs/drains-more).
func (g *Graph) DrainAll(l *aio.Lock) {
	if g.holders == nil {
		return
	}
	g.DrainAllBegin(l)
	g.DrainAllEnd(l)
}

// DrainAllBegin begins a drained section of all holders; they rest when it
// returns.
func (g *Graph) DrainAllBegin(l *aio.Lock) {
	l.Settle()
	for _, h := range g.pauseOrder() {
		h.drainedBegin()
	}
	g.drainedAll++
	aio.WaitWhile(l, func() bool {
		for h := g.holders; h != nil; h = h.next {
			if h.busy() {
				return true
			}
		}
		return false
	})
}

// DrainAllEnd ends it.
func (g *Graph) DrainAllEnd(l *aio.Lock) {
	g.drainedAll--
	for _, h := range g.resumeOrder() {
		h.drainedEnd()
	}
	l.Settle()
}
