package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// maxCopyOnRead bounds the buffer through which what is read is copied, in
// bytes.
const maxCopyOnRead = 1 << 20

// CoCopyOnRead reads into v, and writes into the node itself what it read from
// its backing file, so that it need not be read there again. See
// [Node.CoCopyOnRead].
func (c *Child) CoCopyOnRead(co *aio.Co, offset int64, v Vec) error {
	return c.node.CoCopyOnRead(co, offset, v.Len(), v)
}

// CoCopyOnRead is [Node.CoPreadv] for a reader who wants what is not allocated
// in the node to be copied into it. Whole clusters are, and writes to them wait
// meanwhile. Without a vector (nil) nothing is read but what is copied. A node
// that cannot be written to is only read.
func (n *Node) CoCopyOnRead(co *aio.Co, offset, bytes int64, v Vec) error {
	if err := n.checkReady(offset, bytes); err != nil {
		return err
	}
	if n.ReadOnly() {
		if v == nil {
			return nil
		}
		return n.CoPreadv(co, offset, v, 0)
	}
	if bytes == 0 {
		return nil
	}
	n.begin()
	defer n.end()
	unit := n.copyUnit(co)
	r := n.tracked.begin(offset, bytes, unit)
	defer n.tracked.end(r)
	if err := n.tracked.wait(co, r, 0); err != nil {
		return err
	}
	c := copyOnRead{n, offset, bytes, v}
	start, end := alignDown(offset, unit), alignUp(offset+bytes, unit)
	for start < end {
		count, err := c.piece(co, start, min(end-start, maxCopyOnRead))
		if err != nil {
			return err
		}
		start += count
	}
	return nil
}

// copyUnit is what is allocated at once, in bytes, a power of two.
func (n *Node) copyUnit(co *aio.Co) int64 {
	unit := max(n.limits.RequestAlignment, 1)
	if info, err := n.CoGetInfo(co); err == nil {
		cluster := info.SubclusterSize
		if cluster == 0 {
			cluster = info.ClusterSize
		}
		if cluster&(cluster-1) == 0 {
			unit = max(unit, cluster)
		}
	}
	return unit
}

// copyOnRead is one request.
type copyOnRead struct {
	node          *Node
	offset, bytes int64
	v             Vec
}

// piece reads and copies one area up to where the allocation changes, and
// returns its length. It is no longer than one request may be: each is looked at
// for zeroes by itself.
func (c *copyOnRead) piece(co *aio.Co, start, bytes int64) (int64, error) {
	n := c.node
	bytes = minNonZero(bytes, n.limits.MaxTransfer)
	allocated, count, err := n.CoIsAllocated(co, start, bytes)
	if err != nil {
		return 0, err
	}
	if count == 0 { // behind the end
		return bytes, c.read(co, start, bytes)
	}
	if allocated {
		return count, c.read(co, start, count)
	}
	count = alignUp(count, n.limits.RequestAlignment)
	return count, c.copy(co, start, count)
}

// read reads what the request wants of an area that needs no copying.
func (c *copyOnRead) read(co *aio.Co, start, bytes int64) error {
	if c.v == nil {
		return nil
	}
	from, to := max(start, c.offset), min(start+bytes, c.offset+c.bytes)
	if from >= to {
		return nil
	}
	n := c.node
	align := n.limits.RequestAlignment
	part := c.v.Slice(from-c.offset, to-from)
	if n.aligned(from, to-from) {
		return n.alignedRead(co, from, to-from, part, 0)
	}
	first, last := alignDown(from, align), alignUp(to, align)
	buf := GetBuffer(last - first)
	defer buf.Free()
	if err := n.alignedRead(co, first, last-first, Vec{buf.B}, 0); err != nil {
		return err
	}
	part.CopyFrom(buf.B[from-first:])
	return nil
}

// copy reads an aligned area and writes it back into the node. Nobody sees a
// difference, so it is no write that bitmaps and statistics would count.
func (c *copyOnRead) copy(co *aio.Co, start, bytes int64) error {
	n := c.node
	buf := GetBuffer(bytes)
	defer buf.Free()
	data := Vec{buf.B}
	if err := n.alignedRead(co, start, bytes, data, 0); err != nil {
		return err
	}
	n.debug(DebugCorWrite)
	var err error
	if data.IsZero() {
		_, err = n.driverZeroes(co, start, bytes, ReqWriteUnchanged)
	} else {
		_, err = n.driverWrite(co, start, bytes, data, ReqWriteUnchanged)
	}
	n.writeGen.Add(1)
	if err != nil {
		return err
	}
	from, to := max(start, c.offset), min(start+bytes, c.offset+c.bytes)
	if c.v != nil && from < to {
		c.v.Slice(from-c.offset, to-from).CopyFrom(buf.B[from-start : to-start])
	}
	return nil
}

// CoPrefetch copies an area to where reading it is cheap, in nodes that know
// such a place.
func (n *Node) CoPrefetch(co *aio.Co, offset, bytes int64) error {
	if err := n.checkReady(offset, bytes); err != nil {
		return err
	}
	p, ok := n.instance.(Prefetcher)
	if !ok {
		return qerr.From(syscall.ENOTSUP)
	}
	n.begin()
	defer n.end()
	return p.CoPrefetch(co, offset, bytes)
}

// CoPrefetch copies an area to where reading it is cheap; see
// [Node.CoPrefetch].
func (b *Backend) CoPrefetch(co *aio.Co, offset, bytes int64) error {
	defer b.leave()
	n, err := b.startAt(co, offset, bytes, 0)
	if err != nil {
		return err
	}
	return n.CoPrefetch(co, offset, bytes)
}
