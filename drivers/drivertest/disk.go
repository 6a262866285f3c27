// Package drivertest helps to test drivers and the block layer itself: a
// protocol driver "mem" over memory that records what reaches it and can be
// made to fail or wait, and a [Bench] that holds a graph for one test.
package drivertest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The operations that a [Disk] records.
const (
	Read    = "read"
	Write   = "write"
	Copy    = "copy"
	Zero    = "zero"
	Discard = "discard"
	Flush   = "flush"
	Status  = "status"
)

// Call is one request that reached a disk.
type Call struct {
	Op            string
	Offset, Bytes int64
	Flags         block.ReqFlags
}

// String is short enough to compare lists of calls: "write 512+1024 fua".
func (c Call) String() string {
	if c.Op == Flush {
		return c.Op
	}
	s := fmt.Sprintf("%s %d+%d", c.Op, c.Offset, c.Bytes)
	for _, f := range []struct {
		flag block.ReqFlags
		name string
	}{{block.ReqFUA, " fua"}, {block.ReqMayUnmap, " unmap"}, {block.ReqNoFallback, " no-fallback"}, {block.ReqImmediate, " immediate"}} {
		if c.Flags&f.flag != 0 {
			s += f.name
		}
	}
	return s
}

// Mem is the driver "mem". Its options, all numbers of bytes but for the last
// five: size, align (of requests), max-transfer, zero-align, max-zero,
// discard-align, max-discard; zero (it writes zeroes and unmaps by itself),
// fua (it makes writes durable by itself), no-resize, sparse (it knows holes,
// in units of [HoleUnit], which is all there is at first), immediate (it knows
// requests that do not wait).
func Mem() *block.Driver {
	return &block.Driver{Name: "mem", Kind: block.Protocol, StrongOptions: []string{"size"}, Open: openMem}
}

// Disk is one node of the driver "mem".
type Disk struct {
	limits             block.Limits
	zero, fua, noSize  bool
	sparse, immediate  bool
	mu                 sync.Mutex
	data               []byte
	filled             map[int64]bool // units that are no holes
	calls              []Call
	hook               func(co *aio.Co, c Call) error
	closed             bool
	prepared, aborted  int
	committed, lengths int
	refuseReopen       error
	drains, undrains   atomic.Int32
}

func openMem(a *block.OpenArgs) (block.Instance, error) {
	d := &Disk{}
	var size int64
	for _, o := range []struct {
		key  string
		into *int64
	}{
		{"size", &size},
		{"align", &d.limits.RequestAlignment},
		{"max-transfer", &d.limits.MaxTransfer},
		{"zero-align", &d.limits.PWriteZeroesAlignment},
		{"max-zero", &d.limits.MaxPWriteZeroes},
		{"discard-align", &d.limits.PDiscardAlignment},
		{"max-discard", &d.limits.MaxPDiscard},
	} {
		n, err := a.Options.TakeSize(o.key, 0)
		if err != nil {
			return nil, err
		}
		*o.into = int64(n)
	}
	for _, o := range []struct {
		key  string
		into *bool
	}{{"zero", &d.zero}, {"fua", &d.fua}, {"no-resize", &d.noSize}, {"sparse", &d.sparse}, {"immediate", &d.immediate}} {
		on, err := a.Options.TakeBool(o.key, false)
		if err != nil {
			return nil, err
		}
		*o.into = on
	}
	d.data, d.filled = make([]byte, size), make(map[int64]bool)
	return d, nil
}

// DiskOf is the memory behind a node.
func DiskOf(n *block.Node) *Disk { return n.Instance().(*Disk) }

// SetHook makes f see every request before it is carried out; a question for
// the status, which the option sparse brings here, when its answer is known.
// An error of f is the request's; f may wait.
func (d *Disk) SetHook(f func(co *aio.Co, c Call) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = f
}

// RefuseReopen makes every reopen fail with err; nil lets them pass.
func (d *Disk) RefuseReopen(err error) { d.refuseReopen = err }

// Reopens counts what the driver was told about reopening.
func (d *Disk) Reopens() (prepared, committed, aborted int) {
	return d.prepared, d.committed, d.aborted
}

// TakeCalls returns what has arrived since the last time.
func (d *Disk) TakeCalls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, c := range d.calls {
		out = append(out, c.String())
	}
	d.calls = nil
	return out
}

// Bytes is a copy of the content.
func (d *Disk) Bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]byte(nil), d.data...)
}

// Closed tells whether the node is gone.
func (d *Disk) Closed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

func (d *Disk) do(co *aio.Co, c Call, f func()) error {
	d.mu.Lock()
	d.calls = append(d.calls, c)
	hook := d.hook
	d.mu.Unlock()
	if hook != nil {
		if err := hook(co, c); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	return nil
}

// area is the memory of a request; writes beyond the end make it longer, as
// with a file.
func (d *Disk) area(c Call) []byte {
	if end := c.Offset + c.Bytes; end > int64(len(d.data)) {
		d.data = append(d.data, make([]byte, end-int64(len(d.data)))...)
	}
	return d.data[c.Offset : c.Offset+c.Bytes]
}

// CoPreadv reads; what is behind the end is zero.
func (d *Disk) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return d.do(co, Call{Read, offset, v.Len(), flags}, func() {
		v.Zero()
		if offset < int64(len(d.data)) {
			v.CopyFrom(d.data[offset:])
		}
	})
}

// CoPwritev writes.
func (d *Disk) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	c := Call{Write, offset, v.Len(), flags}
	return d.do(co, c, func() { d.fill(c, v) })
}

func (d *Disk) fill(c Call, v block.Vec) {
	v.CopyTo(d.area(c))
	for unit := c.Offset / HoleUnit; unit*HoleUnit < c.Offset+c.Bytes; unit++ {
		d.filled[unit] = true
	}
}

// CoCopyRange copies from another disk.
func (d *Disk) CoCopyRange(co *aio.Co, src *block.Node, srcOffset, offset, bytes int64) error {
	from, ok := src.Instance().(*Disk)
	if !ok {
		return qerr.From(syscall.ENOTSUP)
	}
	data := from.Bytes()[srcOffset : srcOffset+bytes]
	c := Call{Copy, offset, bytes, 0}
	return d.do(co, c, func() { d.fill(c, block.Vec{data}) })
}

// CoPwriteZeroes writes zeroes where the option zero is on.
func (d *Disk) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	if unit := max(d.limits.PWriteZeroesAlignment, 1); !d.zero || offset%unit != 0 || bytes%unit != 0 {
		return qerr.From(syscall.ENOTSUP)
	}
	c := Call{Zero, offset, bytes, flags}
	return d.do(co, c, func() { d.punch(c) })
}

// CoPdiscard clears.
func (d *Disk) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	c := Call{Discard, offset, bytes, 0}
	return d.do(co, c, func() { d.punch(c) })
}

// HoleUnit is the smallest hole of a disk, in bytes.
const HoleUnit = 4096

// punch clears an area and makes holes of the units within.
func (d *Disk) punch(c Call) {
	clear(d.area(c))
	for unit := (c.Offset + HoleUnit - 1) / HoleUnit; (unit+1)*HoleUnit <= c.Offset+c.Bytes; unit++ {
		delete(d.filled, unit)
	}
}

// CoBlockStatus tells data from holes where the option sparse is on; else
// everything is data.
func (d *Disk) CoBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (block.Status, error) {
	st := block.Status{Flags: block.StatusData | block.StatusOffsetValid, Bytes: bytes, Map: offset}
	if !d.sparse || !wantZero {
		return st, nil
	}
	d.mu.Lock()
	unit := offset / HoleUnit
	filled := d.filled[unit]
	if !filled {
		st.Flags = block.StatusZero | block.StatusOffsetValid
	}
	end := unit + 1
	for end*HoleUnit < int64(len(d.data)) && d.filled[end] == filled {
		end++
	}
	st.Bytes = end*HoleUnit - offset
	d.mu.Unlock()
	err := d.do(co, Call{Status, offset, bytes, 0}, func() {})
	return st, err
}

// CoFlush does nothing but to be counted.
func (d *Disk) CoFlush(co *aio.Co) error {
	return d.do(co, Call{Op: Flush}, func() {})
}

// CoGetLength is the length of the memory.
func (d *Disk) CoGetLength(*aio.Co) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lengths++
	return int64(len(d.data)), nil
}

// CoTruncate resizes the memory.
func (d *Disk) CoTruncate(_ *aio.Co, offset int64, _ bool, _ block.PreallocMode, _ block.ReqFlags) error {
	if d.noSize {
		return qerr.From(syscall.ENOTSUP)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	data := make([]byte, offset)
	copy(data, d.data)
	d.data = data
	return nil
}

// RefreshLimits states what the options say.
func (d *Disk) RefreshLimits(l *block.Limits) error {
	mem := *l
	*l = d.limits
	l.RequestAlignment = max(l.RequestAlignment, 1)
	l.MinMemAlignment, l.OptMemAlignment, l.MaxIov = mem.MinMemAlignment, mem.OptMemAlignment, mem.MaxIov
	if d.zero {
		l.ZeroFlags = block.ReqMayUnmap | block.ReqNoFallback
	}
	if d.fua {
		l.WriteFlags |= block.ReqFUA
	}
	if d.immediate {
		l.ReadFlags |= block.ReqImmediate
		l.WriteFlags |= block.ReqImmediate
	}
	return nil
}

// ReopenPrepare, ReopenCommit and ReopenAbort count.
func (d *Disk) ReopenPrepare(*aio.Lock, *block.ReopenState) error {
	if d.refuseReopen != nil {
		return d.refuseReopen
	}
	d.prepared++
	return nil
}

// ReopenCommit is the good end of a reopen.
func (d *Disk) ReopenCommit(*block.ReopenState) { d.committed++ }

// ReopenAbort is the other.
func (d *Disk) ReopenAbort(*block.ReopenState) { d.aborted++ }

// DrainBegin and DrainEnd count.
func (d *Disk) DrainBegin() { d.drains.Add(1) }

// DrainEnd is the end of a drained section.
func (d *Disk) DrainEnd() { d.undrains.Add(1) }

// Drains counts the drained sections that began and that ended.
func (d *Disk) Drains() (begun, ended int) {
	return int(d.drains.Load()), int(d.undrains.Load())
}

// Close marks the disk as closed.
func (d *Disk) Close(*aio.Lock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}
