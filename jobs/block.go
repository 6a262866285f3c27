package jobs

import (
	"sync/atomic"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// BlockJob is a job over nodes of the graph.
type BlockJob struct {
	*Job
	graph   *block.Graph
	holding *block.Holding
	// blocker keeps operations away from the nodes that the job holds.
	blocker *block.Blocker
	// nodes are those it holds, the main one first.
	nodes []*block.Node

	// keeps: it holds them until it is dismissed.
	keeps bool

	// speed is asked without a turn.
	speed    atomic.Int64
	limiter  Limiter
	ioStatus IOStatus
}

// IOStatus is what a job's requests came to, as in the QAPI type
// BlockDeviceIoStatus.
type IOStatus uint8

// The values.
const (
	IOOK IOStatus = iota
	IOFailed
	IONoSpace
)

func (s IOStatus) String() string { return [...]string{"ok", "failed", "nospace"}[s] }

// Operation is a direction of I/O.
type Operation uint8

// The directions.
const (
	Read Operation = iota
	Write
)

func (o Operation) String() string { return [...]string{"read", "write"}[o] }

// ErrorAction is what is done about a failed request, as in the QAPI type
// BlockErrorAction.
type ErrorAction uint8

// The actions.
const (
	IgnoreError ErrorAction = iota
	ReportError
	StopOnError
)

func (a ErrorAction) String() string { return [...]string{"ignore", "report", "stop"}[a] }

// BlockParams describe a new block job.
type BlockParams struct {
	Params
	Graph *block.Graph
	// Node is the main one. The job takes Perm on it and shares Shared.
	Node         *block.Node
	Perm, Shared block.Perm
	// Speed is a limit in bytes a second, 0 for none.
	Speed int64
	// KeepNodes makes the job hold its nodes until it is dismissed, and not only
	// until it is concluded.
	KeepNodes bool
}

// CreateBlock makes a block job in state created. If something is wrong with
// it, it is given up.
func (s *Set) CreateBlock(l *aio.Lock, k Kind, p BlockParams) (*BlockJob, error) {
	p.Graph.DrainAll(l)
	j, err := s.Create(l, k, p.Params)
	if err != nil {
		return nil, err
	}
	b := &BlockJob{
		Job:     j,
		graph:   p.Graph,
		keeps:   p.KeepNodes,
		blocker: &block.Blocker{Reason: "block device is in use by block job: " + string(k.Type())},
	}
	j.block = b
	b.holding = p.Graph.NewHolding(holder{b})
	if p.Speed != 0 {
		if err := b.SetSpeed(l, p.Speed); err != nil {
			j.GiveUp(l)
			return nil, err
		}
	}
	if err := b.AddNode(l, "main node", p.Node, p.Perm, p.Shared); err != nil {
		j.GiveUp(l)
		return nil, err
	}
	return b, nil
}

// AddNode makes the job hold one more node, which other operations are kept
// away from. The reference takes all nodes of a job beside the main one in one
// drained section of the graph (observed: own/jobs/drains-chain).
func (b *BlockJob) AddNode(l *aio.Lock, name string, n *block.Node, perm, shared block.Perm) error {
	if err := b.holding.Add(l, n, name, perm, shared); err != nil {
		return err
	}
	n.BlockAll(b.blocker)
	b.nodes = append(b.nodes, n)
	return nil
}

// Nodes are those that the job holds, the main one first.
func (b *BlockJob) Nodes() []*block.Node { return b.nodes }

// ReleaseNodes lets go of the nodes, for a kind whose last step changes them.
func (b *BlockJob) ReleaseNodes(l *aio.Lock) {
	for _, n := range b.nodes {
		n.UnblockAll(b.blocker)
	}
	b.nodes = nil
	b.holding.Clear(l)
}

// close ends what a block job has besides a job. There is a drained section even
// if it holds no node any more (observed: own/jobs/backup-graph).
func (b *BlockJob) close(l *aio.Lock) {
	if len(b.nodes) == 0 {
		b.graph.DrainAll(l)
	}
	b.ReleaseNodes(l)
	b.holding.Close(l)
}

// Busy tells whether the job's coroutine is at work, and not waiting.
func (b *BlockJob) Busy(*aio.Lock) bool { return b.busy() }

func (b *BlockJob) busy() bool { return b.started && !b.completed && !b.sleeper.Asleep() }

// PauseRequested tells whether there is a reason to pause.
func (b *BlockJob) PauseRequested(*aio.Lock) bool { return b.pauses > 0 }

// Speed is the limit in bytes a second, 0 for none.
func (b *BlockJob) Speed() int64 { return b.speed.Load() }

// SetSpeed changes the limit.
func (b *BlockJob) SetSpeed(l *aio.Lock, speed int64) error {
	if err := b.check(VerbSetSpeed); err != nil {
		return err
	}
	if speed < 0 {
		return qerr.New("Parameter 'speed' expects a non-negative value")
	}
	before := b.speed.Swap(speed)
	b.limiter.SetSpeed(speed)
	if speed == 0 || before != 0 && speed > before {
		b.Wake(l)
	}
	return nil
}

// Throttle waits as long as the speed demands after n bytes more were worked
// on, or only until the next turn. Pauses do not make it shorter.
func (b *BlockJob) Throttle(co *aio.Co, n int64) {
	for !b.Cancelled() {
		b.takeTurn(co)
		wait := b.limiter.Delay(n, time.Now())
		b.Sleep(co, wait)
		if wait <= 0 {
			return
		}
		n = 0
	}
}

// Change changes what options says of the job's kind.
func (b *BlockJob) Change(l *aio.Lock, options any) error {
	if err := b.check(VerbChange); err != nil {
		return err
	}
	c, ok := b.kind.(Changer)
	if !ok {
		return qerr.New("Job type does not support change")
	}
	return c.Change(l, b.Job, options)
}

// IOStatus is what the job's requests came to since the user last resumed it.
func (b *BlockJob) IOStatus(*aio.Lock) IOStatus { return b.ioStatus }

// Failed tells users of a request that failed and what is done about it; with
// StopOnError the job is paused as if its user had done so.
func (b *BlockJob) Failed(co *aio.Co, op Operation, action ErrorAction, status IOStatus) {
	b.takeTurn(co)
	b.announce(func(b *BlockJob) { b.set.cfg.Events.JobError(b, op, action) })
	if action != StopOnError {
		return
	}
	if !b.userPaused {
		b.userPaused = true
		b.pauses++
	}
	if b.ioStatus == IOOK {
		b.ioStatus = status
	}
}

// holder is what the graph sees of a block job.
type holder struct{ job *BlockJob }

func (h holder) Describe() string { return string(h.job.Type()) + " job '" + h.job.id + "'" }
func (h holder) Label() string    { return h.job.id }
func (h holder) DrainedBegin()    { h.job.pause() }
func (h holder) DrainedEnd()      { h.job.resume() }

func (h holder) Busy() bool { return h.job.busy() && !h.job.quiet }
