package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
)

// CheckPerm takes the locks that the node's users will need, beside those they
// need now, and opens another descriptor if the present one will not do. One
// change of the graph may call it several times; the last call counts.
func (n *node) CheckPerm(perm, shared block.Perm) error {
	n.wanted = lockSetOf(perm, shared)
	err := n.prepareDescriptor(perm)
	if err == nil && n.locking != lockOff {
		err = n.prepareLocks()
	}
	if err != nil {
		n.AbortPerm()
	}
	return err
}

// SetPerm gives up what is no longer needed. It goes by the last check, not by
// its arguments: an earlier one must not drop what a later one has prepared.
func (n *node) SetPerm(_, _ block.Perm) {
	n.install()
	n.locks = n.wanted
	n.file.unlock(n.locks)
}

// AbortPerm goes back to what was before the change.
func (n *node) AbortPerm() {
	n.dropNext()
	n.wanted = n.locks
	n.file.unlock(n.locks)
}

// prepareLocks locks what is needed on the present descriptor, where rivals
// look for it, and on the one that may replace it. Whoever needs nothing new
// has nothing to fear from others and does not look.
func (n *node) prepareLocks() error {
	if n.wanted&^n.file.held != 0 {
		if err := n.file.lock(n.wanted); err != nil {
			return err
		}
		if err := n.file.checkRivals(n.wanted, n.name); err != nil {
			return err
		}
	}
	if n.next == nil {
		return nil
	}
	return n.next.lock(n.wanted)
}

// prepareDescriptor sees to it that a descriptor for users with the given
// permissions is at hand.
func (n *node) prepareDescriptor(perm block.Perm) error {
	flags := n.accessFlags(n.flagsAfter(), perm)
	switch {
	case n.next != nil && n.next.flags == flags:
		return nil
	case n.file.flags == flags:
		n.dropNext()
		return nil
	}
	next, err := n.openDescriptor(flags)
	if err != nil && n.file.flags == flags|unix.O_RDWR {
		// The one that can also write does no harm, and giving up
		// permissions must not fail.
		n.dropNext()
		return nil
	}
	if err != nil {
		return err
	}
	n.dropNext()
	n.next = next
	return nil
}

// install puts the prepared descriptor, if there is one, in its place.
func (n *node) install() {
	if n.next == nil {
		return
	}
	n.file.close()
	n.file, n.next = n.next, nil
}

func (n *node) dropNext() {
	if n.next != nil {
		n.next.close()
		n.next = nil
	}
}
