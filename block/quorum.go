package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/qerr"
)

// QuorumOp is what a child of a quorum failed at.
type QuorumOp uint8

// The operations, in the order of the QAPI type QuorumOpType.
const (
	QuorumRead QuorumOp = iota
	QuorumWrite
	QuorumFlush
)

// QuorumFailure says that too few children of a quorum agreed.
type QuorumFailure struct {
	// Reference is the device that uses it, else the node.
	Reference string
	// Sector and Sectors are the request's area.
	Sector, Sectors int64
}

// QuorumBad says that a child of a quorum failed, or was outvoted.
type QuorumBad struct {
	Op QuorumOp
	// Errno is what the child failed with, 0 if it was outvoted.
	Errno syscall.Errno
	// Node is the child.
	Node            string
	Sector, Sectors int64
}

// ReportQuorumFailure is for drivers: the children do not agree about an area,
// in bytes.
func (n *Node) ReportQuorumFailure(offset, bytes int64) {
	if f := n.graph.cfg.QuorumFailed; f != nil {
		sector, sectors := sectorsOf(offset, bytes)
		f(QuorumFailure{n.name, sector, sectors})
	}
}

// ReportQuorumBad is for drivers: the node, which is the child of a quorum, did
// something else with an area, in bytes, than others did.
func (n *Node) ReportQuorumBad(op QuorumOp, err error, offset, bytes int64) {
	if f := n.graph.cfg.QuorumBad; f != nil {
		sector, sectors := sectorsOf(offset, bytes)
		var errno syscall.Errno
		if err != nil {
			errno = qerr.ErrnoOf(err, syscall.EIO)
		}
		f(QuorumBad{op, errno, n.name, sector, sectors})
	}
}

// sectorsOf is the least area in sectors that holds one in bytes.
func sectorsOf(offset, bytes int64) (sector, sectors int64) {
	sector = offset / SectorSize
	return sector, (offset+bytes+SectorSize-1)/SectorSize - sector
}
