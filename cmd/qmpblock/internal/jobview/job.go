// Package jobview shows the jobs of a running server: one of ours, or QEMU.
//
// A [Tracker] knows the jobs. It learns of them from what the server says,
// events and answers to queries alike, in the order in which they come: an event
// is the only trace of what a job was between two queries, and of how one ended
// that dismisses itself. [List] asks once and prints a table, [Watch] follows
// the jobs and tells a [View] of every change: [Lines] for programs, [Bars] for
// people.
//
// Nothing is asked while there is nothing to follow: events tell of new jobs.
package jobview

import "fmt"

// Job is what is known of a job.
type Job struct {
	ID     string
	Type   string // as query-jobs says: "stream"
	Status string // "running", "paused", "ready", …

	// Done and Total tell the progress, in a unit of the job's own: bytes, if
	// it is a block job. Total is an estimate and may change.
	Done, Total int64

	Block    bool   // it is a block job
	Speed    int64  // limit of a block job in bytes a second; 0 is none
	IOStatus string // of a block job; "" if all is well

	Result Result // how it ended, if that is known
	Error  string // why it failed
}

// Result is how a job ended.
type Result string

// The results.
const (
	Completed Result = "completed"
	Cancelled Result = "cancelled"
	Failed    Result = "failed"
)

// Statuses that mean something here.
const (
	running   = "running"
	concluded = "concluded"
	null      = "null" // it is gone
)

// Over tells whether nothing more is to be expected of the job.
func (j *Job) Over() bool { return j.Result != "" && j.Status == concluded || j.Status == null }

// Percent is the progress; a job that has not said how much there is to do has
// done nothing of it.
func (j *Job) Percent() int {
	switch {
	case j.Result == Completed:
		return 100
	case j.Total <= 0:
		return 0
	}
	return int(float64(j.Done) / float64(j.Total) * 100)
}

// Note is what there is to say beyond the status: the result, or what ails it.
func (j *Job) Note() string {
	switch {
	case j.Error != "" && j.Result != Cancelled:
		return fmt.Sprintf("%s: %s", Failed, j.Error)
	case j.Result != "":
		return string(j.Result)
	}
	return j.IOStatus
}
