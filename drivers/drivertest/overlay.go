package drivertest

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// OverlayDriver is the driver "overlay": a format in memory whose units read
// as the backing file until they are written to. Its options: size and unit in
// bytes (a power of two, by default 4096), and the child backing.
func OverlayDriver() *block.Driver {
	return &block.Driver{
		Name: "overlay", Kind: block.Format, SupportsBacking: true,
		StrongOptions: []string{"size", "unit"}, Open: openOverlay,
	}
}

// overlay is one node of the driver "overlay".
type overlay struct {
	node       *block.Node
	size, unit int64
	mu         sync.Mutex
	units      map[int64][]byte // nil for those that are zero
	onRead     atomic.Pointer[func() error]
}

// FailReads makes reads of a node of the driver "overlay" fail where f does.
func FailReads(n *block.Node, f func() error) { n.Instance().(*overlay).onRead.Store(&f) }

func openOverlay(a *block.OpenArgs) (block.Instance, error) {
	size, err := a.Options.TakeSize("size", 0)
	if err != nil {
		return nil, err
	}
	unit, err := a.Options.TakeSize("unit", 4096)
	if err != nil {
		return nil, err
	}
	return &overlay{node: a.Node, size: int64(size), unit: int64(unit), units: make(map[int64][]byte)}, nil
}

func (o *overlay) Close(*aio.Lock) {}

// each calls f for each unit of an area; at is where it is in the area.
func (o *overlay) each(offset, bytes int64, f func(unit, at int64) error) error {
	for at := int64(0); at < bytes; at += o.unit {
		if err := f((offset+at)/o.unit, at); err != nil {
			return err
		}
	}
	return nil
}

func (o *overlay) lookup(unit int64) (data []byte, allocated bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	data, allocated = o.units[unit]
	return data, allocated
}

func (o *overlay) set(unit int64, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.units[unit] = data
}

func (o *overlay) CoPreadv(co *aio.Co, offset int64, v block.Vec, _ block.ReqFlags) error {
	if f := o.onRead.Load(); f != nil {
		if err := (*f)(); err != nil {
			return err
		}
	}
	return o.each(offset, v.Len(), func(unit, at int64) error {
		part := v.Slice(at, o.unit)
		data, allocated := o.lookup(unit)
		switch {
		case data != nil:
			part.CopyFrom(data)
		case allocated || o.node.Backing() == nil:
			part.Zero()
		default:
			return o.node.Backing().CoPreadv(co, offset+at, part, 0)
		}
		return nil
	})
}

func (o *overlay) CoPwritev(_ *aio.Co, offset int64, v block.Vec, _ block.ReqFlags) error {
	return o.each(offset, v.Len(), func(unit, at int64) error {
		o.set(unit, slices.Concat(v.Slice(at, o.unit)...))
		return nil
	})
}

func (o *overlay) CoPwriteZeroes(_ *aio.Co, offset, bytes int64, _ block.ReqFlags) error {
	return o.each(offset, bytes, func(unit, _ int64) error {
		o.set(unit, nil)
		return nil
	})
}

func (o *overlay) CoGetLength(*aio.Co) (int64, error) { return o.size, nil }

func (o *overlay) CoBlockStatus(_ *aio.Co, _ bool, offset, bytes int64) (block.Status, error) {
	kind := func(unit int64) block.StatusFlags {
		switch data, allocated := o.lookup(unit); {
		case data != nil:
			return block.StatusData
		case allocated:
			return block.StatusZero
		}
		return 0
	}
	st := block.Status{Flags: kind(offset / o.unit)}
	for st.Bytes < bytes && kind((offset+st.Bytes)/o.unit) == st.Flags {
		st.Bytes += o.unit
	}
	return st, nil
}

// CoChangeBackingFile has no header to write to.
func (o *overlay) CoChangeBackingFile(*aio.Co, block.ImageBacking) error { return nil }

func (o *overlay) RefreshLimits(l *block.Limits) error {
	l.RequestAlignment = o.unit
	return nil
}
