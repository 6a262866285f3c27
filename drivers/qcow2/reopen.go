package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// ReopenPrepare checks the new options. Everything is written, so that the
// caches can be made anew; a node that becomes read-only leaves its image
// clean.
func (i *image) ReopenPrepare(l *aio.Lock, st *block.ReopenState) error {
	opts, _, err := takeOptions(st.Options, st.Flags, i.hdr)
	if err != nil {
		return err
	}
	st.Driver = opts
	if !i.writable() {
		return nil
	}
	return i.Inactivate(l)
}

// ReopenCommit puts the options into force. No request is under way, and
// nothing in the caches has changed.
func (i *image) ReopenCommit(st *block.ReopenState) {
	i.stopCleaner()
	i.mu.m.Lock()
	i.opts = st.Driver.(options)
	i.geo.setSlice(i.opts.sliceSize)
	i.newL2Cache()
	i.refs.cache.most = i.opts.refTables
	i.mu.m.Unlock()
	i.startCleaner()
}

// ReopenAbort has nothing to undo.
func (i *image) ReopenAbort(*block.ReopenState) {}

// Inactivate writes everything back, for whoever opens the image next.
func (i *image) Inactivate(l *aio.Lock) error {
	return i.coroutine(l, "qcow2_inactivate", func(co *aio.Co) error {
		i.mu.lock(co)
		defer i.mu.unlock()
		return i.markClean(co)
	})
}

// CoInvalidateCache reads everything anew: another process may have written to
// the image.
func (i *image) CoInvalidateCache(co *aio.Co) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	if err := i.loadHeader(co, i.node.Options().Clone(), i.node.Flags()); err != nil {
		return err
	}
	return i.loadTables(co)
}

// ChildPerm: where an external file holds the data, the file holds metadata
// only.
func (i *image) ChildPerm(c *block.Child, role block.Role, reopen *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	if c == i.file && i.external() {
		role &^= block.RoleData
	}
	return block.DefaultPerms(i.node, role, reopen, perm, shared)
}
