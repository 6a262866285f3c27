package block

import "github.com/qmpblock/qmpblock/qerr"

// BlockOp is an operation that something else under way can forbid.
type BlockOp uint8

// The operations that can be blocked.
const (
	BlockOpBackupSource BlockOp = iota
	BlockOpBackupTarget
	// BlockOpChange changes what the image says of its backing file.
	BlockOpChange
	BlockOpCommitSource
	BlockOpCommitTarget
	BlockOpDataplane
	BlockOpDelete
	BlockOpExternalSnapshot
	BlockOpInternalSnapshot
	BlockOpInternalSnapshotDelete
	BlockOpMirrorSource
	BlockOpMirrorTarget
	BlockOpReplace
	BlockOpResize
	BlockOpStream
	numBlockOps
)

// blockOps is a set of operations.
type blockOps uint16

const allBlockOps blockOps = 1<<numBlockOps - 1

// Blocker is a reason why operations on a node are forbidden.
type Blocker struct{ Reason string }

// blockers are the reasons and what each forbids, the newest first.
type blockers []blocked

type blocked struct {
	by  *Blocker
	ops blockOps
}

// Block forbids an operation until [Node.Unblock].
func (n *Node) Block(op BlockOp, b *Blocker) { n.block(1<<op, b) }

func (n *Node) block(ops blockOps, b *Blocker) {
	n.blockers = append(blockers{{b, ops}}, n.blockers...)
}

// Unblock takes a reason back.
func (n *Node) Unblock(op BlockOp, b *Blocker) {
	for i := range n.blockers {
		if have := &n.blockers[i]; have.by == b && have.ops&(1<<op) != 0 {
			have.ops &^= 1 << op
			return
		}
	}
}

// BlockAll forbids everything but what is excepted.
func (n *Node) BlockAll(b *Blocker, except ...BlockOp) {
	ops := allBlockOps
	for _, op := range except {
		ops &^= 1 << op
	}
	n.block(ops, b)
}

// UnblockAll takes a reason back, whatever it forbids.
func (n *Node) UnblockAll(b *Blocker) {
	var kept blockers
	for _, have := range n.blockers {
		if have.by != b {
			kept = append(kept, have)
		}
	}
	n.blockers = kept
}

// CheckBlocked fails when the operation is forbidden.
func (n *Node) CheckBlocked(op BlockOp) error {
	for _, have := range n.blockers {
		if have.ops&(1<<op) != 0 {
			return qerr.New("Node '%s' is busy: %s", n.name, have.by.Reason)
		}
	}
	return nil
}
