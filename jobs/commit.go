package jobs

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CommitParams describe a job that writes images down into one behind them.
type CommitParams struct {
	Params
	Graph *block.Graph
	// Node is the top of the chain, Top the highest image that is written down,
	// which has another image over it. Base gets the data.
	Node, Top, Base *block.Node
	// BackingFile is what the image over Top says of Base; nil: Base's file
	// name.
	BackingFile *string
	// MaskProtocol makes it say raw where Base is a protocol.
	MaskProtocol bool
	Speed        int64
	Errors       ErrorPolicy
	// FilterName is the name of the filter over Top, nil for a generated one.
	FilterName *string
}

// commit copies what the images from top down to base hold into base. A filter
// over top keeps everybody above from minding that base changes. In the end
// the images are taken out of the chain.
type commit struct {
	p        CommitParams
	job      *BlockJob
	filter   *block.Node
	frozen   bool
	replaced bool           // the filter's users have base
	from     *block.Backend // top
	to       *block.Backend // base
	writable writable       // base
	// ahead is what is read, or being read, while something else is written.
	// It changes in turns of the main context; idle is where the job waits.
	ahead *commitArea
	idle  aio.Sleeper
}

// CreateCommit makes a commit job. One that is active must be completed.
func (s *Set) CreateCommit(l *aio.Lock, p CommitParams) (*BlockJob, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.active() || p.written() {
		return s.createActive(l, p)
	}
	k := &commit{p: p}
	k.idle.Init(s.cfg.Main)
	job, err := s.CreateBlock(l, k, BlockParams{
		Params: p.Params, Graph: p.Graph, Node: p.Node, Shared: block.PermAll, Speed: p.Speed, KeepNodes: true,
	})
	if err != nil {
		return nil, err
	}
	k.job = job
	if err := k.create(l); err != nil {
		k.closeBackends(l)
		k.thaw()
		k.writable.restore(l)
		job.GiveUp(l)
		k.dropFilter(l)
		return nil, err
	}
	return job, nil
}

// active tells whether the image that is written down is the one that is written
// to.
func (p *CommitParams) active() bool { return p.Top.SkipFilters() == p.Node.SkipFilters() }

// written tells whether somebody writes to the image that is written down, although
// others are over it (observed: own/jobs/commit-writer).
func (p *CommitParams) written() bool {
	perm, _ := p.Top.Cumulative()
	return perm&block.PermWrite != 0
}

// createActive makes a job that follows what is written meanwhile.
func (s *Set) createActive(l *aio.Lock, p CommitParams) (*BlockJob, error) {
	return s.CreateMirror(l, MirrorParams{
		Params: p.Params, Graph: p.Graph, Source: p.Top, Target: p.Base, Base: p.Base, Commit: true,
		Speed: p.Speed, SourceErrors: p.Errors, TargetErrors: p.Errors, Unmap: true, FilterName: p.FilterName,
	})
}

// create puts the filter over top and takes what the job works on.
func (k *commit) create(l *aio.Lock) (err error) {
	if err := k.writable.make(l, k.p.Base); err != nil {
		return err
	}
	k.filter, err = k.p.Graph.OpenInternal(l, block.Internal{Driver: commitTop, Name: k.p.FilterName})
	if err != nil {
		return err
	}
	if _, err := k.p.Graph.Append(l, k.filter, k.p.Top); err != nil {
		k.p.Graph.Unref(l, k.filter)
		k.filter = nil
		return err
	}
	if err := k.filter.FreezeChain(k.p.Base); err != nil {
		return err
	}
	k.frozen = true
	return k.hold(l)
}

// hold: nobody may rely on what the images between top and base show, since
// base changes below them.
func (k *commit) hold(l *aio.Lock) error {
	const inFlux = block.PermWriteUnchanged | block.PermWrite
	k.p.Graph.DrainAll(l)
	for n := k.p.Top; n != k.p.Base; n = n.FilterOrCow() {
		if err := k.job.AddNode(l, "intermediate node", n, 0, inFlux); err != nil {
			return err
		}
	}
	if err := k.job.AddNode(l, "base", k.p.Base, 0, block.PermAll); err != nil {
		return err
	}
	perm, err := k.basePerm(l)
	if err != nil {
		return err
	}
	k.to = k.p.Graph.NewBackend("", perm, block.PermConsistentRead|block.PermWriteUnchanged)
	k.to.NoQueuing = true
	if err := k.to.Insert(l, k.p.Base); err != nil {
		return err
	}
	// What is read here need not be what anybody else may read.
	k.from = k.p.Graph.NewBackend("", 0, block.PermAll)
	k.from.NoQueuing = true
	return k.from.Insert(l, k.p.Top)
}

// basePerm is what the job needs of base: it makes it as long as top.
func (k *commit) basePerm(l *aio.Lock) (block.Perm, error) {
	perm := block.PermConsistentRead | block.PermWrite
	base, err := k.p.Base.GetLength(l)
	if err != nil {
		return 0, err
	}
	top, err := k.p.Top.GetLength(l)
	if base < top {
		perm |= block.PermResize
	}
	return perm, err
}

func (k *commit) Type() Type { return Commit }

// Run goes through top from its beginning to its end.
func (k *commit) Run(co *aio.Co, j *Job) error {
	length, err := k.from.CoGetLength(co)
	if err != nil {
		return err
	}
	j.Progress.SetRemaining(length)
	base, err := k.to.CoGetLength(co)
	if err != nil {
		return err
	}
	if base < length {
		if err := k.to.Truncate(co, length, false, block.PreallocOff, 0); err != nil {
			return err
		}
	}
	if err := k.copyAll(co, j, length); err != nil || j.Cancelled() {
		return err
	}
	if err := k.clearTail(co, length, base); err != nil {
		return err
	}
	// The reference leaves it to chance whether base is durable, and says that all
	// is well where it cannot be (observed).
	_ = k.to.CoFlush(co)
	return nil
}

// clearTail clears what base has behind the end of top, as far as images over
// top reach: they show zeroes there, and would show base from now on. The
// reference lets them.
func (k *commit) clearTail(co *aio.Co, length, base int64) error {
	reach, err := imageLength(co, k.filter)
	reach = min(reach, base)
	if err != nil || reach <= length {
		return err
	}
	return k.to.CoPwriteZeroes(co, length, reach-length, 0)
}

// imageLength is the length of the longest image that has the node behind it.
func imageLength(co *aio.Co, n *block.Node) (longest int64, err error) {
	n.Parents(func(c *block.Child) bool {
		over := c.ParentNode()
		if over == nil {
			return true
		}
		var length int64
		if over.Driver().Kind == block.Filter {
			length, err = imageLength(co, over)
		} else if over.Backing() == c {
			length, err = over.CoGetLength(co)
		}
		longest = max(longest, length)
		return err == nil
	})
	return longest, err
}

// Prepare takes the images out of the chain: who used the filter uses base from
// then on, and an image over it says so.
func (k *commit) Prepare(l *aio.Lock, _ *Job) error {
	k.closeBackends(l)
	k.thaw()
	return k.replace(l)
}

// replace gives base the users of the filter. Images above are told first, so
// that what they say is true even if the job dies here.
func (k *commit) replace(l *aio.Lock) error {
	var overlays []*block.Node
	k.filter.Parents(func(c *block.Child) bool {
		if n := c.ParentNode(); n != nil && n.Backing() == c {
			overlays = append(overlays, n)
		}
		return true
	})
	for _, n := range overlays {
		if err := k.rename(l, n); err != nil {
			return err
		}
	}
	if err := k.p.Graph.ReplaceNode(l, k.filter, k.p.Base); err != nil {
		return err
	}
	k.replaced = true
	return nil
}

// rename makes an image say that base is its backing file.
func (k *commit) rename(l *aio.Lock, n *block.Node) error {
	var w writable
	if err := w.make(l, n); err != nil {
		return err
	}
	defer w.restore(l)
	return changeBacking(l, n, k.p.Base.SkipFilters(), k.p.BackingFile, k.p.MaskProtocol)
}

func (k *commit) closeBackends(l *aio.Lock) {
	for _, b := range []**block.Backend{&k.from, &k.to} {
		if *b != nil {
			(*b).Close(l)
			*b = nil
		}
	}
}

func (k *commit) thaw() {
	if k.frozen {
		k.frozen = false
		k.filter.UnfreezeChain(k.p.Base)
	}
}

// Abort gives top its users back. It may be that nobody can use it any more as
// long as the job holds it, so the job lets go first.
func (k *commit) Abort(l *aio.Lock, j *Job) { j.block.ReleaseNodes(l) }

// Clean takes the filter away.
func (k *commit) Clean(l *aio.Lock, _ *Job) {
	k.closeBackends(l)
	k.thaw()
	k.dropFilter(l)
	k.writable.restore(l)
}

func (k *commit) dropFilter(l *aio.Lock) {
	if k.filter == nil {
		return
	}
	if !k.replaced {
		// Top gets its users back. They take no more than they did.
		_ = k.p.Graph.DropFilter(l, k.filter)
	}
	k.p.Graph.Unref(l, k.filter)
	k.filter = nil
}

// commitTop is the driver of the filter over top. It needs nothing of the
// images below, which are in flux.
var commitTop = &block.Driver{
	Name: "commit_top", Kind: block.Filter, FilterThroughBacking: true, VariableLength: true,
	Open: func(a *block.OpenArgs) (block.Instance, error) { return &commitFilter{backingFilter{a.Node}}, nil },
}

// commitFilter is a node of the driver commit_top.
type commitFilter struct{ backingFilter }

// ExactFilename is the name of what is below.
func (f *commitFilter) ExactFilename(*block.Options) string { return f.belowName() }

func (f *commitFilter) ChildPerm(*block.Child, block.Role, *block.ReopenState, block.Perm, block.Perm) (block.Perm, block.Perm) {
	return 0, block.PermAll
}

// check refuses what cannot be committed.
func (p *CommitParams) check() error {
	for n := p.Top; n != nil; n = n.FilterOrCow() {
		if err := n.CheckBlocked(block.BlockOpCommitTarget); err != nil {
			return err
		}
		if n == p.Base {
			break
		}
	}
	switch {
	case p.Top == p.Base:
		return qerr.New("cannot commit an image into itself")
	case p.active() && p.BackingFile != nil:
		return qerr.New("'backing-file' specified, but 'top' is the active layer")
	case p.active():
		return nil
	case p.written() && p.BackingFile != nil:
		return qerr.New("'backing-file' specified, but 'top' has a writer on it")
	case p.written():
		return nil
	}
	// The image over it will be told of another backing file.
	over := p.Node.SkipFilters()
	for over.BackingOf() != nil && over.BackingOf() != p.Top.SkipFilters() {
		over = over.BackingOf()
	}
	return over.CheckBlocked(block.BlockOpCommitTarget)
}
