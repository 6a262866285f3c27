package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// maxLength is the largest length of a node: offsets fit into int64 with room
// for alignment.
const maxLength = 1<<63 - 1<<30

// RefreshTotalSectors asks the driver for the length of the node and keeps it,
// in sectors, rounded up. hint is the answer for drivers that know none. It is
// the operation that this program began with: in a coroutine it runs directly
// under the graph's read lock, for all others it spawns one and polls.
func (n *Node) RefreshTotalSectors(c aio.Caller, hint int64) error {
	_, err := aio.Mixed(c, n.Context(), "refresh_total_sectors", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, n.CoRefreshTotalSectors(co, hint)
	})
	return err
}

// CoRefreshTotalSectors is RefreshTotalSectors for coroutines.
func (n *Node) CoRefreshTotalSectors(co *aio.Co, hint int64) error {
	if n.absent() {
		return qerr.From(syscall.ENOMEDIUM)
	}
	if g, ok := n.instance.(LengthGetter); ok {
		length, err := g.CoGetLength(co)
		if err != nil {
			return err
		}
		if length > maxLength {
			return qerr.From(syscall.EFBIG)
		}
		hint = (length + SectorSize - 1) / SectorSize
	}
	if hint > maxLength/SectorSize {
		return qerr.From(syscall.EFBIG)
	}
	n.totalSectors.Store(hint)
	return nil
}

// GetLength is the node's length in bytes, a multiple of the sector size.
func (n *Node) GetLength(c aio.Caller) (int64, error) {
	return aio.Mixed(c, n.Context(), "getlength", n.CoGetLength)
}

// CoGetLength is GetLength for coroutines.
func (n *Node) CoGetLength(co *aio.Co) (int64, error) {
	if n.drv.VariableLength {
		if err := n.CoRefreshTotalSectors(co, n.totalSectors.Load()); err != nil {
			return 0, err
		}
	}
	return n.totalSectors.Load() * SectorSize, nil
}

// GetAllocatedFileSize is the space the node takes on disk, in bytes; ENOTSUP
// if that is not known.
func (n *Node) GetAllocatedFileSize(c aio.Caller) (int64, error) {
	return aio.Mixed(c, n.Context(), "get_allocated_file_size", n.CoGetAllocatedFileSize)
}

// CoGetAllocatedFileSize is GetAllocatedFileSize for coroutines. Where the
// driver does not know, what is named as files are fails, a filter answers for
// what it filters, and all others sum up the children in which they store.
func (n *Node) CoGetAllocatedFileSize(co *aio.Co) (int64, error) {
	if s, ok := n.instance.(AllocatedSizer); ok {
		return s.CoGetAllocatedFileSize(co)
	}
	if n.drv.ByName() {
		return 0, qerr.From(syscall.ENOTSUP)
	}
	if f := n.filtered(); f != nil {
		return f.node.CoGetAllocatedFileSize(co)
	}
	var sum int64
	for _, c := range n.children {
		if c.role&(RoleData|RoleMetadata|RoleFiltered) == 0 {
			continue
		}
		size, err := c.node.CoGetAllocatedFileSize(co)
		if err != nil {
			return 0, err
		}
		sum += size
	}
	return sum, nil
}

// GetInfo is what the driver knows of the image's geometry; ENOTSUP if it has
// none.
func (n *Node) GetInfo(c aio.Caller) (DriverInfo, error) {
	return aio.Mixed(c, n.Context(), "get_info", n.CoGetInfo)
}

// CoGetInfo is GetInfo for coroutines. Filters answer for what they filter.
func (n *Node) CoGetInfo(co *aio.Co) (DriverInfo, error) {
	if g, ok := n.instance.(InfoGetter); ok {
		return g.CoGetInfo(co)
	}
	if f := n.filtered(); f != nil {
		return f.node.CoGetInfo(co)
	}
	return DriverInfo{}, qerr.From(syscall.ENOTSUP)
}

// Encrypted tells whether the image is encrypted.
func (n *Node) Encrypted() bool {
	e, ok := n.instance.(Encrypter)
	return ok && e.Encrypted()
}

func (n *Node) resized() {
	n.truncateDirtyBitmaps()
	for c := n.parents.head; c != nil; c = c.nextParent {
		c.owner.resized()
	}
}
