// Package copyonread is a filter that keeps in its file what was read through
// it from the backing files behind, so that it is read there only once.
//
// # Options
//
//   - file: the image that keeps the data. All requests go there.
//   - bottom: the lowest node of the chain behind the file whose data is kept,
//     no filter; by default all is. The chain down to it cannot change while
//     the filter is there.
//
// Both stay as they are on reopen.
//
// # What is copied
//
// Whole clusters, and zeroes as zeroes, however cheap reading them had been.
// Copying changes nothing that anybody sees: dirty bitmaps do not record it,
// and statistics do not count it. The file must be writable. A request that fails to
// copy fails.
//
// Stream jobs put such a filter over the image they fill and prefetch through
// it.
//
// # The reference
//
// It never answers when bottom is no part of the chain; here that is an error.
package copyonread

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const optBottom = "bottom"

// Driver is the driver copy-on-read.
func Driver() *block.Driver {
	return &block.Driver{Name: "copy-on-read", Kind: block.Filter, Open: open}
}

// filter is one node.
type filter struct {
	file *block.Child
	// bottom is the lowest node whose data is kept, nil if all is. The chain
	// from top on is frozen down to it.
	top, bottom *block.Node
}

func open(a *block.OpenArgs) (block.Instance, error) {
	f := &filter{}
	a.Announce(f)
	var err error
	if f.file, err = a.File(); err != nil {
		return nil, err
	}
	if !a.Options.Has(optBottom) {
		return f, nil
	}
	if err := f.setBottom(a.Graph(), a.Options.TakeString(optBottom, "")); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *filter) setBottom(g *block.Graph, name string) error {
	n := g.Node(name)
	switch {
	case n == nil:
		return qerr.New("Bottom node '%s' not found", name)
	case n.Driver().Kind == block.Filter:
		return qerr.New("Bottom node '%s' is a filter", name)
	case !n.InChain(f.file.Node()):
		return qerr.New("Bottom node '%s' is not in the chain of '%s'", name, f.file.Node().Name())
	}
	if err := f.file.Node().FreezeChain(n); err != nil {
		return err
	}
	f.top, f.bottom = f.file.Node(), n
	return nil
}

// Close lets the chain change again.
func (f *filter) Close(*aio.Lock) { f.thaw() }

// Dropped: the filter is not over the chain any more.
func (f *filter) Dropped() { f.thaw() }

func (f *filter) thaw() {
	if f.bottom != nil {
		f.top.UnfreezeChain(f.bottom)
		f.bottom = nil
	}
}

func (f *filter) CoPreadv(co *aio.Co, offset int64, v block.Vec, _ block.ReqFlags) error {
	return f.each(co, offset, v.Len(), func(at, count int64, keep bool) error {
		part := v.Slice(at-offset, count)
		if keep {
			return f.file.CoCopyOnRead(co, at, part)
		}
		return f.file.CoPreadv(co, at, part, 0)
	})
}

// CoPrefetch keeps what a read of the area would keep.
func (f *filter) CoPrefetch(co *aio.Co, offset, bytes int64) error {
	return f.each(co, offset, bytes, func(at, count int64, keep bool) error {
		if !keep {
			return nil
		}
		return f.file.Node().CoCopyOnRead(co, at, count, nil)
	})
}

// each calls do for each part of an area; keep tells whether its data comes
// from a node behind the file that is not below the bottom.
func (f *filter) each(co *aio.Co, offset, bytes int64, do func(at, count int64, keep bool) error) error {
	if f.bottom == nil {
		return do(offset, bytes, true)
	}
	for bytes > 0 {
		depth, count, err := f.file.Node().CoIsAllocatedAbove(co, f.bottom, true, offset, bytes)
		if err != nil {
			return err
		}
		if count == 0 {
			count = bytes // behind the end
		}
		if err := do(offset, count, depth > 1); err != nil {
			return err
		}
		offset += count
		bytes -= count
	}
	return nil
}

func (f *filter) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return f.file.CoPwritev(co, offset, v, flags)
}

func (f *filter) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	return f.file.CoPwriteZeroes(co, offset, bytes, flags)
}

func (f *filter) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	return f.file.CoPdiscard(co, offset, bytes)
}

func (f *filter) CoGetLength(co *aio.Co) (int64, error) { return f.file.Node().CoGetLength(co) }

// RefreshLimits: requests are passed on as they are.
func (f *filter) RefreshLimits(l *block.Limits) error {
	below := f.file.Node().Limits()
	l.WriteFlags |= block.ReqWriteUnchanged | below.WriteFlags&(block.ReqFUA|block.ReqImmediate)
	l.ZeroFlags |= block.ReqWriteUnchanged | block.ReqNoFallback | below.ZeroFlags&(block.ReqFUA|block.ReqMayUnmap)
	return nil
}

// ChildPerm: whoever reads through the filter writes what others do not see.
func (f *filter) ChildPerm(_ *block.Child, _ block.Role, _ *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	return perm | block.PermWriteUnchanged, shared | block.PermWriteUnchanged
}

// What the filter can do.
var (
	_ block.Reader          = (*filter)(nil)
	_ block.Writer          = (*filter)(nil)
	_ block.ZeroWriter      = (*filter)(nil)
	_ block.Discarder       = (*filter)(nil)
	_ block.LengthGetter    = (*filter)(nil)
	_ block.Prefetcher      = (*filter)(nil)
	_ block.LimitsRefresher = (*filter)(nil)
	_ block.ChildPermer     = (*filter)(nil)
	_ block.Dropper         = (*filter)(nil)
)
