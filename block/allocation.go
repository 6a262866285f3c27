package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
)

// BlockStatusAbove is [Node.CoBlockStatusAbove] for every caller.
func (n *Node) BlockStatusAbove(c aio.Caller, base *Node, includeBase, wantZero bool, offset, bytes int64) (Status, int, error) {
	type result struct {
		Status
		depth int
	}
	r, err := aio.Mixed(c, n.Context(), "block_status_above", func(co *aio.Co) (r result, err error) {
		r.Status, r.depth, err = n.CoBlockStatusAbove(co, base, includeBase, wantZero, offset, bytes)
		return r, err
	})
	return r.Status, r.depth, err
}

// CoBlockStatusAbove tells what a reader of the node finds at offset, at most
// bytes far: it goes down the chain of filters and backing files until a layer
// decides. It ends above base and the filters directly over it, or below base with
// includeBase; without base (nil) it goes to the end of the chain.
//
// depth says which layer decided: 1 is the node itself, 2 the one below it,
// filters included; 0 is none, all layers leave the area unallocated (observed:
// qemu:allocation-depth over NBD). A layer that ends before offset decides as
// well: there are zeroes behind its end, whatever is below.
func (n *Node) CoBlockStatusAbove(co *aio.Co, base *Node, includeBase, wantZero bool, offset, bytes int64) (st Status, depth int, err error) {
	var eof StatusFlags
	for layer := n; layer != nil && (includeBase || !layer.shows(base)); layer = layer.below() {
		depth++
		own, err := layer.CoBlockStatus(co, wantZero, offset, bytes)
		if err != nil {
			return Status{}, 0, err
		}
		switch {
		case layer == n && own.Bytes == 0:
			return n.statusAtEnd(co, offset, bytes)
		case layer == n:
			eof = own.Flags & StatusEOF
		case own.Bytes == 0:
			return Status{Flags: StatusZero | StatusAllocated | eof, Bytes: bytes, File: layer}, depth, nil
		}
		if own.Bytes < bytes && layer != n {
			eof = 0 // a layer below has cut the extent short
		}
		st, bytes = own, own.Bytes
		st.Flags = st.Flags&^StatusEOF | eof
		if st.Flags&StatusAllocated != 0 {
			return st, depth, nil
		}
		if layer == base {
			break
		}
	}
	if depth == 0 { // nothing is above base
		st.Bytes = bytes
	}
	return st, 0, nil
}

// shows tells whether the node is base, or there are but filters between them.
func (n *Node) shows(base *Node) bool {
	return base != nil && n.SkipFilters() == base.SkipFilters()
}

// statusAtEnd is what a reader finds where the node's own storage has ended.
// Lengths are rounded up to sectors, so the node itself may go on, with zeroes.
func (n *Node) statusAtEnd(co *aio.Co, offset, bytes int64) (st Status, depth int, err error) {
	length, err := n.CoGetLength(co)
	if err != nil || bytes == 0 || offset >= length {
		return Status{Flags: StatusEOF}, 0, err
	}
	st = Status{Flags: StatusZero | StatusAllocated, Bytes: min(bytes, length-offset), File: n}
	if offset+st.Bytes == length {
		st.Flags |= StatusEOF
	}
	return st, 1, nil
}

// below is the next layer of what a reader of the node sees, nil if there is
// none.
func (n *Node) below() *Node {
	c := n.filtered()
	if c == nil {
		c = n.cow()
	}
	if c == nil {
		return nil
	}
	return c.node
}

// IsAllocated is [Node.CoIsAllocated] for every caller.
func (n *Node) IsAllocated(c aio.Caller, offset, bytes int64) (allocated bool, count int64, err error) {
	_, err = aio.Mixed(c, n.Context(), "is_allocated", func(co *aio.Co) (_ struct{}, err error) {
		allocated, count, err = n.CoIsAllocated(co, offset, bytes)
		return struct{}{}, err
	})
	return allocated, count, err
}

// CoIsAllocated tells whether the node itself, not its backing file, decides
// what is read at offset, and for how many bytes that holds.
func (n *Node) CoIsAllocated(co *aio.Co, offset, bytes int64) (allocated bool, count int64, err error) {
	st, err := n.CoBlockStatus(co, false, offset, bytes)
	return st.Flags&StatusAllocated != 0, st.Bytes, err
}

// CoIsAllocatedAbove tells which layer above base decides what is read at
// offset, and for how many bytes that holds; see [Node.CoBlockStatusAbove].
func (n *Node) CoIsAllocatedAbove(co *aio.Co, base *Node, includeBase bool, offset, bytes int64) (depth int, count int64, err error) {
	st, depth, err := n.CoBlockStatusAbove(co, base, includeBase, false, offset, bytes)
	return depth, st.Bytes, err
}

// CoIsZero tells whether an area is known to read as zeroes, without reading
// it. What lies behind the end does.
func (n *Node) CoIsZero(co *aio.Co, offset, bytes int64) (bool, error) {
	return n.isZero(co, true, offset, bytes)
}

// CoIsZeroFast is CoIsZero for what is known without asking a file system.
func (n *Node) CoIsZeroFast(co *aio.Co, offset, bytes int64) (bool, error) {
	return n.isZero(co, false, offset, bytes)
}

func (n *Node) isZero(co *aio.Co, wantZero bool, offset, bytes int64) (bool, error) {
	for bytes > 0 {
		st, _, err := n.CoBlockStatusAbove(co, nil, false, wantZero, offset, bytes)
		if err != nil {
			return false, err
		}
		if st.Bytes == 0 {
			return st.Flags&StatusEOF != 0, nil
		}
		if st.Flags&StatusZero == 0 {
			return false, nil
		}
		offset += st.Bytes
		bytes -= st.Bytes
	}
	return true, nil
}
