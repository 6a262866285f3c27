package jobs

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Job is one piece of work, from its creation to its end.
type Job struct {
	set  *Set
	id   string
	kind Kind
	txn  *Transaction
	// block is the block job that this one belongs to, nil if it is none.
	block *BlockJob

	autoFinalize, autoDismiss bool

	// Progress is how far the work has come.
	Progress Progress

	// What follows changes in turns of the main context only.

	status Status
	// err is why the job has failed.
	err     error
	started bool
	// completed: the work is over.
	completed bool

	pauses     int // reasons to pause
	userPaused bool
	paused     bool // the coroutine is at rest for it
	// cancelled: the job is to end early; byForce: whatever it was at.
	// The coroutine asks without a turn.
	cancelled, byForce atomic.Bool

	sleeper aio.Sleeper
	// quiet: the coroutine does nothing until a drained section has begun that
	// it asked for itself.
	quiet bool
}

// ID is the name by which users know the job, "" if they do not.
func (j *Job) ID() string { return j.id }

// Kind is what the job does.
func (j *Job) Kind() Kind { return j.kind }

// Type is the type of the job's kind.
func (j *Job) Type() Type { return j.kind.Type() }

// Block is the block job that the job is, nil if it is none.
func (j *Job) Block() *BlockJob { return j.block }

// Status is where the job stands.
func (j *Job) Status(*aio.Lock) Status { return j.status }

// Err is why the job has failed, nil if it has not.
func (j *Job) Err(*aio.Lock) error { return j.err }

// AutoFinalize tells whether the job's last step comes by itself.
func (j *Job) AutoFinalize() bool { return j.autoFinalize }

// AutoDismiss tells whether the job is forgotten by itself.
func (j *Job) AutoDismiss() bool { return j.autoDismiss }

// transition gives the job a new state.
func (j *Job) transition(s Status) {
	if !next[j.status].has(s) {
		panic(fmt.Sprintf("jobs: %s cannot follow %s", s, j.status))
	}
	if j.status == s {
		return
	}
	j.status = s
	if j.id != "" {
		j.set.cfg.Changed(j.id, s)
	}
}

// check tells whether a verb is allowed in the job's state.
func (j *Job) check(v Verb) error {
	if allowed[v].has(j.status) {
		return nil
	}
	return qerr.New("Job '%s' in state '%s' cannot accept command verb '%s'", j.id, j.status, v)
}

// Start lets the job run. It returns when the job has ended or waits for
// something for the first time.
func (j *Job) Start(l *aio.Lock) {
	j.started = true
	j.transition(Running)
	var err error
	j.set.cfg.Main.Start(l, string(j.Type()), func(co *aio.Co) {
		j.PausePoint(co)
		if !j.Cancelled() {
			err = j.kind.Run(co, j)
		}
	}, func(l *aio.Lock, p *aio.PanicError) {
		if p != nil {
			j.set.cfg.Panicked(p)
			err = p
		}
		j.complete(l, err)
	})
}

// GiveUp ends a job that could not be started. What its kind has done for it is
// left to the caller.
func (j *Job) GiveUp(l *aio.Lock) {
	j.txn.remove(j)
	j.vanish(l)
}

// The methods below are for the job's coroutine.

// Cancelled tells whether the job was cancelled by force and has to end.
func (j *Job) Cancelled() bool { return j.byForce.Load() }

// CancelRequested tells whether the job is to end, by force or in its own way.
func (j *Job) CancelRequested() bool { return j.cancelled.Load() }

// SetReady says that the work is done, and goes on until the user ends it.
func (j *Job) SetReady(co *aio.Co) {
	j.takeTurn(co)
	j.transition(Ready)
	j.announce(j.set.cfg.Events.JobReady)
}

// Sleep waits for d, or until something happens to the job, and pauses if that
// is what has happened: it may return early for no visible reason. Who wants a
// job that sleeps to notice something wakes it ([Job.Wake]).
func (j *Job) Sleep(co *aio.Co, d time.Duration) {
	j.takeTurn(co)
	if j.Cancelled() {
		return
	}
	if j.pauses == 0 {
		j.sleeper.Sleep(co, d)
	}
	j.PausePoint(co)
}

// Yield is Sleep without a time limit.
func (j *Job) Yield(co *aio.Co) { j.Sleep(co, aio.Forever) }

// Wake ends [Job.Sleep].
func (j *Job) Wake(l *aio.Lock) {
	if !j.paused {
		j.sleeper.Wake(l)
	}
}

// PausePoint pauses as long as there is a reason to.
func (j *Job) PausePoint(co *aio.Co) {
	j.takeTurn(co)
	if !j.mustPause() {
		return
	}
	p, _ := j.kind.(Pauser)
	if p != nil {
		p.Pause(co, j)
		j.takeTurn(co)
	}
	if j.mustPause() {
		j.rest(co)
	}
	if p != nil {
		p.Resume(co, j)
		j.takeTurn(co)
	}
}

func (j *Job) mustPause() bool { return j.pauses > 0 && !j.Cancelled() }

// rest is a pause.
func (j *Job) rest(co *aio.Co) {
	before, resting := j.status, Paused
	if before == Ready {
		resting = Standby
	}
	j.transition(resting)
	j.paused = true
	for j.mustPause() {
		j.sleeper.Sleep(co, aio.Forever)
	}
	j.paused = false
	j.transition(before)
}

func (j *Job) takeTurn(co *aio.Co) { co.TakeTurn(j.set.cfg.Main) }
