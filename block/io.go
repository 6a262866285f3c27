package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// MaxRequest is the longest request, in bytes: requests are int-sized in the
// protocols above, rounded to sectors.
const MaxRequest = 1<<31 - SectorSize

// CoPreadv reads into v from offset on. What lies beyond the node's end reads
// as zeroes.
func (c *Child) CoPreadv(co *aio.Co, offset int64, v Vec, flags ReqFlags) error {
	return c.node.CoPreadv(co, offset, v, flags)
}

// CoPwritev writes v at offset.
func (c *Child) CoPwritev(co *aio.Co, offset int64, v Vec, flags ReqFlags) error {
	return c.node.coPwritev(co, offset, v.Len(), v, flags)
}

// CoPwriteZeroes writes zeroes.
func (c *Child) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags ReqFlags) error {
	return c.node.CoPwriteZeroes(co, offset, bytes, flags)
}

func checkRequest(offset, bytes int64) error {
	if offset < 0 || bytes < 0 || offset > maxLength-bytes {
		return qerr.From(syscall.EIO)
	}
	return nil
}

// CoPreadv reads into v from offset on; see [Child.CoPreadv].
func (n *Node) CoPreadv(co *aio.Co, offset int64, v Vec, flags ReqFlags) error {
	bytes := v.Len()
	if err := n.checkReady(offset, bytes); err != nil {
		return err
	}
	if bytes == 0 {
		return nil
	}
	n.begin()
	defer n.end()
	if flags&ReqImmediate != 0 && !n.readsAtOnce(offset, bytes) {
		return errWouldWait
	}
	if err := n.waitForSerialising(co, offset, bytes, flags); err != nil {
		return err
	}
	if n.aligned(offset, bytes) {
		return n.alignedRead(co, offset, bytes, v, flags)
	}
	align := n.limits.RequestAlignment
	start, end := alignDown(offset, align), alignUp(offset+bytes, align)
	buf := GetBuffer(end - start)
	defer buf.Free()
	if err := n.alignedRead(co, start, end-start, Vec{buf.B}, flags); err != nil {
		return err
	}
	v.CopyFrom(buf.B[offset-start:])
	return nil
}

// waitForSerialising lets a read wait for read-modify-write cycles in its way.
func (n *Node) waitForSerialising(co *aio.Co, offset, bytes int64, flags ReqFlags) error {
	n.tracked.mu.Lock()
	serialising := n.tracked.serialising
	n.tracked.mu.Unlock()
	if serialising == 0 {
		return nil
	}
	r := n.tracked.begin(offset, bytes, 0)
	defer n.tracked.end(r)
	return n.tracked.wait(co, r, flags)
}

func (n *Node) checkReady(offset, bytes int64) error {
	if n.absent() {
		return qerr.From(syscall.ENOMEDIUM)
	}
	return checkRequest(offset, bytes)
}

// alignedRead reads an aligned area, split as the driver's limits demand, and
// fills with zeroes what lies beyond the end.
func (n *Node) alignedRead(co *aio.Co, offset, bytes int64, v Vec, flags ReqFlags) error {
	r, ok := n.instance.(Reader)
	if !ok {
		return qerr.From(syscall.ENOTSUP)
	}
	length, err := n.CoGetLength(co)
	if err != nil {
		return err
	}
	limit := alignUp(length, n.limits.RequestAlignment)
	if offset+bytes <= limit && n.fits(bytes) {
		return r.CoPreadv(co, offset, v, flags)
	}
	inside := max(0, min(bytes, limit-offset))
	err = n.split(inside, n.limits.MaxTransfer, func(at, count int64) error {
		return r.CoPreadv(co, offset+at, v.Slice(at, count), flags)
	})
	if err == nil && inside < bytes {
		v.Slice(inside, bytes-inside).Zero()
	}
	return err
}

func (n *Node) fits(bytes int64) bool {
	return n.limits.MaxTransfer == 0 || bytes <= n.limits.MaxTransfer
}

// split calls f for each part of at most limit bytes (0: no limit).
func (n *Node) split(bytes, limit int64, f func(at, count int64) error) error {
	if limit == 0 {
		limit = bytes
	}
	limit = max(alignDown(limit, n.limits.RequestAlignment), n.limits.RequestAlignment)
	for at := int64(0); at < bytes; at += limit {
		if err := f(at, min(limit, bytes-at)); err != nil {
			return err
		}
	}
	return nil
}

// CoPwritev writes v at offset.
func (n *Node) CoPwritev(co *aio.Co, offset int64, v Vec, flags ReqFlags) error {
	return n.coPwritev(co, offset, v.Len(), v, flags)
}

// CoPwriteZeroes makes an area read as zeroes, by the cheapest means the
// driver has.
func (n *Node) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags ReqFlags) error {
	if n.flags&FlagUnmap == 0 {
		flags &^= ReqMayUnmap
	}
	return n.coPwritev(co, offset, bytes, nil, flags|reqZeroes)
}

// reqZeroes marks a write without data.
const reqZeroes ReqFlags = 1 << 15

func (n *Node) coPwritev(co *aio.Co, offset, bytes int64, v Vec, flags ReqFlags) error {
	if err := n.checkWritable(offset, bytes); err != nil {
		return err
	}
	if bytes == 0 && flags&reqZeroes == 0 {
		return nil
	}
	if flags&ReqImmediate != 0 && !n.writesAtOnce(offset, bytes, flags) {
		return errWouldWait
	}
	n.begin()
	defer n.end()
	aligned := n.aligned(offset, bytes)
	var unit int64
	if !aligned || flags&ReqSerialising != 0 {
		unit = n.limits.RequestAlignment
	}
	r := n.tracked.begin(offset, bytes, unit)
	defer n.tracked.end(r)
	switch {
	case !aligned && flags&reqZeroes != 0:
		return n.unalignedZeroes(co, r, offset, bytes, flags)
	case !aligned:
		return n.readModifyWrite(co, r, offset, bytes, v, flags)
	}
	return n.alignedWrite(co, r, offset, bytes, v, flags)
}

func (n *Node) checkWritable(offset, bytes int64) error {
	if err := n.checkReady(offset, bytes); err != nil {
		return err
	}
	if n.ReadOnly() || n.hasReadOnlyBitmap() {
		return qerr.From(syscall.EPERM)
	}
	return nil
}

// readModifyWrite writes an unaligned area: the blocks at its edges are read,
// changed and written back while nobody else writes there.
func (n *Node) readModifyWrite(co *aio.Co, r *tracked, offset, bytes int64, v Vec, flags ReqFlags) error {
	align := n.limits.RequestAlignment
	if err := n.tracked.wait(co, r, flags); err != nil {
		return err
	}
	start, end := alignDown(offset, align), alignUp(offset+bytes, align)
	head, tail := GetBuffer(align), GetBuffer(align)
	defer head.Free()
	defer tail.Free()
	var out Vec
	if offset > start {
		n.debug(DebugPwritevRMWHead)
		if err := n.alignedRead(co, start, align, Vec{head.B}, 0); err != nil {
			return err
		}
		n.debug(DebugPwritevRMWAfterHead)
		out = append(out, head.B[:offset-start])
	}
	out = append(out, v...)
	if rest := end - offset - bytes; rest > 0 {
		last := tail.B
		if offset > start && end-start == align {
			last = head.B // one block is read once
		} else {
			n.debug(DebugPwritevRMWTail)
			if err := n.alignedRead(co, end-align, align, Vec{last}, 0); err != nil {
				return err
			}
			n.debug(DebugPwritevRMWAfterTail)
		}
		out = append(out, last[align-rest:])
	}
	return n.alignedWrite(co, r, start, end-start, out, flags)
}

// unalignedZeroes zeroes an unaligned area: its edges as data, the middle by
// the driver's own means.
func (n *Node) unalignedZeroes(co *aio.Co, r *tracked, offset, bytes int64, flags ReqFlags) error {
	align := n.limits.RequestAlignment
	for bytes > 0 {
		piece := min(bytes, alignUp(offset+1, align)-offset)
		var err error
		if piece < align {
			zeroes := Vec{make([]byte, piece)}
			err = n.readModifyWrite(co, r, offset, piece, zeroes, flags&^(reqZeroes|ReqMayUnmap))
		} else {
			piece = alignDown(bytes, align)
			err = n.alignedWrite(co, r, offset, piece, nil, flags)
		}
		if err != nil {
			return err
		}
		offset += piece
		bytes -= piece
	}
	return nil
}

// alignedWrite is where every write arrives.
func (n *Node) alignedWrite(co *aio.Co, r *tracked, offset, bytes int64, v Vec, flags ReqFlags) error {
	if err := n.tracked.wait(co, r, flags); err != nil {
		return err
	}
	n.checkThreshold(offset, bytes)
	if n.detectZeroes != DetectZeroesOff && flags&reqZeroes == 0 && v.IsZero() {
		flags = flags&^ReqCompressed | reqZeroes
		if n.detectZeroes == DetectZeroesUnmap && n.flags&FlagUnmap != 0 {
			flags |= ReqMayUnmap
		}
	}
	var (
		durable bool
		err     error
	)
	if flags&reqZeroes != 0 {
		n.debug(DebugPwritevZero)
		durable, err = n.driverZeroes(co, offset, bytes, flags&^reqZeroes)
	} else {
		n.debug(DebugPwritev)
		durable, err = n.driverWrite(co, offset, bytes, v, flags)
	}
	n.debug(DebugPwritevDone)
	n.finishWrite(offset, bytes, err)
	if err == nil && !durable {
		// Behind finishWrite: a flush covers the writes counted before it.
		err = n.CoFlush(co)
	}
	return err
}

func (n *Node) finishWrite(offset, bytes int64, err error) {
	n.writeGen.Add(1)
	n.setDirty(offset, bytes) // also if it failed: some of it may be there
	storeMax(&n.wrHighest, uint64(offset+bytes))
	if err != nil {
		return
	}
	sectors := (offset + bytes + SectorSize - 1) / SectorSize
	for {
		old := n.totalSectors.Load()
		if sectors <= old {
			return
		}
		if n.totalSectors.CompareAndSwap(old, sectors) {
			n.resized()
			return
		}
	}
}

// driverWrite hands data to the driver, in parts it can take. The result tells
// whether it is as durable as was asked.
func (n *Node) driverWrite(co *aio.Co, offset, bytes int64, v Vec, flags ReqFlags) (durable bool, err error) {
	w, ok := n.instance.(Writer)
	if !ok {
		return false, qerr.From(syscall.ENOTSUP)
	}
	own := flags & n.limits.WriteFlags
	if n.fits(bytes) {
		err = w.CoPwritev(co, offset, v, own)
	} else {
		err = n.split(bytes, n.limits.MaxTransfer, func(at, count int64) error {
			return w.CoPwritev(co, offset+at, v.Slice(at, count), own)
		})
	}
	return flags&ReqFUA == own&ReqFUA, err
}

func storeMax(a interface {
	Load() uint64
	CompareAndSwap(old, new uint64) bool
}, v uint64) {
	for {
		old := a.Load()
		if old >= v || a.CompareAndSwap(old, v) {
			return
		}
	}
}
