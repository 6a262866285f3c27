package jobs

import (
	"github.com/qmpblock/qmpblock/block/aio"
)

// Type names a kind of jobs, as in the QAPI type JobType.
type Type string

// The types.
const (
	Commit Type = "commit"
	Stream Type = "stream"
	Mirror Type = "mirror"
	Backup Type = "backup"
	Create Type = "create"
	Amend  Type = "amend"
)

// Kind is what makes one kind of jobs.
type Kind interface {
	Type() Type
	// Run does the work, in a coroutine that begins on a turn of the main
	// context. It calls [Job.PausePoint], [Job.Sleep] or [Job.Yield] often, and
	// returns soon once [Job.Cancelled] tells so; which of the two it was does
	// not matter then. After this, only the functions below are called.
	Run(co *aio.Co, j *Job) error
}

// The abilities of a kind. They are called in the main context, unless they
// take a coroutine.
type (
	// Waiter is told that the job's work is over, but that its last step is up to
	// its user, or to other jobs of the transaction, and may never come.
	Waiter interface {
		Wait(l *aio.Lock, j *Job)
	}
	// Preparer takes the last step that can fail. Until all jobs of the
	// transaction have taken it nothing is final.
	Preparer interface {
		Prepare(l *aio.Lock, j *Job) error
	}
	// Committer makes the job's work final. It is called if all jobs of the
	// transaction were successful.
	Committer interface {
		Commit(l *aio.Lock, j *Job)
	}
	// Aborter undoes the job's work. It is called in place of Commit.
	Aborter interface {
		Abort(l *aio.Lock, j *Job)
	}
	// Cleaner frees what the job needed. It is called behind Commit or Abort,
	// also when the job was never started, but not when it is given up.
	Cleaner interface {
		Clean(l *aio.Lock, j *Job)
	}
	// Freer gives up what the job keeps for as long as users know it: until it
	// is dismissed, or could not be started.
	Freer interface {
		Free(l *aio.Lock, j *Job)
	}
	// Pauser is told before a pause begins, and when it is over.
	Pauser interface {
		Pause(co *aio.Co, j *Job)
		Resume(co *aio.Co, j *Job)
	}
	// UserResumer is told that a user's pause ends.
	UserResumer interface {
		UserResume(l *aio.Lock, j *Job)
	}
	// Completer ends a job that is ready. If it is paused, what Complete asks
	// for must wait until the pause is over.
	Completer interface {
		Complete(l *aio.Lock, j *Job) error
	}
	// Canceller is told to stop, perhaps by force. It returns whether the job
	// is cancelled by force after all; one that is ready may rather come to a
	// good end. Without it, force is always used.
	Canceller interface {
		Cancel(l *aio.Lock, j *Job, force bool) bool
	}
	// Changer changes what options says while the job runs.
	Changer interface {
		Change(l *aio.Lock, j *Job, options any) error
	}
)
