package export

import (
	"net"
	"slices"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Type is a kind of export, as in the QAPI type BlockExportType.
type Type string

// NBD is the kind of export that there is.
const NBD Type = "nbd"

// Types lists the kinds of exports that there are.
func Types() []Type { return []Type{NBD} }

// Options describe an export that is to be made.
type Options struct {
	Type     Type
	ID       string // unique among all kinds
	NodeName string

	// Writable lets clients write.
	Writable bool
	// WriteThrough makes every write durable before it is answered.
	WriteThrough bool
	// IOThread is the id of the iothread to which the node moves, if it may;
	// nil leaves it where it is.
	IOThread *string
	// FixedIOThread demands the move, and keeps the node from moving later.
	FixedIOThread bool
	// AllowInactive leaves a node inactive that is; else it is activated.
	AllowInactive bool

	// NBD is there if the type is.
	NBD *NBDOptions
}

// NBDOptions are those of the kind nbd.
type NBDOptions struct {
	Name            *string // nil: the node's name
	Description     *string
	Bitmaps         []Bitmap // that clients can query
	AllocationDepth bool     // clients can query it
}

// Bitmap names a dirty bitmap: of a node, or of the first node with one of
// that name in the chain that begins with the exported one.
type Bitmap struct {
	Node *string
	Name string
}

// Mode says what becomes of clients when an export is deleted.
type Mode uint8

// The modes, as in the QAPI type BlockExportRemoveMode.
const (
	// Safe refuses while clients are connected.
	Safe Mode = iota
	// Hard cuts them off.
	Hard
)

// Info describes an export.
type Info struct {
	ID           string
	Type         Type
	NodeName     string
	ShuttingDown bool
}

// Config is what a set of exports needs from outside.
type Config struct {
	Graph *block.Graph
	// Deleted is told that an export is gone and its id free. It is called
	// with the main context's lock held.
	Deleted func(id string)
	// IOThread finds the context of an iothread by its id or path; nil if there
	// is none.
	IOThread func(id string) *aio.Context
	// StartTLS finds credentials by their id, and the object that decides whom
	// to let in ("" for none), and returns what makes a connection secret.
	StartTLS func(creds, authz string) (func(net.Conn) (net.Conn, error), error)
	// Panicked is told of a panic in a request.
	Panicked func(*aio.PanicError)
	// Complain receives a line when a client's connection ends badly.
	Complain func(line string)
}

// kind is what makes one kind of export. Its methods are called in the main
// context.
type kind interface {
	// create publishes the export, whose backend holds the node already; it
	// may fail and has then left nothing behind.
	create(l *aio.Lock, e *Export, o *Options) error
	// settle lets clients go that are gone already. It may release the lock.
	settle(l *aio.Lock)
	// requestShutdown withdraws the export and cuts clients off. Clients with
	// no request under way let go of the export at once, on the caller's
	// goroutine; the others when their requests have ended. It does not wait,
	// nor release the lock, and may find an export withdrawn already.
	requestShutdown(l *aio.Lock)
	// delete frees what is left when nobody holds the export any more.
	delete(l *aio.Lock)
}

// Set is the exports of one daemon. Its methods are called in the main
// context, whose lock they may release while something is waited for.
type Set struct {
	cfg     Config
	exports []*Export // the oldest first
	leaving []*Export // of those, the ones that go when nobody holds them
	reaping bool      // somebody deletes some of them
	server  *nbdServer
	// kinds makes the part of an export that its kind adds.
	kinds map[Type]func() kind
}

// NewSet makes a set without exports.
func NewSet(cfg Config) *Set {
	s := &Set{cfg: cfg}
	s.kinds = map[Type]func() kind{NBD: s.newNBD}
	return s
}

// Export is a node that is shown to others.
type Export struct {
	set      *Set
	id       string
	typ      Type
	backend  *block.Backend
	writable bool
	kind     kind
	refs     refCount

	// Only the main context uses these.
	shutting bool // the user's reference is given back
	held     bool // deletion waits for [Set.Del]'s caller
}

// ID is the name by which users know the export.
func (e *Export) ID() string { return e.id }

// Backend is how the export uses its node.
func (e *Export) Backend() *block.Backend { return e.backend }

// Writable tells whether clients may write.
func (e *Export) Writable() bool { return e.writable }

// find returns the export with the given id, or nil.
func (s *Set) find(id string) *Export {
	for _, e := range s.exports {
		if e.id == id {
			return e
		}
	}
	return nil
}

// List describes the exports, the newest first.
func (s *Set) List(*aio.Lock) []Info {
	infos := make([]Info, 0, len(s.exports))
	for _, e := range slices.Backward(s.exports) {
		infos = append(infos, Info{ID: e.id, Type: e.typ, NodeName: e.nodeName(), ShuttingDown: e.shutting})
	}
	return infos
}

// nodeName is the node's name, "" if the node was taken away.
func (e *Export) nodeName() string {
	if n := e.backend.Node(); n != nil {
		return n.Name()
	}
	return ""
}

// Del takes an export away. If clients had to be cut off for it, the deletion
// and the word of it ([Config.Deleted]) wait until finish is called, as in the
// reference, where they follow the reply to the command; else finish is nil.
func (s *Set) Del(l *aio.Lock, id string, mode Mode) (finish func(*aio.Lock), err error) {
	e := s.find(id)
	if e == nil {
		return nil, qerr.New("Export '%s' is not found", id)
	}
	e.kind.settle(l)
	switch {
	case e.shutting:
		return nil, qerr.New("Export '%s' is already shutting down", id)
	case mode == Safe && e.hasClients():
		return nil, qerr.New("export '%s' still in use", id)
	}
	e.held = e.hasClients()
	if e.held {
		finish = func(l *aio.Lock) {
			e.held = false
			s.reap(l)
		}
	}
	e.requestShutdown(l)
	s.reap(l)
	return finish, nil
}

// requestShutdown gives the user's reference back and cuts clients off.
func (e *Export) requestShutdown(l *aio.Lock) {
	if e.shutting {
		return
	}
	e.shutting = true
	e.set.leaving = append(e.set.leaving, e)
	e.kind.requestShutdown(l)
	e.unref()
}

// closeAll takes the exports of a kind away, of every kind if none is given,
// and waits until they are gone. They go in the order in which the reference
// lets them go: first those with clients, then the newest.
func (s *Set) closeAll(l *aio.Lock, types ...Type) {
	concerned := func(e *Export) bool { return len(types) == 0 || slices.Contains(types, e.typ) }
	for _, e := range slices.Clone(s.exports) {
		e.kind.settle(l)
	}
	var busy, idle []*Export
	for _, e := range s.exports {
		switch {
		case !concerned(e):
		case e.hasClients():
			busy = append(busy, e)
		default:
			idle = append(idle, e)
		}
	}
	slices.Reverse(idle)
	for _, e := range append(busy, idle...) {
		e.held = false
		e.requestShutdown(l)
	}
	s.reap(l)
	aio.WaitWhile(l, func() bool { return slices.ContainsFunc(s.exports, concerned) })
}

// Close takes every export away and ends the server, whose socket stays in the
// file system (observed: own/export/quit).
func (s *Set) Close(l *aio.Lock) {
	s.closeAll(l)
	if s.server == nil {
		return
	}
	if unix, ok := s.server.listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false)
	}
	_ = s.StopServer(l) // it runs, that is all that could be wrong
}
