package jobs

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// writable is a read-only node that can be written to for as long as a job needs
// it.
type writable struct{ node *block.Node }

// make makes a node writable, unless it is.
func (w *writable) make(l *aio.Lock, n *block.Node) error {
	if !n.ReadOnly() {
		return nil
	}
	if err := n.SetReadOnly(l, false); err != nil {
		return err
	}
	w.node = n
	return nil
}

// restore makes it read-only again, if it was.
func (w *writable) restore(l *aio.Lock) {
	if w.node == nil {
		return
	}
	// It was so before.
	_ = w.node.SetReadOnly(l, true)
	w.node = nil
}
