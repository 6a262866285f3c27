package jobview

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Tracker knows the jobs of a server. Its methods return the jobs that
// changed, as they are then. The zero value knows none.
type Tracker struct {
	jobs  []*tracked // the oldest first
	block map[string]blockJob
}

// tracked is a job, and what could not be told of it yet for want of its type:
// events about the status do not mention that.
type tracked struct {
	Job
	held []Job
}

// Unfinished counts the jobs whose end was not seen.
func (t *Tracker) Unfinished() int {
	n := 0
	for _, j := range t.jobs {
		if !j.Over() {
			n++
		}
	}
	return n
}

func (t *Tracker) job(id string) *tracked {
	for _, j := range t.jobs {
		if j.ID == id {
			return j
		}
	}
	j := &tracked{Job: Job{ID: id}}
	t.jobs = append(t.jobs, j)
	return j
}

// jobInfo is a member of query-jobs' answer.
type jobInfo struct {
	ID              string `json:"id"`
	Type            string `json:"type"`
	Status          string `json:"status"`
	CurrentProgress int64  `json:"current-progress"`
	TotalProgress   int64  `json:"total-progress"`
	Error           string `json:"error"`
}

// Jobs takes in the answer to query-jobs, which lists the newest first, and
// what BlockJobs has learnt of them.
func (t *Tracker) Jobs(answer json.RawMessage) ([]Job, error) {
	var list []jobInfo
	if err := json.Unmarshal(answer, &list); err != nil {
		return nil, fmt.Errorf("query-jobs: %w", err)
	}
	var changed []Job
	for _, i := range slices.Backward(list) {
		j := t.job(i.ID)
		if !j.Over() {
			changed = append(changed, j.update(func() { j.learn(i, t.block) })...)
		}
	}
	return changed, nil
}

// learn takes over what the answers to queries say.
func (j *Job) learn(i jobInfo, block map[string]blockJob) {
	j.Type, j.Status, j.Error = i.Type, i.Status, i.Error
	j.Done, j.Total = i.CurrentProgress, i.TotalProgress
	if j.Status == concluded && j.Result == "" {
		j.Result = resultOf(i.Error)
	}
	b, known := block[i.ID]
	if !known {
		return
	}
	j.Block, j.Speed, j.IOStatus = true, b.Speed, b.IOStatus
	if j.IOStatus == "ok" {
		j.IOStatus = ""
	}
}

func resultOf(err string) Result {
	if err != "" {
		return Failed
	}
	return Completed
}

// blockJob is a member of query-block-jobs' answer, and the data of events that
// are about block jobs.
type blockJob struct {
	Device   string `json:"device"`
	ID       string `json:"id"` // only BLOCK_JOB_PENDING calls it so
	Type     string `json:"type"`
	Len      int64  `json:"len"`
	Offset   int64  `json:"offset"`
	Speed    int64  `json:"speed"`
	IOStatus string `json:"io-status"`
	Error    string `json:"error"`
}

// BlockJobs takes in the answer to query-block-jobs; it is told with what Jobs
// takes in next.
func (t *Tracker) BlockJobs(answer json.RawMessage) error {
	var list []blockJob
	if err := json.Unmarshal(answer, &list); err != nil {
		return fmt.Errorf("query-block-jobs: %w", err)
	}
	t.block = make(map[string]blockJob, len(list))
	for _, b := range list {
		t.block[b.Device] = b
	}
	return nil
}

// Event takes in an event; those that are not about jobs change nothing.
func (t *Tracker) Event(name string, data json.RawMessage) ([]Job, error) {
	var take func(json.RawMessage) ([]Job, error)
	switch name {
	case "JOB_STATUS_CHANGE":
		take = t.statusChange
	case "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED":
		take = func(data json.RawMessage) ([]Job, error) { return nil, t.ended(name, data) }
	case "BLOCK_JOB_PENDING", "BLOCK_JOB_READY":
		take = t.typed
	default:
		return nil, nil
	}
	changed, err := take(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return changed, nil
}

func (t *Tracker) statusChange(data json.RawMessage) ([]Job, error) {
	var e struct{ ID, Status string }
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	j := t.job(e.ID)
	if e.Status != null {
		return j.update(func() { j.Status = e.Status }), nil
	}
	t.jobs = slices.DeleteFunc(t.jobs, func(k *tracked) bool { return k == j })
	if j.Over() && len(j.held) == 0 {
		return nil, nil // that it was dismissed is no news
	}
	return j.update(func() { j.Status = null }), nil
}

// typed takes in an event that tells a job's type.
func (t *Tracker) typed(data json.RawMessage) ([]Job, error) {
	var e blockJob
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	j := t.job(e.Device + e.ID)
	return j.update(func() { j.Type, j.Block = e.Type, true }), nil
}

// ended takes in how a block job ended. It is told with the change of status
// that follows.
func (t *Tracker) ended(name string, data json.RawMessage) error {
	var e blockJob
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	j := t.job(e.Device)
	j.Type, j.Block, j.Speed = e.Type, true, e.Speed
	j.Done, j.Total = e.Offset, e.Len
	j.Error = e.Error
	j.Result = resultOf(e.Error)
	if name == "BLOCK_JOB_CANCELLED" {
		j.Result = Cancelled
	}
	return nil
}

// update changes a job and returns what is to be told of that: nothing while
// its type is not known, or how it ended, since a query tells soon, unless it
// is gone. What no status shows is no news: another limit, its type.
func (j *tracked) update(change func()) []Job {
	before := j.Job
	change()
	before.Block, before.Speed = j.Block, j.Speed
	switch {
	case j.Job == before:
		return nil
	case j.Status == concluded && j.Result == "":
		return nil
	case j.Type == "" && j.Status != null:
		j.held = append(j.held, j.Job)
		return nil
	}
	told := j.held
	if before.Type = j.Type; j.Job != before {
		told = append(told, j.Job)
	}
	j.held = nil
	for i := range told {
		told[i].Type, told[i].Block = j.Type, j.Block
	}
	return told
}
