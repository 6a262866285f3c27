package block

import (
	"sync"
	"sync/atomic"
)

// dataExtent is an area that a protocol node's driver reported as data.
type dataExtent struct{ start, end int64 }

// extentCache remembers the last one of a node: whoever reads sparsely asks
// for the status of each request, most of them within one extent, and finding
// its end costs system calls. Data only turns into a hole by requests that
// pass through the node; those forget what they touch. Holes are not
// remembered, since every write may fill them.
type extentCache struct {
	extent atomic.Pointer[dataExtent]
	// changes counts the requests that may have made holes. An answer is
	// remembered only if none ended while the driver was asked.
	changes atomic.Uint64
	mu      sync.Mutex // held to change either
}

// cachesExtents tells whether the cache serves the node: what others have
// below them may be changed past them, what changes its length by itself may
// change more, and an inactive node is another process's.
func (n *Node) cachesExtents() bool {
	return n.drv.Kind == Protocol && !n.drv.VariableLength && len(n.children) == 0 && n.Active()
}

// lookup returns the end of the known data around offset, 0 if there is none.
func (c *extentCache) lookup(offset int64) (end int64) {
	e := c.extent.Load()
	if e == nil || offset < e.start || offset >= e.end {
		return 0
	}
	return e.end
}

// remember keeps an answer that the driver gave after changes was read.
func (c *extentCache) remember(changes uint64, start, end int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes.Load() == changes {
		c.extent.Store(&dataExtent{start, end})
	}
}

// forget is called when a request that may have made holes has ended.
func (c *extentCache) forget(offset, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes.Add(1)
	if e := c.extent.Load(); e != nil && offset < e.end && e.start < offset+bytes {
		c.extent.Store(nil)
	}
}

// forgetAll is for when the node is not the same any more.
func (c *extentCache) forgetAll() { c.forget(0, maxLength) }
