package block

import (
	"errors"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// ChangeBackingFile writes into a node's image what its backing file is called.
// Nothing is opened: the backing child stays. A name that the image has no room
// for is shown all the same (observed: own/snapshots/change-backing-file).
func (n *Node) ChangeBackingFile(l *aio.Lock, b ImageBacking) error {
	if !n.Active() {
		return qerr.New("Permission '%s' unavailable on inactive node", PermWrite)
	}
	c, ok := n.instance.(BackingFileChanger)
	if !ok {
		return qerr.From(syscall.ENOTSUP)
	}
	n.keepShown()
	_, err := aio.Mixed(l, n.Context(), "change_backing_file", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, c.CoChangeBackingFile(co, b)
	})
	if err == nil || errors.Is(err, syscall.ENOSPC) {
		n.SetImageBacking(b)
	}
	return err
}
