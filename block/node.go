package block

import (
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block/aio"
)

// SectorSize is the unit in which lengths are kept, in bytes. A node's length
// is rounded up to it.
const SectorSize = 512

// Node is one node of the block graph. Its fields change only under the
// graph's write lock or in a drained section of the main context, but for the
// atomic ones.
type Node struct {
	graph    *Graph
	serial   uint64 // in the order of creation
	name     string
	drv      *Driver
	instance Instance
	debugger Debugger                    // the instance, if it is one
	ctx      atomic.Pointer[aio.Context] // read without any lock

	// flags are those the node is open with; options all its options,
	// explicit those that the user gave for it.
	flags    Flags
	options  *Options
	explicit *Options

	detectZeroes DetectZeroes
	forceShare   bool
	monitorOwned bool
	// implicit: users do not know of the node, which shows what it filters.
	implicit bool
	refs     int
	// inheritsFrom is the parent from which an inline child got its options.
	inheritsFrom *Node

	children []*Child // the newest first
	file     *Child
	backing  *Child
	parents  parentList

	filename string // as opened, or as found out later
	probed   bool   // the format was guessed
	ejected  atomic.Bool

	// imageBacking is what the image says, autoBacking the name of the node
	// that was opened for it, or would be.
	imageBacking ImageBacking
	autoBacking  string

	limits       Limits
	totalSectors atomic.Int64
	quiesce      atomic.Int32 // nesting of drained sections
	shut         atomic.Int32 // nesting of those that keep requests out
	inFlight     atomic.Int64
	tracked      trackedRequests
	extents      extentCache

	writeGen  atomic.Uint64
	flush     flushState
	wrHighest atomic.Uint64
	threshold atomic.Uint64
	blockers  blockers
	bitmaps   dirtyBitmaps

	prevNode, nextNode *Node
}

// Name is the node's name.
func (n *Node) Name() string { return n.name }

// Driver is what kind of node it is.
func (n *Node) Driver() *Driver { return n.drv }

// Instance is the driver's part of the node.
func (n *Node) Instance() Instance { return n.instance }

// Graph is the graph the node belongs to.
func (n *Node) Graph() *Graph { return n.graph }

// Context is where the node's coroutines are spawned.
func (n *Node) Context() *aio.Context { return n.ctx.Load() }

// Flags are the flags the node is open with.
func (n *Node) Flags() Flags { return n.flags }

// Options are all options of the node, inherited ones included.
func (n *Node) Options() *Options { return n.options }

// DetectZeroes is what happens to written zeroes.
func (n *Node) DetectZeroes() DetectZeroes { return n.detectZeroes }

// ReadOnly tells whether the node refuses writes.
func (n *Node) ReadOnly() bool { return n.flags&FlagRDWR == 0 }

// Active tells whether this process owns the image.
func (n *Node) Active() bool { return n.flags&FlagInactive == 0 }

// Limits are the demands of the node's driver on requests.
func (n *Node) Limits() *Limits { return &n.limits }

// File is the child that holds the node's data, nil if there is none.
func (n *Node) File() *Child { return n.file }

// Backing is the child that is read where the node has no data, or nil.
func (n *Node) Backing() *Child { return n.backing }

// Children lists the node's children, the newest first. It must not be
// changed.
func (n *Node) Children() []*Child { return n.children }

// Child finds a child by its name, or returns nil.
func (n *Node) Child(name string) *Child {
	for _, c := range n.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// Parents visits the edges that lead to the node, the newest first.
func (n *Node) Parents(f func(*Child) bool) {
	for c := n.parents.head; c != nil; c = c.nextParent {
		if !f(c) {
			return
		}
	}
}

// MonitorOwned tells whether a user added the node and may delete it.
func (n *Node) MonitorOwned() bool { return n.monitorOwned }

// Cumulative is what all users of the node take and share.
func (n *Node) Cumulative() (perm, shared Perm) { return n.parents.cumulative() }

// WrHighestOffset is the highest offset ever written to, in bytes.
func (n *Node) WrHighestOffset() uint64 { return n.wrHighest.Load() }

// filtered is the child whose data a filter shows, or nil.
func (n *Node) filtered() *Child {
	if n.drv.Kind != Filter {
		return nil
	}
	if n.drv.FilterThroughBacking {
		return n.backing
	}
	return n.file
}

// PrimaryChild is the child that stands for the node's own storage, or nil.
func (n *Node) PrimaryChild() *Child {
	for _, c := range n.children {
		if c.role&RolePrimary != 0 {
			return c
		}
	}
	return nil
}

// CowChild is the backing child through which unallocated areas are read.
func (n *Node) cow() *Child {
	if n.drv.Kind == Filter {
		return nil
	}
	return n.backing
}

// writableAfter tells whether the node can be written to once the given
// reopen is done (nil: as it is now).
func (n *Node) writableAfter(reopen *ReopenState) bool {
	flags := n.flags
	if reopen != nil {
		flags = reopen.Flags
	}
	return flags&FlagRDWR != 0 && flags&FlagInactive == 0
}

func (n *Node) lengthAligned() bool {
	align := n.limits.RequestAlignment
	return align <= 1 || n.totalSectors.Load()*SectorSize%align == 0
}

func (n *Node) describe() string { return "node '" + n.name + "'" }
