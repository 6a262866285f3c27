package control

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerJobs registers the commands about jobs of all kinds.
func (i *Instance) registerJobs(t *schema.Table) {
	verb := func(do func(j *jobs.Job, l *aio.Lock) error) func(*aio.Lock, string) error {
		return func(l *aio.Lock, id string) error {
			j := i.jobs.Find(l, id)
			if j == nil {
				return qerr.New("Job not found")
			}
			return do(j, l)
		}
	}
	pause, resume := verb((*jobs.Job).Pause), verb((*jobs.Job).Resume)
	cancel := verb(func(j *jobs.Job, l *aio.Lock) error { return j.Cancel(l, true) })
	complete, finalize, dismiss := verb((*jobs.Job).Complete), verb((*jobs.Job).Finalize), verb((*jobs.Job).Dismiss)
	t.JobPause(actionWith(i, func(l *aio.Lock, a *schema.JobPauseArguments) error { return pause(l, a.Id) }))
	t.JobResume(actionWith(i, func(l *aio.Lock, a *schema.JobResumeArguments) error { return resume(l, a.Id) }))
	t.JobCancel(actionWith(i, func(l *aio.Lock, a *schema.JobCancelArguments) error { return cancel(l, a.Id) }))
	t.JobComplete(actionWith(i, func(l *aio.Lock, a *schema.JobCompleteArguments) error { return complete(l, a.Id) }))
	t.JobFinalize(actionWith(i, func(l *aio.Lock, a *schema.JobFinalizeArguments) error { return finalize(l, a.Id) }))
	t.JobDismiss(actionWith(i, func(l *aio.Lock, a *schema.JobDismissArguments) error { return dismiss(l, a.Id) }))
	t.QueryJobs(query(i, i.queryJobs))
	t.Emits(&schema.JobStatusChangeEvent{})
}

func (i *Instance) newJobs() *jobs.Set {
	return jobs.NewSet(jobs.Config{
		Main: i.graph.Main(),
		Changed: func(id string, s jobs.Status) {
			i.emit(&schema.JobStatusChangeEvent{Id: id, Status: schema.EnumOf[schema.JobStatus](s.String())})
		},
		Events:   blockJobEvents{i},
		Panicked: i.panicked,
	})
}

func (i *Instance) queryJobs(l *aio.Lock) ([]*schema.JobInfo, error) {
	var infos []*schema.JobInfo
	for _, j := range i.jobs.List(l) {
		current, total := j.Progress.Get()
		infos = append(infos, &schema.JobInfo{
			Id:              j.ID(),
			Type:            schema.EnumOf[schema.JobType](string(j.Type())),
			Status:          schema.EnumOf[schema.JobStatus](j.Status(l).String()),
			CurrentProgress: current,
			TotalProgress:   total,
			Error:           errorText(j.Err(l)),
		})
	}
	return infos, nil
}

// errorText is an error as an optional member shows it.
func errorText(err error) *string {
	if err == nil {
		return nil
	}
	text := qerr.From(err).Error()
	return &text
}

// closeJobs cancels every job, those over nodes while they are drained.
func (i *Instance) closeJobs() {
	l := i.graph.Main().Acquire()
	defer l.Release()
	if i.machine != nil {
		i.graph.DrainAll(l) // the machine stops (observed: own/flows/sys-quit-jobs)
	}
	i.graph.DrainAllBegin(l)
	i.jobs.Close(l)
	i.graph.DrainAllEnd(l)
}
