package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// reopening is what a reopen keeps until it is committed or aborted.
type reopening struct {
	opts options
	// stored: the image's bitmaps are up to date, and must not change.
	stored bool
}

// ReopenPrepare checks the new options. Everything is written, so that the
// caches can be made anew; a node that becomes read-only leaves its image
// clean.
func (i *image) ReopenPrepare(l *aio.Lock, st *block.ReopenState) error {
	opts, _, err := takeOptions(st.Options, st.Flags, i.hdr)
	if err != nil {
		return err
	}
	r := &reopening{opts: opts}
	st.Driver = r
	if !i.writable() {
		return nil
	}
	return i.coroutine(l, "qcow2_reopen", func(co *aio.Co) error {
		i.mu.lock(co)
		defer i.mu.unlock()
		if st.Flags&block.FlagRDWR == 0 {
			if err := i.storeBitmaps(co); err != nil {
				return err
			}
			r.stored, i.unmarked = true, true
		}
		return i.markClean(co)
	})
}

// ReopenCommit puts the options into force. No request is under way, and
// nothing in the caches has changed.
func (i *image) ReopenCommit(st *block.ReopenState) {
	i.stopCleaner()
	i.mu.m.Lock()
	i.opts = st.Driver.(*reopening).opts
	i.geo.setSlice(i.opts.sliceSize)
	i.sizeCaches()
	i.mu.m.Unlock()
	i.startCleaner()
}

// ReopenAbort: what was stored of bitmaps stays, and they are read-only until the
// image is reopened with success; nobody can write meanwhile (observed:
// own/bitmaps/reopen-failed).
func (i *image) ReopenAbort(st *block.ReopenState) {
	if !st.Driver.(*reopening).stored {
		return
	}
	i.unmarked = false
	i.setBitmapsReadOnly(true)
}

func (i *image) setBitmapsReadOnly(on bool) {
	for n := range i.bitmaps {
		if b := i.node.DirtyBitmap(i.bitmaps[n].name); b != nil {
			b.SetReadOnly(on)
		}
	}
}

// ReopenFinish: bitmaps change only while the image can be written to.
func (i *image) ReopenFinish(l *aio.Lock) {
	if !i.node.Active() {
		return
	}
	i.setBitmapsReadOnly(i.node.ReadOnly())
	if i.writable() {
		i.markBeforeWrites(l)
	}
}

// markBeforeWrites marks the bitmaps as in use. If that fails the next write
// tries again, and fails if that fails.
func (i *image) markBeforeWrites(l *aio.Lock) {
	i.unmarked = true
	_ = i.coroutine(l, "qcow2_mark_bitmaps", func(co *aio.Co) error {
		i.mu.lock(co)
		defer i.mu.unlock()
		return i.markInUse(co)
	})
}

// Inactivate writes everything back, for whoever opens the image next. The
// node has no persistent bitmaps then, for somebody else may change them, but for
// inconsistent ones, which nobody does.
func (i *image) Inactivate(l *aio.Lock) error {
	return i.coroutine(l, "qcow2_inactivate", func(co *aio.Co) error {
		i.mu.lock(co)
		defer i.mu.unlock()
		if !i.writable() {
			return nil
		}
		if err := i.storeBitmaps(co); err != nil {
			return err
		}
		i.unmarked = true
		if err := i.markClean(co); err != nil {
			return err
		}
		i.node.ReleaseDirtyBitmaps(func(b *block.DirtyBitmap) bool { return b.Persistent() && !b.Inconsistent() })
		i.unmarked = false
		return nil
	})
}

// CoInvalidateCache reads everything anew: another process may have written to
// the image.
func (i *image) CoInvalidateCache(co *aio.Co) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	err := i.loadHeader(co, i.node.Options().Clone(), i.node.Flags())
	if err == nil {
		err = i.loadTables(co)
	}
	if err != nil {
		i.node.Eject()
		return qerr.Prepend(err, "Could not reopen qcow2 layer: ")
	}
	return nil
}

// ChildPerm: where an external file holds the data, the file holds metadata
// only.
func (i *image) ChildPerm(c *block.Child, role block.Role, reopen *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	if c == i.file && i.external() {
		role &^= block.RoleData
	}
	return block.DefaultPerms(i.node, role, reopen, perm, shared)
}
