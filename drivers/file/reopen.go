package file

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// reopening is what blockdev-reopen changes on a node.
type reopening struct {
	flags block.Flags
	cache cacheOptions
}

// flagsAfter are the node's flags once the change under way is done.
func (n *node) flagsAfter() block.Flags {
	if n.reopen != nil {
		return n.reopen.flags
	}
	return n.flags
}

// ReopenPrepare opens another descriptor if the new flags demand one. The
// locks follow when the permissions are checked. Options not taken here cannot
// change.
func (n *node) ReopenPrepare(_ *aio.Lock, st *block.ReopenState) error {
	cache, err := takeCacheOptions(st.Options)
	if err != nil {
		return err
	}
	n.reopen = &reopening{flags: st.Flags, cache: cache}
	if err := n.prepareDescriptor(n.locks.perm()); err != nil {
		n.ReopenAbort(st)
		return err
	}
	return nil
}

// ReopenCommit puts the new options in force.
func (n *node) ReopenCommit(*block.ReopenState) {
	n.flags, n.cache = n.reopen.flags, n.reopen.cache
	n.reopen = nil
	n.install()
}

// ReopenAbort forgets them. A change of permissions that came between may have
// put their descriptor in place already; nobody has used it, since a node is
// drained while it is reopened.
func (n *node) ReopenAbort(*block.ReopenState) {
	n.reopen = nil
	n.dropNext()
	err := n.prepareDescriptor(n.locks.perm())
	if err == nil && n.next != nil && n.locking != lockOff {
		err = n.next.lock(n.locks)
	}
	if err != nil {
		// The present one has to do; requests it is not open for will fail.
		n.dropNext()
	}
	n.install()
}
