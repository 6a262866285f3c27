package jobs

import (
	"slices"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Config is what a set of jobs needs from outside. Its functions are called
// when it is the caller's turn, and must not wait.
type Config struct {
	// Main is the context that jobs take turns in.
	Main *aio.Context
	// Changed is told that a job has a new state.
	Changed func(id string, s Status)
	// Events receives what happens to block jobs.
	Events Events
	// Panicked is told of a panic of a job, which has become its error.
	Panicked func(*aio.PanicError)
}

// Events are what users hear of block jobs beside their states.
type Events interface {
	// JobReady: the job can be completed.
	JobReady(*BlockJob)
	// JobPending: the job waits to be finalized.
	JobPending(*BlockJob)
	// JobCompleted: the job has ended, with an error if failed says so.
	JobCompleted(j *BlockJob, failed error)
	// JobCancelled: the job has ended by force.
	JobCancelled(*BlockJob)
	// JobError: a request failed, and the job's policy demands an action.
	JobError(j *BlockJob, operation Operation, action ErrorAction)
}

// Set is the jobs of one daemon. Its methods are called in the main context.
type Set struct {
	cfg  Config
	jobs []*Job // the newest first
}

// NewSet makes a set without jobs.
func NewSet(cfg Config) *Set { return &Set{cfg: cfg} }

// Params describe a new job.
type Params struct {
	// ID is the name by which users know the job; "" with Internal.
	ID string
	// Internal hides the job from users.
	Internal bool
	// Transaction ties jobs together; nil: the job is alone.
	Transaction *Transaction
	// ManualFinalize leaves the last step to the user, ManualDismiss the
	// forgetting.
	ManualFinalize, ManualDismiss bool
}

// Create makes a job in state created. It must be started ([Job.Start]) or given
// up ([Job.GiveUp]).
func (s *Set) Create(l *aio.Lock, k Kind, p Params) (*Job, error) {
	l.Settle()
	if !p.Internal {
		if !block.WellFormedID(p.ID) {
			return nil, qerr.New("Invalid job ID '%s'", p.ID)
		}
		if s.Find(l, p.ID) != nil {
			return nil, qerr.New("Job ID '%s' already in use", p.ID)
		}
	}
	j := &Job{set: s, id: p.ID, kind: k, autoFinalize: !p.ManualFinalize, autoDismiss: !p.ManualDismiss}
	j.sleeper.Init(s.cfg.Main)
	s.jobs = slices.Insert(s.jobs, 0, j)
	j.transition(Created)
	if p.Transaction == nil {
		p.Transaction = NewTransaction()
	}
	p.Transaction.add(j)
	return j, nil
}

// Find returns the job with the given id, or nil.
func (s *Set) Find(_ *aio.Lock, id string) *Job {
	for _, j := range s.jobs {
		if j.id == id && id != "" {
			return j
		}
	}
	return nil
}

// List returns the jobs that users know, the newest first.
func (s *Set) List(*aio.Lock) []*Job {
	var known []*Job
	for _, j := range s.jobs {
		if j.id != "" {
			known = append(known, j)
		}
	}
	return known
}

// Close cancels all jobs and waits for their ends, the newest first.
func (s *Set) Close(l *aio.Lock) {
	for len(s.jobs) > 0 {
		s.jobs[0].End(l)
	}
}

// forget takes a job off the list.
func (s *Set) forget(j *Job) {
	s.jobs = slices.DeleteFunc(s.jobs, func(other *Job) bool { return other == j })
}
