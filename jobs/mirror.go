package jobs

import (
	"sync"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CopyMode says when a mirror copies what is written while it runs, as in the
// QAPI type MirrorCopyMode.
type CopyMode uint8

// The modes. A write is copied some time later, or before it ends.
const (
	CopyInBackground CopyMode = iota
	CopyOnWrite
)

// MirrorParams describe a job that copies a node and follows its changes.
type MirrorParams struct {
	Params
	Graph          *block.Graph
	Source, Target *block.Node
	// Base is where copying ends: what the source shows of it and of what is
	// behind it is not copied. Nil: all is.
	Base *block.Node
	// ChangesOnly copies nothing but what is written from now on.
	ChangesOnly bool
	// ZeroTarget: nobody knows what the target holds.
	ZeroTarget bool
	// Replaces is the node whose place the target takes, nil: the source.
	Replaces *string
	Speed    int64
	// Granularity is the length of the areas that are tracked, 0: as the target
	// likes it; BufSize bounds the data under way, 0: the default. Both in bytes.
	Granularity, BufSize       int64
	SourceErrors, TargetErrors ErrorPolicy
	// Unmap lets zeroes be written by deallocating.
	Unmap bool
	Mode  CopyMode
	// FilterName is the name of the filter over the source, nil for a generated
	// one.
	FilterName *string
	// Commit makes it a commit job: the target is an image behind the source, or
	// the source's base.
	Commit bool
	// Backing says what becomes the target's backing file when the job is
	// completed.
	Backing MirrorBacking
}

// MirrorBacking is the backing file that a target gets before it takes the
// place of the source.
type MirrorBacking uint8

// The choices: what it has; the source's, or the source itself if only changes
// were copied; what the image says.
const (
	KeepBacking MirrorBacking = iota
	ShareBacking
	OpenBacking
)

const (
	// mirrorOps is the number of requests under way at once.
	mirrorOps = 16
	// defaultBuffer is the memory for data under way, minCopy the least length up
	// to which a request grows; in bytes.
	defaultBuffer = 16 << 20
	minCopy       = 1 << 20
	// maxZero is the longest request for zeroes where no speed is set, in bytes.
	maxZero = 1 << 30
	// idleTime is how long a job that is ready looks away.
	idleTime = 100 * time.Millisecond
	// retryTime is how long a job waits behind a failure that is ignored: users
	// hear of every one.
	retryTime = time.Millisecond
)

// mirror copies a node to another one and goes on copying what is written to
// it. A filter over the source sees the writes; a bitmap of the filter is what
// is still to be copied. Once all is copied the job is ready, and its user may
// let the target take the place of the source, or end the job.
type mirror struct {
	p   MirrorParams
	job *BlockJob
	// filter stands over the source; top is its driver's part.
	filter *block.Node
	top    *mirrorFilter
	// target is how writes to the source get to the target. The job itself uses
	// its edge: drained sections wait for the job as a whole.
	target *block.Backend
	// chained: the target is behind the source. The images between are frozen.
	chained, frozen bool
	writable        writable // the target
	plain           bool     // the target is a file and nothing else
	// unit is the least that is copied at once, bufSize the most under way,
	// maxCopy the longest request with data, length the disk's; in bytes.
	unit, bufSize, maxCopy, length int64

	// What follows changes in turns of the main context.

	io       aio.Sleeper // where the job waits for its requests
	inFlight int         // requests under way
	moving   int64       // their bytes
	copying  int64       // those of them that take memory
	at       int64       // where the next one begins
	rounds   int         // iterations so far
	failing  bool        // a failure was ignored since the last one
	// completing: the user wants the target in the source's place, that is in
	// replaces', which is blocked meanwhile.
	completing bool
	replaces   *block.Node
	blocker    *block.Blocker
	// drained: the source is, on the job's behalf. waiting: requests go on all the
	// same. left: nothing is held any more.
	drained, waiting, left bool

	// What follows is protected by mu. The bits of dirty change while it is held.

	mu    sync.Mutex
	dirty *block.DirtyBitmap
	areas block.Areas
	mode  CopyMode
	// synced: source and target hold the same, since writes go to both.
	synced bool
	err    error // the first one that is the job's
	// active is how many bytes writes are copying, beside the job.
	active int64
}

// CreateMirror makes a mirror job.
func (s *Set) CreateMirror(l *aio.Lock, p MirrorParams) (*BlockJob, error) {
	switch {
	case p.BufSize < 0:
		return nil, qerr.New("Invalid parameter 'buf-size'")
	case p.Source.SkipFilters() == p.Target.SkipFilters():
		return nil, qerr.New("Can't mirror node into itself")
	}
	if p.Granularity == 0 {
		p.Granularity = p.Target.DefaultGranularity(l)
	}
	if p.BufSize == 0 {
		p.BufSize = defaultBuffer
	}
	k := &mirror{p: p, mode: p.Mode, chained: p.Target.InChain(p.Source)}
	k.io.Init(s.cfg.Main)
	// No write may pass the filter before it knows the job.
	p.Source.DrainedBegin(l)
	defer func() {
		p.Source.DrainedEnd()
		l.Settle()
	}()
	if err := k.create(l, s); err != nil {
		k.Clean(l, nil)
		return nil, err
	}
	return k.job, nil
}

// create puts the filter over the source and makes the job. What it has done
// when it fails is undone by Clean.
func (k *mirror) create(l *aio.Lock, s *Set) (err error) {
	if k.p.Commit {
		if err := k.writable.make(l, k.p.Target); err != nil {
			return err
		}
	}
	if err := k.insertFilter(l); err != nil {
		return err
	}
	k.job, err = s.CreateBlock(l, k, BlockParams{
		Params: k.p.Params, Graph: k.p.Graph, Node: k.filter, Speed: k.p.Speed,
		Perm: block.PermConsistentRead, Shared: block.PermAll &^ block.PermResize,
	})
	if err != nil {
		return err
	}
	if err = k.hold(l); err != nil {
		if k.target != nil {
			k.target.Close(l)
			k.target = nil
		}
		k.job.GiveUp(l)
	}
	return err
}

func (k *mirror) insertFilter(l *aio.Lock) (err error) {
	k.filter, err = k.p.Graph.OpenInternal(l, block.Internal{Driver: mirrorTop, Name: k.p.FilterName, Flags: block.FlagRDWR})
	if err != nil {
		return err
	}
	k.top = k.filter.Instance().(*mirrorFilter)
	k.top.influx = k.chained
	if _, err := k.p.Graph.Append(l, k.filter, k.p.Source); err != nil {
		k.p.Graph.Unref(l, k.filter)
		k.filter = nil
		return err
	}
	return nil
}

// hold takes what the job works on.
func (k *mirror) hold(l *aio.Lock) (err error) {
	perm, shared := block.PermWrite, block.PermWriteUnchanged
	if k.chained {
		shared |= block.PermConsistentRead | block.PermWrite
		if perm, err = k.chainedPerm(l); err != nil {
			return err
		}
	}
	k.target = k.p.Graph.NewBackend("", perm, shared)
	// Who drains the target may wait for the source's writers too.
	k.target.RefuseDrained = true
	// A machine that moves to another host leaves its disks behind.
	k.target.AllowInactive = !k.p.Commit
	if err := k.target.Insert(l, k.p.Target); err != nil {
		return err
	}
	k.p.Source.Ref(l)
	k.p.Target.Ref(l)
	if k.dirty, err = k.filter.CreateDirtyBitmap(l, "", k.p.Granularity); err != nil {
		return err
	}
	k.dirty.SetEnabled(false)
	k.p.Graph.DrainAll(l)
	if err := k.job.AddNode(l, "source", k.p.Source, 0, block.PermAll&^block.PermResize); err != nil {
		return err
	}
	if err := k.job.AddNode(l, "target", k.p.Target, 0, block.PermAll); err != nil {
		return err
	}
	k.measure(l)
	k.top.job.Store(k)
	if k.chained {
		return k.holdChain(l)
	}
	return nil
}

// chainedPerm is what the job needs of a target behind the source: it makes it
// as long as the source.
func (k *mirror) chainedPerm(l *aio.Lock) (block.Perm, error) {
	source, err := k.p.Source.GetLength(l)
	if err != nil {
		return 0, err
	}
	target, err := k.p.Target.GetLength(l)
	if target < source {
		return block.PermWrite | block.PermResize, err
	}
	return block.PermWrite, err
}

// holdChain: nobody may rely on what the images between source and target show,
// since the target changes below them.
func (k *mirror) holdChain(l *aio.Lock) error {
	const inFlux = block.PermWriteUnchanged | block.PermWrite
	for n := k.p.Source.FilterOrCow(); n != k.p.Target; n = n.FilterOrCow() {
		if err := k.job.AddNode(l, "intermediate node", n, 0, inFlux); err != nil {
			return err
		}
	}
	if err := k.filter.FreezeChain(k.p.Target); err != nil {
		return err
	}
	k.frozen = true
	return nil
}

// measure finds out how much to copy at once. An image that says what is behind
// it, which is not open, would fill the rest of a cluster with zeroes.
func (k *mirror) measure(l *aio.Lock) {
	k.unit = k.p.Granularity
	if k.p.Target.ImageBacking().Filename != "" && k.p.Target.BackingOf() == nil {
		if info, err := k.p.Target.GetInfo(l); err == nil {
			k.unit = max(k.unit, info.ClusterSize)
		}
	}
	k.length = k.dirty.Size()
	k.plain = isPlainFile(k.p.Target)
	k.bufSize = (k.p.BufSize + k.unit - 1) / k.unit * k.unit
	k.maxCopy = max(k.bufSize/mirrorOps/k.unit*k.unit, min(minCopy, k.bufSize), k.unit)
}

// isPlainFile tells whether a node is a file that can have holes.
func isPlainFile(n *block.Node) bool {
	for n.Driver().PlainImages && n.File() != nil {
		n = n.File().Node()
	}
	return n.Driver().Kind == block.Protocol && n.Driver().Create != nil
}

func (k *mirror) Type() Type {
	if k.p.Commit {
		return Commit
	}
	return Mirror
}

// ActivelySynced tells whether source and target are known to hold the same; ok
// is false for jobs that do not know such a state.
func (b *BlockJob) ActivelySynced() (synced, ok bool) {
	k, ok := b.kind.(*mirror)
	if !ok || k.p.Commit {
		return false, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.synced, true
}

// Complete lets the target take the place of the source, or of the node that
// was named for it.
func (k *mirror) Complete(l *aio.Lock, j *Job) error {
	if k.p.Replaces != nil && k.replaces == nil {
		n, err := k.p.Graph.FindNode(*k.p.Replaces)
		if err != nil {
			return err
		}
		k.blocker = &block.Blocker{Reason: "block device is in use by block-job-complete"}
		n.BlockAll(k.blocker)
		n.Ref(l)
		k.replaces = n
	}
	k.completing = true
	j.Wake(l)
	return nil
}

// Cancel: a job that is ready comes to a good end unless it is forced.
func (k *mirror) Cancel(_ *aio.Lock, j *Job, force bool) bool {
	return force || j.status != Ready && j.status != Standby
}

// Change changes the copy mode, in one direction.
func (k *mirror) Change(_ *aio.Lock, _ *Job, options any) error {
	mode, ok := options.(CopyMode)
	if !ok || k.p.Commit {
		return qerr.New("Job type does not support change")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case mode == k.mode:
		return nil
	case mode == CopyInBackground:
		return qerr.New("Change to copy mode 'background' is not implemented")
	}
	k.mode = mode
	return nil
}
