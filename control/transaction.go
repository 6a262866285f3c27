package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerTransaction registers the command that does several things at once.
func (i *Instance) registerTransaction(t *schema.Table) {
	t.Transaction(actionWith(i, i.transaction))
}

// transactionAction is one step of a transaction.
type transactionAction interface {
	// prepare does everything that can fail. What has to follow, and what undoes
	// it, is left with the transaction.
	prepare(l *aio.Lock, t *transaction) error
}

// groupable tells whether an action starts a job, which can end together with
// others.
func groupable(kind schema.TransactionActionKind) bool {
	return kind == schema.TransactionActionKindBlockdevBackup || kind == schema.TransactionActionKindDriveBackup
}

// transaction is several actions that are done all or none. Those who follow
// are called in the reverse order, as in the reference (observed:
// transaction/backup-grouped-finalize): those of commit, or those of abort, and
// then those of clean.
type transaction struct {
	*Instance
	// jobs is the group of the jobs that are started; nil: each ends by itself.
	jobs *jobs.Transaction

	commits, aborts, cleans []func(*aio.Lock)
}

func (t *transaction) onCommit(f func(*aio.Lock)) { t.commits = append(t.commits, f) }
func (t *transaction) onAbort(f func(*aio.Lock))  { t.aborts = append(t.aborts, f) }
func (t *transaction) onClean(f func(*aio.Lock))  { t.cleans = append(t.cleans, f) }

// drain keeps requests away from a node until the end.
func (t *transaction) drain(l *aio.Lock, n *block.Node) {
	n.DrainedBegin(l)
	t.onClean(func(*aio.Lock) { n.DrainedEnd() })
}

// transact does actions, all or none.
func (i *Instance) transact(l *aio.Lock, actions ...transactionAction) error {
	return (&transaction{Instance: i}).run(l, actions)
}

func (t *transaction) run(l *aio.Lock, actions []transactionAction) (err error) {
	t.graph.DrainAll(l)
	for _, a := range actions {
		if err = a.prepare(l, t); err != nil {
			break
		}
	}
	if err == nil {
		backwards(l, t.commits)
	} else {
		backwards(l, t.aborts)
	}
	backwards(l, t.cleans)
	return err
}

func backwards(l *aio.Lock, all []func(*aio.Lock)) {
	for i := len(all) - 1; i >= 0; i-- {
		all[i](l)
	}
}

// transaction is the command.
func (i *Instance) transaction(l *aio.Lock, a *schema.TransactionArguments) error {
	t := &transaction{Instance: i}
	mode := schema.ActionCompletionModeIndividual
	if a.Properties != nil && a.Properties.CompletionMode != nil {
		mode = *a.Properties.CompletionMode
	}
	if mode == schema.ActionCompletionModeGrouped {
		t.jobs = jobs.NewTransaction()
	}
	var actions []transactionAction
	for _, wanted := range a.Actions {
		act := actionOf(wanted)
		if act == nil {
			// As if there were no such value, until there is what it needs.
			return qerr.New("Parameter 'type' does not accept value '%s'", wanted.Type)
		}
		if t.jobs != nil && !groupable(wanted.Type) {
			return qerr.New("Action '%s' does not support transaction property completion-mode = %s", wanted.Type, mode)
		}
		actions = append(actions, act)
	}
	return t.run(l, actions)
}

// actionOf is what an action of the schema does, nil if we cannot.
func actionOf(a *schema.TransactionAction) transactionAction {
	switch v := a.Variant.(type) {
	case *schema.AbortWrapper:
		return abortAction{}
	case *schema.BlockDirtyBitmapAddWrapper:
		return bitmapAddAction{&v.Data}
	case *schema.BlockDirtyBitmapMergeWrapper:
		return bitmapMergeAction{&v.Data}
	case *schema.BlockDirtyBitmapWrapper:
		switch a.Type {
		case schema.TransactionActionKindBlockDirtyBitmapRemove:
			return bitmapRemoveAction{&v.Data}
		case schema.TransactionActionKindBlockDirtyBitmapClear:
			return bitmapClearAction{&v.Data}
		default:
			return bitmapEnableAction{&v.Data, a.Type == schema.TransactionActionKindBlockDirtyBitmapEnable}
		}
	case *schema.BlockdevBackupWrapper:
		return backupAction{&v.Data}
	case *schema.DriveBackupWrapper:
		return driveBackupAction{&v.Data}
	case *schema.BlockdevSnapshotWrapper:
		return snapshotAction{&v.Data}
	case *schema.BlockdevSnapshotInternalWrapper:
		return internalSnapshotAction{&v.Data}
	case *schema.BlockdevSnapshotSyncWrapper:
		return snapshotSyncAction{&v.Data}
	}
	return nil
}

// abortAction fails, for tests.
type abortAction struct{}

func (abortAction) prepare(*aio.Lock, *transaction) error {
	return qerr.New("Transaction aborted using Abort action")
}

type bitmapAddAction struct{ *schema.BlockDirtyBitmapAdd }

func (a bitmapAddAction) prepare(l *aio.Lock, t *transaction) error {
	if err := t.dirtyBitmapAdd(l, a.BlockDirtyBitmapAdd); err != nil {
		return err
	}
	b, err := t.dirtyBitmap(a.Node, a.Name)
	if err != nil {
		return err
	}
	t.onAbort(func(*aio.Lock) { b.Release() })
	return nil
}

// bitmapRemoveAction makes the bitmap busy, so that no other action can use it,
// and removes it when nothing can fail any more. What the image holds of it goes
// at once, and comes back when the image is closed (observed:
// own/transaction/persistent).
type bitmapRemoveAction struct{ *schema.BlockDirtyBitmap }

func (a bitmapRemoveAction) prepare(l *aio.Lock, t *transaction) error {
	b, err := t.usableBitmap(a.BlockDirtyBitmap, block.BitmapAllowInconsistent)
	if err != nil {
		return err
	}
	if err := b.RemoveStored(l); err != nil {
		return err
	}
	b.SetBusy(true)
	t.onAbort(func(*aio.Lock) { b.SetBusy(false) })
	t.onCommit(func(*aio.Lock) { b.Release() })
	return nil
}

// changeBitmap makes a change of a bitmap one that can be undone.
func (t *transaction) changeBitmap(l *aio.Lock, b *block.DirtyBitmap, change func() error) error {
	undo, err := b.BeginUndo(l)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		undo.Undo()
		return err
	}
	t.onAbort(func(*aio.Lock) { undo.Undo() })
	t.onCommit(func(*aio.Lock) { undo.End() })
	return nil
}

type bitmapClearAction struct{ *schema.BlockDirtyBitmap }

func (a bitmapClearAction) prepare(l *aio.Lock, t *transaction) error {
	b, err := t.usableBitmap(a.BlockDirtyBitmap, 0)
	if err != nil {
		return err
	}
	return t.changeBitmap(l, b, func() error {
		b.Clear()
		return nil
	})
}

// bitmapEnableAction enables or disables a bitmap. The reference dies if there
// is none to enable.
type bitmapEnableAction struct {
	*schema.BlockDirtyBitmap
	on bool
}

func (a bitmapEnableAction) prepare(l *aio.Lock, t *transaction) error {
	b, err := t.usableBitmap(a.BlockDirtyBitmap, block.BitmapAllowReadOnly)
	if err != nil {
		return err
	}
	return t.changeBitmap(l, b, func() error {
		b.SetEnabled(a.on)
		return nil
	})
}

type bitmapMergeAction struct{ *schema.BlockDirtyBitmapMerge }

func (a bitmapMergeAction) prepare(l *aio.Lock, t *transaction) error {
	b, err := t.dirtyBitmap(a.Node, a.Target)
	if err != nil {
		return err
	}
	return t.changeBitmap(l, b, func() error { return t.dirtyBitmapMerge(l, a.BlockDirtyBitmapMerge) })
}
