package jobs

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Prepare puts behind the target what belongs there, and lets it take its place
// if the user has completed the job.
func (k *mirror) Prepare(l *aio.Lock, j *Job) error {
	if !k.completing || j.CancelRequested() {
		return k.leave(l, k.furnish)
	}
	if err := k.catchUp(l); err != nil {
		return err
	}
	return k.leave(l, k.pivot)
}

// Wait lets requests to the source go on until the job's last step comes. The
// reference does so with those of NBD clients, and loses what they write if the
// target takes the source's place; here that is copied first.
func (k *mirror) Wait(*aio.Lock, *Job) {
	if !k.drained {
		return
	}
	k.mu.Lock()
	k.mode = CopyInBackground
	k.mu.Unlock()
	k.waiting = true
	k.p.Source.LetIn()
}

func (k *mirror) endWait(l *aio.Lock) {
	if k.waiting {
		k.waiting = false
		k.p.Source.KeepOut(l)
	}
}

// catchUp copies what was written while the job waited.
func (k *mirror) catchUp(l *aio.Lock) error {
	k.endWait(l)
	_, err := aio.Mixed(l, k.job.set.cfg.Main, "mirror_catch_up", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, k.copyRest(co)
	})
	return err
}

func (k *mirror) copyRest(co *aio.Co) error {
	if k.dirty.Count() == 0 {
		return nil
	}
	for claim := k.claim(co, k.bufSize); claim != nil; claim = k.claim(co, k.bufSize) {
		if err := k.copyClaim(co, claim); err != nil {
			return err
		}
	}
	return k.p.Target.CoFlush(co)
}

// copyClaim copies a claimed area, one piece after the other.
func (k *mirror) copyClaim(co *aio.Co, claim *block.Area) error {
	defer k.unclaim(claim)
	for claim.Bytes > 0 {
		method, bytes := k.look(co, claim)
		op := &mirrorOp{area: k.split(claim, min(bytes, claim.Bytes)), method: method}
		if _, err := k.copyArea(co, op); err != nil {
			k.unclaim(op.area)
			return err
		}
		k.exit(op.area)
	}
	return nil
}

// Abort leaves source and target as they are.
func (k *mirror) Abort(l *aio.Lock, _ *Job) { k.abandon(l) }

// Clean undoes what was done for a job that could not be made.
func (k *mirror) Clean(l *aio.Lock, _ *Job) { k.abandon(l) }

func (k *mirror) abandon(l *aio.Lock) {
	if k.left {
		return
	}
	// Nothing takes another one's place, so nothing can fail.
	_ = k.leave(l, func(*aio.Lock) error { return nil })
	k.writable.restore(l)
}

// leave gives up all that the job holds, and takes the filter away behind finish.
// The source's requests go on afterwards.
func (k *mirror) leave(l *aio.Lock, finish func(*aio.Lock) error) error {
	k.left = true
	if k.filter == nil {
		return nil
	}
	k.endWait(l)
	if k.target != nil {
		k.target.Close(l)
	}
	if k.frozen {
		k.filter.UnfreezeChain(k.p.Target)
	}
	if k.job != nil {
		k.job.ReleaseNodes(l)
	}
	k.top.job.Store(nil)
	if k.dirty != nil {
		k.dirty.Release()
	}
	err := finish(l)
	if k.replaces != nil {
		k.replaces.UnblockAll(k.blocker)
		k.p.Graph.Unref(l, k.replaces)
	}
	// What is behind the filter by now becomes durable. Its users take no more than
	// they did.
	_ = k.filter.Flush(l)
	_ = k.p.Graph.DropFilter(l, k.filter)
	k.p.Graph.Unref(l, k.filter)
	if k.drained {
		k.p.Source.DrainedEnd()
	}
	if k.dirty != nil {
		k.p.Graph.Unref(l, k.p.Target)
		k.p.Graph.Unref(l, k.p.Source)
	}
	return err
}

// pivot puts the target in its place.
func (k *mirror) pivot(l *aio.Lock) error {
	from := k.p.Source
	if k.replaces != nil {
		from = k.replaces
		if !from.CanBeReplaced(k.p.Source) {
			from.Complain("Can no longer replace '%s' by '%s', because it can no longer be guaranteed that doing so would not lead to an abrupt change of visible data",
				from.Name(), k.p.Target.Name())
			return qerr.From(syscall.EPERM)
		}
	}
	if err := k.shareBacking(l); err != nil {
		return err
	}
	// The target is to be as writable as what it replaces; where it cannot be, it
	// stays as it is.
	if ro := from.ReadOnly(); ro != k.p.Target.ReadOnly() {
		_ = k.p.Target.SetReadOnly(l, ro)
	}
	// The target takes its place even if what is behind it cannot be opened
	// (observed: own/jobs/drive-mirror-backing).
	err := k.openBacking(l)
	if failed := k.p.Graph.ReplaceNode(l, from, k.p.Target); failed != nil {
		return failed
	}
	return err
}

// furnish puts behind the target what belongs there.
func (k *mirror) furnish(l *aio.Lock) error {
	if err := k.shareBacking(l); err != nil {
		return err
	}
	return k.openBacking(l)
}

// openBacking opens what the target says is behind it.
func (k *mirror) openBacking(l *aio.Lock) error {
	if k.p.Backing != OpenBacking {
		return nil
	}
	if err := k.p.Target.OpenBackingFile(l); err != nil {
		k.p.Target.Complain("%s", err)
		return qerr.From(syscall.EINVAL)
	}
	return nil
}

// shareBacking puts what was not copied behind the target.
func (k *mirror) shareBacking(l *aio.Lock) error {
	if k.p.Backing != ShareBacking {
		return nil
	}
	backing := k.p.Base
	if k.p.ChangesOnly {
		backing = k.p.Source
	}
	return k.p.Graph.ReplaceBacking(l, k.p.Target.SkipFilters(), backing)
}

// CheckReplaces finds the node that a mirror's target is to replace, and fails
// where it cannot.
func CheckReplaces(l *aio.Lock, g *block.Graph, source *block.Node, name string) error {
	n, err := g.FindNode(name)
	if err != nil {
		return err
	}
	if err := n.CheckBlocked(block.BlockOpReplace); err != nil {
		return err
	}
	if !n.CanBeReplaced(source) {
		return qerr.New("Cannot replace '%s' by a node mirrored from '%s', because it cannot be guaranteed that doing so would not lead to an abrupt change of visible data",
			name, source.Name())
	}
	length, err := source.GetLength(l)
	if err != nil {
		return err
	}
	replaced, err := n.GetLength(l)
	if err != nil {
		return err
	}
	if length != replaced {
		return qerr.New("cannot replace image with a mirror image of different size")
	}
	return nil
}

var (
	_ Preparer  = (*mirror)(nil)
	_ Aborter   = (*mirror)(nil)
	_ Cleaner   = (*mirror)(nil)
	_ Pauser    = (*mirror)(nil)
	_ Completer = (*mirror)(nil)
	_ Canceller = (*mirror)(nil)
	_ Changer   = (*mirror)(nil)
)
