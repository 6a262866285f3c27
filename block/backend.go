package block

import (
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Backend is how somebody outside of the graph uses a node: a device, an
// export, a job. It holds the node by an edge named "root", counts what its
// user does, and keeps requests back during drained sections.
type Backend struct {
	graph  *Graph
	name   string // of a drive; most are anonymous
	device string // what the guest device behind it is called, "" if none
	root   *Child
	perm   Perm
	shared Perm
	// ctx is the node's context, for callers that may not look at the node.
	ctx atomic.Pointer[aio.Context]

	// AllowWriteBeyondEOF lets an export or a job grow the node.
	AllowWriteBeyondEOF bool
	// AllowInactive lets the node be handed over although the user writes, and
	// be inserted while it is another process's.
	AllowInactive bool
	// FixedContext keeps the node in its context.
	FixedContext bool
	// RefuseDrained makes requests fail with EAGAIN in drained sections, and not
	// wait for their ends: for a user who is waited for.
	RefuseDrained bool
	// NoQueuing lets requests in during drained sections. It is for jobs: they are
	// told to rest and are waited for, which would never end if a request of theirs
	// waited for the section's end.
	NoQueuing bool
	// WriteCache says that the user flushes; without it every write is FUA.
	writeCache bool

	// inactive: the node is another process's; the permissions are given up
	// until it comes back.
	inactive bool

	stats    Stats
	inFlight atomic.Int64
	gate     drainGate

	prev, next *Backend
}

// NewBackend makes a backend with nothing inserted. It takes perm and shares
// shared on whatever is inserted later.
func (g *Graph) NewBackend(name string, perm, shared Perm) *Backend {
	b := &Backend{graph: g, name: name, perm: perm, shared: shared, writeCache: true}
	b.ctx.Store(g.main)
	b.gate.init()
	g.backends.add(b)
	return b
}

// Close removes the node and ends the backend.
func (b *Backend) Close(l *aio.Lock) {
	b.Remove(l)
	b.graph.backends.remove(b)
}

// Name is the backend's own name, usually empty.
func (b *Backend) Name() string { return b.name }

// SetDevice says which device uses the backend; it appears in errors.
func (b *Backend) SetDevice(name string) { b.device = name }

// Device is the name of the device that uses the backend, "" if none.
func (b *Backend) Device() string { return b.device }

// Node is the node inserted, nil if there is none.
func (b *Backend) Node() *Node {
	if b.root == nil {
		return nil
	}
	return b.root.node
}

// Context is where the backend's requests run. It may change when no request
// is under way.
func (b *Backend) Context() *aio.Context { return b.ctx.Load() }

// Root is the edge to the node, nil if nothing is inserted.
func (b *Backend) Root() *Child { return b.root }

// Stats are the counters of what the backend's user did.
func (b *Backend) Stats() *Stats { return &b.stats }

// Insert attaches a node; it fails if the permissions do not allow it.
func (b *Backend) Insert(l *aio.Lock, n *Node) error {
	b.graph.DrainAll(l)
	return b.graph.Write(l, "insert "+n.name, func(w *Write) error {
		c := &Child{name: "root", role: RoleFilter, owner: b, perm: b.perm, shared: b.shared}
		if b.AllowInactive && !n.Active() {
			c.perm, c.shared = 0, PermAll
			b.inactive = true
			w.onAbort(func() { b.inactive = false })
		}
		n.ref()
		w.onAbort(func() { n.refs-- })
		w.link(c, n)
		b.root = c
		w.onAbort(func() { b.root = nil })
		b.follow(w, n)
		return w.refreshPerms(nil, n)
	})
}

// follow takes the backend to the context of a node.
func (b *Backend) follow(w *Write, n *Node) {
	old := b.ctx.Swap(n.Context())
	w.onAbort(func() { b.ctx.Store(old) })
}

// Remove detaches the node, if there is one.
func (b *Backend) Remove(l *aio.Lock) {
	if b.root == nil {
		return
	}
	n := b.root.node
	n.drainTwice(l)
	b.graph.DrainAll(l)
	_ = b.graph.Write(l, "remove "+n.name, func(w *Write) error {
		c := b.root
		b.root = nil
		return w.DetachChild(c)
	})
}

// SetPerm changes what the backend takes and shares. While the node is another
// process's that shows only when it comes back.
func (b *Backend) SetPerm(l *aio.Lock, perm, shared Perm) error {
	if b.root != nil && !b.inactive {
		err := b.graph.Write(l, "permissions of a backend", func(w *Write) error {
			w.setPerm(b.root, perm, shared)
			return w.refreshPerms(nil, b.root.node)
		})
		if err != nil {
			return err
		}
	}
	b.perm, b.shared = perm, shared
	return nil
}

// SetWriteCache says whether the user flushes what must be durable.
func (b *Backend) SetWriteCache(on bool) { b.writeCache = on }

// WriteCache tells whether writes may stay in caches until a flush.
func (b *Backend) WriteCache() bool { return b.writeCache }

// canInactivate tells whether the node can be handed over under the user's
// feet: a device stops using it when the machine is stopped, and whoever does
// not write loses nothing.
func (b *Backend) canInactivate() bool {
	return b.AllowInactive || b.label() != "" || b.perm&anyWrite == 0
}

func (b *Backend) describe() string {
	if label := b.label(); label != "" {
		return "block device '" + label + "'"
	}
	return "an unnamed block device"
}

func (b *Backend) drainedBegin() {}
func (b *Backend) drainedEnd()   {}
func (b *Backend) busy() bool    { return b.inFlight.Load() > 0 }
func (b *Backend) keepOut()      { b.gate.close() }
func (b *Backend) letIn()        { b.gate.open() }
func (b *Backend) resized()      {}

// enter waits until the backend is not drained and counts the request. The
// count comes first: whoever closes the gate afterwards waits for it. An
// immediate request fails instead of waiting, and counts until it leaves.
func (b *Backend) enter(co *aio.Co, flags ReqFlags) error {
	for {
		b.inFlight.Add(1)
		if !b.gate.closed() || b.NoQueuing {
			return nil
		}
		if flags&ReqImmediate != 0 || b.RefuseDrained {
			return errWouldWait
		}
		b.leave()
		co.Yield(b.gate.wait)
	}
}

func (b *Backend) leave() {
	if b.inFlight.Add(-1) == 0 && b.gate.closed() {
		b.graph.main.Kick()
	}
}

// drainGate is shut while at least one drained section covers its backend.
type drainGate struct {
	mu   sync.Mutex
	cond sync.Cond
	shut atomic.Int32
}

func (d *drainGate) init() { d.cond.L = &d.mu }

func (d *drainGate) close() { d.shut.Add(1) }

func (d *drainGate) open() {
	if d.shut.Add(-1) == 0 {
		d.mu.Lock()
		d.cond.Broadcast()
		d.mu.Unlock()
	}
}

func (d *drainGate) closed() bool { return d.shut.Load() > 0 }

func (d *drainGate) wait() {
	d.mu.Lock()
	for d.closed() {
		d.cond.Wait()
	}
	d.mu.Unlock()
}

// backendList keeps the backends in the order of their making.
type backendList struct{ head, tail *Backend }

func (l *backendList) add(b *Backend) {
	b.prev = l.tail
	if l.tail != nil {
		l.tail.next = b
	} else {
		l.head = b
	}
	l.tail = b
}

func (l *backendList) remove(b *Backend) {
	if b.prev != nil {
		b.prev.next = b.next
	} else {
		l.head = b.next
	}
	if b.next != nil {
		b.next.prev = b.prev
	} else {
		l.tail = b.prev
	}
	b.prev, b.next = nil, nil
}

// Backends visits every backend, the oldest first.
func (g *Graph) Backends(f func(*Backend) bool) {
	for b := g.backends.head; b != nil; b = b.next {
		if !f(b) {
			return
		}
	}
}

// available fails when no node is inserted.
func (b *Backend) available() (*Node, error) {
	if b.root == nil {
		return nil, qerr.New("No medium inserted")
	}
	return b.root.node, nil
}
