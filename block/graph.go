package block

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/trace"
)

// Config is what a graph needs from outside.
type Config struct {
	// Drivers are the drivers that options can name.
	Drivers []*Driver
	// Tracer receives trace points; nil for none.
	Tracer *trace.Tracer
	// OpenFile opens a host file; it knows names like /dev/fdset/2.
	OpenFile OpenFileFunc
	// WriteThreshold is called when a write passes a node's threshold, by
	// exceeded bytes. It may run in any goroutine and must not block.
	WriteThreshold func(node string, threshold, exceeded uint64)
	// ImageCorrupted is called when a driver finds damage in an image. It may
	// run in any goroutine and must not block.
	ImageCorrupted func(node string, c Corruption)
	// QuorumFailed and QuorumBad are called when children of a quorum do not
	// agree. They may run in any goroutine and must not block.
	QuorumFailed func(f QuorumFailure)
	QuorumBad    func(b QuorumBad)
	// Complain receives lines about what went wrong in nobody's command, or
	// behind its reply. It may run in any goroutine and must not block.
	Complain func(line string)
	// Warn receives a line for whoever gave the command, or the option, that is
	// being followed: "warning: …"; there may be more lines in it. Nil: nobody
	// hears of it.
	Warn func(line string)
	// Tell receives a line for whoever looks at the program's standard output;
	// nil: nobody does.
	Tell func(line string)
	// Panicked is told of a panic in a coroutine that nobody waits for.
	Panicked func(*aio.PanicError)
	// DeviceName tells whether a name belongs to a device or named backend,
	// so that a node cannot take it.
	DeviceName func(name string) *Node
	// TLSClient finds the TLS credentials of a client by their id. The result
	// starts TLS on a connection to a server whose certificate must be for
	// hostname. Nil: there are no credentials.
	TLSClient func(credsID string) (TLSStarter, error)
	// SocketFD hands out the descriptor that is meant by an address of a
	// socket. Nil: there are none.
	SocketFD func(name string) (*os.File, error)
	// Secret finds the content of a secret object; nil if there are none.
	Secret func(id string) ([]byte, error)
	// RefuseOldEncryption keeps images from being opened whose encryption is
	// flawed by design.
	RefuseOldEncryption bool
}

// TLSStarter makes a connection secret; see [Config].
type TLSStarter func(conn net.Conn, hostname string) (net.Conn, error)

// TLSClient finds the TLS credentials of a client by the means the graph was
// given.
func (g *Graph) TLSClient(credsID string) (TLSStarter, error) {
	if g.cfg.TLSClient == nil {
		return nil, qerr.New("No TLS credentials with id '%s'", credsID)
	}
	return g.cfg.TLSClient(credsID)
}

// SocketFD hands out a descriptor by the means the graph was given.
func (g *Graph) SocketFD(name string) (*os.File, error) {
	if g.cfg.SocketFD == nil {
		return nil, qerr.New("only QEMU supports file descriptor passing")
	}
	return g.cfg.SocketFD(name)
}

// Warn tells the user whose command is being followed of what may go wrong
// later.
func (g *Graph) Warn(format string, args ...any) {
	if g.cfg.Warn != nil {
		g.cfg.Warn("warning: " + fmt.Sprintf(format, args...))
	}
}

// Graph is a set of nodes and the edges between them, with everything that
// belongs to them: the lock, the drivers, the main context.
type Graph struct {
	cfg     Config
	drivers map[string]*Driver
	tracer  *trace.Tracer
	rw      graphLock
	main    *aio.Context

	names  map[string]*Node
	nodes  nodeList // every named node, the oldest first
	serial uint64   // of generated names

	ctxMu sync.Mutex
	extra []*aio.Context // contexts of iothreads

	made       atomic.Uint64 // nodes so far
	backends   backendList
	holders    *Holding // the newest first
	drainedAll int      // sections of all holders
	shown      shownNames
}

// New makes an empty graph with its main context.
func New(cfg Config) *Graph {
	g := &Graph{cfg: cfg, drivers: make(map[string]*Driver), tracer: cfg.Tracer, names: make(map[string]*Node)}
	for _, d := range cfg.Drivers {
		g.drivers[d.Name] = d
	}
	g.main = aio.NewContext("main", readGuard{g}, cfg.Tracer, cfg.Panicked)
	return g
}

// readGuard gives coroutines the graph's read lock.
type readGuard struct{ g *Graph }

func (r readGuard) TryRLock() bool { return r.g.rw.TryRLock() }
func (r readGuard) RLock()         { r.g.rw.RLock() }
func (r readGuard) RUnlock()       { r.g.rw.RUnlock() }

// Main is the context in which commands run and the graph changes.
func (g *Graph) Main() *aio.Context { return g.main }

// NewContext makes a context for an iothread.
func (g *Graph) NewContext(name string) *aio.Context {
	ctx := aio.NewContext(name, readGuard{g}, g.tracer, g.cfg.Panicked)
	g.ctxMu.Lock()
	defer g.ctxMu.Unlock()
	g.extra = append(g.extra, ctx)
	return ctx
}

// RetireContext ends an iothread's context. If nodes still live there it goes
// on serving them until the graph is closed.
func (g *Graph) RetireContext(ctx *aio.Context) {
	used := false
	g.Nodes(func(n *Node) bool {
		used = n.Context() == ctx
		return !used
	})
	if used {
		return
	}
	ctx.Close()
	g.ctxMu.Lock()
	defer g.ctxMu.Unlock()
	g.extra = slices.DeleteFunc(g.extra, func(c *aio.Context) bool { return c == ctx })
}

func (g *Graph) contexts() []*aio.Context {
	g.ctxMu.Lock()
	defer g.ctxMu.Unlock()
	return append([]*aio.Context{g.main}, g.extra...)
}

// Secret finds the content of a secret object.
func (g *Graph) Secret(id string) ([]byte, error) {
	if g.cfg.Secret == nil {
		return nil, qerr.New("No secret with id '%s'", id)
	}
	return g.cfg.Secret(id)
}

// RefusesOldEncryption tells whether images whose encryption is flawed by
// design are not to be opened.
func (g *Graph) RefusesOldEncryption() bool { return g.cfg.RefuseOldEncryption }

// Driver returns the driver with the given name, or nil.
func (g *Graph) Driver(name string) *Driver { return g.drivers[name] }

// Node finds a node by its name, or returns nil.
func (g *Graph) Node(name string) *Node { return g.names[name] }

// FindNode finds a node by its name, with the error clients know.
func (g *Graph) FindNode(name string) (*Node, error) {
	if n := g.names[name]; n != nil {
		return n, nil
	}
	return nil, qerr.New("Failed to find node with node-name='%s'", name)
}

// Lookup finds the node that a device or node name refers to. Either may be
// empty; device names go first.
func (g *Graph) Lookup(device, node string) (*Node, error) {
	if device != "" && g.cfg.DeviceName != nil {
		if n := g.cfg.DeviceName(device); n != nil {
			return n, nil
		}
	}
	if node != "" {
		if n := g.names[node]; n != nil {
			return n, nil
		}
	}
	return nil, qerr.New("Cannot find device='%s' nor node-name='%s'", device, node)
}

// Nodes visits every named node, the newest first, until f returns false.
func (g *Graph) Nodes(f func(*Node) bool) {
	for n := g.nodes.tail; n != nil; n = n.prevNode {
		if !f(n) {
			return
		}
	}
}

// NodesOldestFirst visits every named node in the order of creation.
func (g *Graph) NodesOldestFirst(f func(*Node) bool) {
	for n := g.nodes.head; n != nil; n = n.nextNode {
		if !f(n) {
			return
		}
	}
}

// Len is the number of named nodes.
func (g *Graph) Len() int { return len(g.names) }

// nodeList keeps nodes in the order in which they got their names.
type nodeList struct{ head, tail *Node }

func (l *nodeList) add(n *Node) {
	n.prevNode, n.nextNode = l.tail, nil
	if l.tail != nil {
		l.tail.nextNode = n
	} else {
		l.head = n
	}
	l.tail = n
}

func (l *nodeList) remove(n *Node) {
	if n.prevNode != nil {
		n.prevNode.nextNode = n.nextNode
	} else {
		l.head = n.nextNode
	}
	if n.nextNode != nil {
		n.nextNode.prevNode = n.prevNode
	} else {
		l.tail = n.prevNode
	}
	n.prevNode, n.nextNode = nil, nil
}

// maxNodeName is the longest node name, in bytes.
const maxNodeName = 31

// assignName gives a node its name, or a generated one if name is not set.
func (w *Write) assignName(n *Node, name string, given bool) error {
	g := w.graph
	if !given {
		name = g.generateName()
	} else if !WellFormedID(name) {
		return qerr.New("Invalid node-name: '%s'", name)
	}
	if g.cfg.DeviceName != nil && g.cfg.DeviceName(name) != nil {
		return qerr.New("node-name=%s is conflicting with a device id", name)
	}
	if g.names[name] != nil {
		return qerr.New("Duplicate nodes with node-name='%s'", name)
	}
	if len(name) > maxNodeName {
		return qerr.New("Node name too long")
	}
	n.name = name
	g.names[name] = n
	g.nodes.add(n)
	g.tracer.At(trace.GraphAddNode).Str("node", name).Str("driver", n.drv.Name).Send()
	return nil
}

// generateName makes names that no user can have chosen: '#' does not pass as
// an identifier, and the random digits keep clients from guessing them.
func (g *Graph) generateName() string {
	name := fmt.Sprintf("#block%d%02d", g.serial, rand.IntN(100))
	g.serial++
	return name
}

// WellFormedID tells whether s is an identifier: a letter, then letters,
// digits, '-', '.', '_'.
func WellFormedID(s string) bool {
	for i, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_')) {
			return false
		}
	}
	return s != ""
}

// dropName takes a node out of the graph's list.
func (w *Write) dropName(n *Node) {
	g := w.graph
	if n.name == "" || g.names[n.name] != n {
		return
	}
	delete(g.names, n.name)
	g.nodes.remove(n)
	g.tracer.At(trace.GraphRemoveNode).Str("node", n.name).Send()
}
