package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// BlockStatus tells what lies at offset in the node itself, at most bytes far.
func (n *Node) BlockStatus(c aio.Caller, wantZero bool, offset, bytes int64) (Status, error) {
	return aio.Mixed(c, n.Context(), "block_status", func(co *aio.Co) (Status, error) {
		return n.CoBlockStatus(co, wantZero, offset, bytes)
	})
}

// CoBlockStatus is BlockStatus for coroutines. With wantZero the answer goes
// to some length to find zeroes; without, it only tells what is allocated.
func (n *Node) CoBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (Status, error) {
	if n.absent() {
		return Status{}, qerr.From(syscall.ENOMEDIUM)
	}
	length, err := n.CoGetLength(co)
	if err != nil {
		return Status{}, err
	}
	if offset >= length {
		return Status{Flags: StatusEOF}, nil
	}
	bytes = min(bytes, length-offset)
	if bytes == 0 {
		return Status{}, nil
	}
	n.begin()
	defer n.end()
	st, err := n.driverStatus(co, wantZero, offset, bytes)
	if err != nil {
		return Status{}, err
	}
	st.Bytes = min(st.Bytes, bytes)
	if offset+st.Bytes == length {
		st.Flags |= StatusEOF
	}
	return st, nil
}

func (n *Node) driverStatus(co *aio.Co, wantZero bool, offset, bytes int64) (Status, error) {
	getter, ok := n.instance.(StatusGetter)
	if !ok {
		return n.defaultStatus(co, wantZero, offset, bytes)
	}
	cached := wantZero && n.cachesExtents()
	if cached {
		if end := n.extents.lookup(offset); end > 0 {
			const flags = StatusData | StatusOffsetValid | StatusAllocated
			return Status{Flags: flags, Bytes: min(bytes, end-offset), Map: offset, File: n}, nil
		}
	}
	changes := n.extents.changes.Load()
	align := n.limits.RequestAlignment
	start := alignDown(offset, align)
	st, err := getter.CoBlockStatus(co, wantZero, start, alignUp(offset+bytes, align)-start)
	if err != nil {
		return Status{}, err
	}
	if cached && st.Flags == StatusData|StatusOffsetValid && st.Map == start && st.File == nil {
		n.extents.remember(changes, start, start+st.Bytes)
	}
	if st.Flags&StatusOffsetValid != 0 {
		st.Map += offset - start
	}
	st.Bytes = min(st.Bytes-(offset-start), bytes)
	if st.File == nil {
		st.File = n
	}
	return n.completeStatus(co, wantZero, offset, st)
}

// defaultStatus serves drivers without a status of their own: filters show
// what they filter, all else is data.
func (n *Node) defaultStatus(co *aio.Co, wantZero bool, offset, bytes int64) (Status, error) {
	if f := n.filtered(); f != nil {
		return f.node.forwardedStatus(co, wantZero, offset, bytes)
	}
	st := Status{Flags: StatusData | StatusAllocated, Bytes: bytes}
	if n.drv.Kind == Protocol {
		st.Flags |= StatusOffsetValid
		st.Map, st.File = offset, n
	}
	return st, nil
}

// completeStatus follows what the driver only pointed to.
func (n *Node) completeStatus(co *aio.Co, wantZero bool, offset int64, st Status) (Status, error) {
	const decided = StatusData | StatusZero | StatusAllocated
	pointed := st.Flags&StatusOffsetValid != 0 && st.Flags&StatusRecurse != 0 && st.File != n
	st.Flags &^= StatusRecurse
	switch {
	case pointed && st.Flags&decided == 0:
		return st.File.forwardedStatus(co, wantZero, st.Map, st.Bytes)
	case st.Flags&decided != 0:
		st.Flags |= StatusAllocated
	case n.drv.SupportsBacking:
		st.Flags |= n.zeroWithoutBacking(co, offset)
	}
	if wantZero && pointed && st.Flags&StatusData != 0 {
		return n.zeroesBelow(co, st)
	}
	return st, nil
}

// forwardedStatus is the node's status for one above that shows the area as it
// is. Where the end is, is for the length of that one to say.
func (n *Node) forwardedStatus(co *aio.Co, wantZero bool, offset, bytes int64) (Status, error) {
	st, err := n.CoBlockStatus(co, wantZero, offset, bytes)
	if st.Bytes > 0 {
		st.Flags &^= StatusEOF
	}
	return st, err
}

// zeroWithoutBacking: what is unallocated reads as zeroes where there is no
// backing file, or no more of it.
func (n *Node) zeroWithoutBacking(co *aio.Co, offset int64) StatusFlags {
	backing := n.cow()
	if backing == nil {
		return StatusZero
	}
	if length, err := backing.node.CoGetLength(co); err != nil || offset < length {
		return 0
	}
	return StatusZero
}

// zeroesBelow refines data by asking the child that holds it: the child may
// know that it is zero.
func (n *Node) zeroesBelow(co *aio.Co, st Status) (Status, error) {
	below, err := st.File.CoBlockStatus(co, true, st.Map, st.Bytes)
	if err != nil {
		// The data is there; what the child knows of it was a bonus.
		return st, nil
	}
	switch {
	case below.Flags&StatusEOF != 0 && (below.Bytes == 0 || below.Flags&StatusZero != 0):
		st.Flags |= StatusZero
	default:
		st.Bytes = below.Bytes
		st.Flags |= below.Flags & StatusZero
	}
	return st, nil
}
