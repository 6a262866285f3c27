// Package quorum keeps the same data in several children. What most of them say
// is what is read, so that a child that fails, or holds something else, is
// found out and does no harm.
//
// # Options
//
//   - children: a list of nodes, of the same length. An inline one may be an image
//     whose format is to be found out.
//   - vote-threshold: how many children must agree, 1 … the number of children.
//   - read-pattern: quorum, by default: all children are read, and vote. fifo: the
//     first child that can be read is believed.
//   - rewrite-corrupted: write what was agreed on to the children that were
//     outvoted, by default false. The children must be writable then. Not together
//     with blkverify.
//   - blkverify: of two children, both of which must agree, differences are told to
//     the one who started the program, by default false. With fifo neither of
//     the last two means anything.
//
// The node cannot be reopened or resized.
//
// # Children
//
// They are called children.0, children.1 and so on. The command
// x-blockdev-change adds one behind the others, and takes one away as long as
// there are enough for the threshold. Names are not given anew, but for that of
// the last one. A child that is added is not checked for its length or its
// data. A copy of the node can take the place of a child that nobody else uses
// ([block.ReplaceChecker]).
//
// # Votes
//
// Where less than vote-threshold children can do what they were asked for, the
// request fails with the error that most of them had. What is read must be the
// same in that many children. If as many children have one thing as have
// another, the one whose first child comes later wins.
//
// A child that fails, or is outvoted, is reported
// ([block.Node.ReportQuorumBad]), and so is a vote without a result
// ([block.Node.ReportQuorumFailure]), but for flushes and fifo.
//
// Writes and zeroes go to all children at the same time; flushes to one after
// the other. Discards go nowhere, for each child might show other data
// afterwards. An area is known to be zero if all children know it.
//
// # The reference
//
// It lets reads and writes that overlap run at the same time; a job that reads
// while a guest writes may then find children that differ, and put old data back
// with rewrite-corrupted. Here of two such requests the later one waits. It ends
// the program when blkverify finds a difference; here the request fails.
package quorum

import (
	"strconv"
	"sync"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	optChildren  = "children"
	optThreshold = "vote-threshold"
	optBlkverify = "blkverify"
	optRewrite   = "rewrite-corrupted"
	optPattern   = "read-pattern"
)

// Driver is the driver quorum.
func Driver() *block.Driver {
	return &block.Driver{
		Name:          "quorum",
		Kind:          block.Format, // no filter: no child shows what it shows
		StrongOptions: []string{optThreshold, optBlkverify, optRewrite, optPattern},
		Open:          open,
	}
}

// quorum is one node.
type quorum struct {
	node *block.Node
	settings
	// children are in the order of their votes. They change in drained sections.
	children []*block.Child
	// next is the number of the next child.
	next     int
	requests requests
	ballots  sync.Pool // of *ballot, for use again
}

// settings are the options besides the children.
type settings struct {
	threshold                int
	fifo, blkverify, rewrite bool
}

func open(a *block.OpenArgs) (block.Instance, error) {
	n, err := countChildren(a.Options)
	if err != nil {
		return nil, err
	}
	q := &quorum{node: a.Node}
	if q.settings, err = takeSettings(a.Options, n); err != nil {
		return nil, err
	}
	a.Announce(q)
	for range n {
		c, err := a.ChildImage(childName(q.next), block.RoleData)
		if err != nil {
			// Those that are open already are given up before all else (observed:
			// own/quorum/drains).
			a.Graph().DrainAll(a.Lock)
			return nil, err
		}
		q.children = append(q.children, c)
		q.next++
	}
	return q, nil
}

func childName(i int) string { return optChildren + "." + strconv.Itoa(i) }

// countChildren counts what the options have of children, which must be 0, 1, 2
// and so on, each a reference or options.
func countChildren(o *block.Options) (int, error) {
	list := o.Sub(optChildren, false)
	n := 0
	for list.Len() > 0 {
		key := strconv.Itoa(n)
		if list.Has(key) {
			list.Delete(key)
		} else if list.Sub(key, true).Len() == 0 {
			return 0, qerr.New("Option %s is not a valid array", optChildren)
		}
		n++
	}
	if n < 1 {
		return 0, qerr.New("Number of provided children must be 1 or more")
	}
	return n, nil
}

// takeSettings checks the options in the reference's order.
func takeSettings(o *block.Options, children int) (s settings, err error) {
	if s.blkverify, err = o.TakeBool(optBlkverify, false); err != nil {
		return s, err
	}
	if s.rewrite, err = o.TakeBool(optRewrite, false); err != nil {
		return s, err
	}
	threshold, err := o.TakeNumber(optThreshold, 0)
	if err != nil {
		return s, err
	}
	s.threshold = int(int32(threshold)) // the upper half goes unnoticed (observed: own/quorum/options)
	switch {
	case s.threshold < 1:
		return s, qerr.New("Parameter '%s' expects a value >= 1", optThreshold)
	case s.threshold > children:
		return s, qerr.New("threshold may not exceed children count")
	}
	switch o.TakeString(optPattern, "quorum") {
	case "fifo":
		s.fifo, s.blkverify, s.rewrite = true, false, false
	case "quorum":
	default:
		return s, qerr.New("Please set read-pattern as fifo or quorum")
	}
	switch {
	case s.blkverify && (children != 2 || s.threshold != 2):
		return s, qerr.New("blkverify=on can only be set if there are exactly two files and vote-threshold is 2")
	case s.blkverify && s.rewrite:
		return s, qerr.New("rewrite-corrupted=on cannot be used with blkverify=on")
	}
	return s, nil
}

// Close has nothing to do but what giving up the children means to jobs: it is
// one change of the graph of its own (observed: own/quorum/drains).
func (q *quorum) Close(l *aio.Lock) { q.node.Graph().DrainAll(l) }

// ChildPerm: nobody may change a child behind the others' backs.
func (q *quorum) ChildPerm(_ *block.Child, _ block.Role, _ *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	if q.rewrite {
		perm |= block.PermWrite
	}
	return perm, shared & (block.PermConsistentRead | block.PermWriteUnchanged)
}

// RefreshLimits: zeroes can be as cheap, and as durable, as in all children.
func (q *quorum) RefreshLimits(l *block.Limits) error {
	l.ReadFlags = block.ReqImmediate
	l.WriteFlags = block.ReqWriteUnchanged
	l.ZeroFlags = block.ReqFUA | block.ReqMayUnmap | block.ReqNoFallback
	for _, c := range q.children {
		below := c.Node().Limits()
		l.ReadFlags &= below.ReadFlags
		l.ZeroFlags &= below.ZeroFlags
	}
	l.ZeroFlags |= block.ReqWriteUnchanged
	return nil
}

// What the driver can do.
var (
	_ block.Reader          = (*quorum)(nil)
	_ block.Writer          = (*quorum)(nil)
	_ block.ZeroWriter      = (*quorum)(nil)
	_ block.FlushForwarder  = (*quorum)(nil)
	_ block.LengthGetter    = (*quorum)(nil)
	_ block.StatusGetter    = (*quorum)(nil)
	_ block.LimitsRefresher = (*quorum)(nil)
	_ block.ChildPermer     = (*quorum)(nil)
	_ block.ChildNamer      = (*quorum)(nil)
	_ block.ChildChanger    = (*quorum)(nil)
	_ block.ReplaceChecker  = (*quorum)(nil)
)
