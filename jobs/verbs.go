package jobs

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Pause pauses the job on the user's behalf.
func (j *Job) Pause(l *aio.Lock) error {
	if err := j.check(VerbPause); err != nil {
		return err
	}
	if j.userPaused {
		return qerr.New("Job is already paused")
	}
	j.userPaused = true
	j.pause()
	l.Settle()
	return nil
}

// Resume ends the user's pause.
func (j *Job) Resume(l *aio.Lock) error {
	if !j.userPaused {
		return qerr.New("Can't resume a job that was not paused")
	}
	if err := j.check(VerbResume); err != nil {
		return err
	}
	j.endUserPause(l)
	l.Settle()
	return nil
}

func (j *Job) endUserPause(l *aio.Lock) {
	if !j.userPaused {
		return
	}
	if r, ok := j.kind.(UserResumer); ok {
		r.UserResume(l, j)
	}
	if j.block != nil {
		j.block.ioStatus = IOOK
	}
	j.userPaused = false
	j.resume()
}

// pause adds a reason to pause, resume takes one away. Both run with the main
// context's lock; the job hears of it as soon as its holder polls.
func (j *Job) pause() {
	j.pauses++
	if !j.paused {
		j.set.cfg.Main.Later(j.sleeper.Wake)
	}
}

func (j *Job) resume() {
	j.pauses--
	if j.pauses == 0 {
		j.set.cfg.Main.Later(func(l *aio.Lock) {
			if j.paused {
				j.sleeper.Wake(l)
			}
		})
	}
}

// Cancel ends the job early, on the user's behalf. Without force one that is
// ready may come to a good end.
func (j *Job) Cancel(l *aio.Lock, force bool) error {
	if err := j.check(VerbCancel); err != nil {
		return err
	}
	j.cancel(l, force)
	return nil
}

// CancelBlockJob is Cancel as the older commands do it: a paused job is
// cancelled by force only.
func (j *Job) CancelBlockJob(l *aio.Lock, force bool) error {
	if j.userPaused && !force {
		return qerr.New("The block job for device '%s' is currently paused", j.id)
	}
	return j.Cancel(l, force)
}

func (j *Job) cancel(l *aio.Lock, force bool) {
	if j.txn.finalizing {
		return
	}
	j.requestCancel(l, force)
	switch {
	case j.status == Created:
		j.complete(l, nil)
	case j.completed:
		j.txn.abort(l, j)
	default:
		j.sleeper.Wake(l)
	}
}

// requestCancel lets the job know that it is cancelled.
func (j *Job) requestCancel(l *aio.Lock, force bool) {
	if j.Cancelled() {
		return
	}
	c, ok := j.kind.(Canceller)
	force = !ok || c.Cancel(l, j, force)
	j.endUserPause(l)
	j.cancelled.Store(true)
	j.byForce.Store(force)
}

// End ends the job whatever its state.
func (j *Job) End(l *aio.Lock) {
	if j.status < Concluded {
		j.cancel(l, true)
		j.finish(l)
	}
	// Somebody else may be at its end, and be waiting for something.
	aio.WaitWhile(l, func() bool { return j.status < Concluded })
	if j.status == Concluded {
		j.vanish(l)
	}
}

// Complete ends a job that is ready.
func (j *Job) Complete(l *aio.Lock) error {
	if err := j.check(VerbComplete); err != nil {
		return err
	}
	c, ok := j.kind.(Completer)
	if !ok || j.CancelRequested() {
		return qerr.New("The active block job '%s' cannot be completed", j.id)
	}
	return c.Complete(l, j)
}

// Finalize takes the last step of a pending job, and of the others of its
// transaction.
func (j *Job) Finalize(l *aio.Lock) error {
	if err := j.check(VerbFinalize); err != nil {
		return err
	}
	j.txn.finalize(l)
	return nil
}

// Dismiss forgets a concluded job.
func (j *Job) Dismiss(l *aio.Lock) error {
	if err := j.check(VerbDismiss); err != nil {
		return err
	}
	j.vanish(l)
	return nil
}
