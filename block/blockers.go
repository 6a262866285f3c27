package block

import "github.com/qmpblock/qmpblock/qerr"

// BlockOp is an operation that something else under way can forbid.
type BlockOp uint8

// The operations that can be blocked.
const (
	BlockOpDelete BlockOp = iota
	BlockOpResize
	BlockOpReplace
	BlockOpDataplane
	numBlockOps
)

// Blocker is a reason why operations on a node are forbidden.
type Blocker struct{ Reason string }

// blockers are the reasons, by operation, the newest first.
type blockers [numBlockOps][]*Blocker

// Block forbids an operation until [Node.Unblock].
func (n *Node) Block(op BlockOp, b *Blocker) {
	n.blockers[op] = append([]*Blocker{b}, n.blockers[op]...)
}

// Unblock takes a reason back.
func (n *Node) Unblock(op BlockOp, b *Blocker) {
	for i, have := range n.blockers[op] {
		if have == b {
			n.blockers[op] = append(n.blockers[op][:i:i], n.blockers[op][i+1:]...)
			return
		}
	}
}

// CheckBlocked fails when the operation is forbidden.
func (n *Node) CheckBlocked(op BlockOp) error {
	if len(n.blockers[op]) == 0 {
		return nil
	}
	return qerr.New("Node '%s' is busy: %s", n.name, n.blockers[op][0].Reason)
}
