package jobs

import (
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Transaction is a group of jobs that end together.
type Transaction struct {
	jobs       []*Job // the newest first; those that have not concluded
	finalizing bool
	aborting   bool
}

// NewTransaction makes a group without jobs.
func NewTransaction() *Transaction { return &Transaction{} }

func (t *Transaction) add(j *Job) {
	t.jobs = slices.Insert(t.jobs, 0, j)
	j.txn = t
}

func (t *Transaction) remove(j *Job) {
	t.jobs = slices.DeleteFunc(t.jobs, func(other *Job) bool { return other == j })
}

// complete deals with the end of the job's work.
func (j *Job) complete(l *aio.Lock, err error) {
	j.completed = true
	j.judge(err)
	if j.err != nil {
		j.txn.abort(l, j)
	} else {
		j.txn.success(l, j)
	}
}

// errCancelled is why a job failed that was cancelled.
var errCancelled = qerr.From(syscall.ECANCELED)

// judge takes note of a failure, which a cancelled job always is.
func (j *Job) judge(err error) {
	if err == nil && j.err == nil && j.Cancelled() {
		err = errCancelled
	}
	if err != nil && j.err == nil {
		j.err = err
	}
	if j.err != nil {
		j.transition(Aborting)
	}
}

// success lets a job wait for the others, or all of them go on.
func (t *Transaction) success(l *aio.Lock, j *Job) {
	j.transition(Waiting)
	if t.working() || t.pend() {
		if w, ok := j.kind.(Waiter); ok {
			w.Wait(l, j)
		}
		return
	}
	t.finalize(l)
}

// working tells whether the work of some job is not over.
func (t *Transaction) working() bool {
	return slices.ContainsFunc(t.jobs, func(j *Job) bool { return !j.completed })
}

// pend makes all jobs pending, and tells whether a user has to finalize them.
func (t *Transaction) pend() (manual bool) {
	for _, j := range t.jobs {
		j.transition(Pending)
		if !j.autoFinalize {
			manual = true
			j.announce(j.set.cfg.Events.JobPending)
		}
	}
	return manual
}

// finalize takes the last step of all jobs. Who cancels one of them from then on,
// as somebody may who gets the lock while they wait for something, is too late.
func (t *Transaction) finalize(l *aio.Lock) {
	t.finalizing = true
	for _, j := range slices.Clone(t.jobs) {
		p, ok := j.kind.(Preparer)
		if !ok {
			continue
		}
		if err := p.Prepare(l, j); err != nil {
			j.judge(err)
			t.abort(l, j)
			return
		}
	}
	for len(t.jobs) > 0 {
		t.jobs[0].conclude(l)
	}
}

// abort ends all jobs since one of them, whose work is over, has failed. Those
// whose work ends meanwhile are waited for here.
func (t *Transaction) abort(l *aio.Lock, failed *Job) {
	if t.aborting {
		return
	}
	t.aborting = true
	for _, j := range slices.Clone(t.jobs) {
		if j != failed {
			j.requestCancel(l, true)
		}
	}
	for len(t.jobs) > 0 {
		j := t.jobs[0]
		j.finish(l)
		j.conclude(l)
	}
}

// finish waits until the work of a cancelled job is over.
func (j *Job) finish(l *aio.Lock) {
	if !j.started {
		j.completed = true
	}
	for !j.completed {
		j.sleeper.Wake(l)
		aio.WaitWhile(l, func() bool { return !j.completed && !j.sleeper.Asleep() })
	}
}

// conclude is the end of a job, good or bad.
func (j *Job) conclude(l *aio.Lock) {
	j.judge(nil)
	if c, ok := j.kind.(Committer); ok && j.err == nil {
		c.Commit(l, j)
	}
	if a, ok := j.kind.(Aborter); ok && j.err != nil {
		a.Abort(l, j)
	}
	if c, ok := j.kind.(Cleaner); ok {
		c.Clean(l, j)
	}
	if j.block != nil && !j.block.keeps {
		j.block.ReleaseNodes(l)
	}
	if j.started {
		j.announceEnd()
	}
	j.txn.remove(j)
	j.transition(Concluded)
	if j.autoDismiss || !j.started {
		j.vanish(l)
	}
}

func (j *Job) announceEnd() {
	j.announce(func(b *BlockJob) {
		if j.Cancelled() {
			j.set.cfg.Events.JobCancelled(b)
		} else {
			j.set.cfg.Events.JobCompleted(b, j.err)
		}
	})
}

// announce tells users of something that happened to a block job they know.
func (j *Job) announce(tell func(*BlockJob)) {
	if j.block != nil && j.id != "" {
		tell(j.block)
	}
}

// vanish ends the job's last state.
func (j *Job) vanish(l *aio.Lock) {
	j.transition(Null)
	j.set.forget(j)
	if j.block != nil {
		j.block.close(l)
	}
	if f, ok := j.kind.(Freer); ok {
		f.Free(l, j)
	}
}
