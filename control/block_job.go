package control

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBlockJobs registers the older commands about block jobs.
func (i *Instance) registerBlockJobs(t *schema.Table) {
	t.BlockJobSetSpeed(actionWith(i, func(l *aio.Lock, a *schema.BlockJobSetSpeedArguments) error {
		return i.withBlockJob(l, a.Device, func(j *jobs.BlockJob) error { return j.SetSpeed(l, a.Speed) })
	}))
	t.BlockJobCancel(actionWith(i, func(l *aio.Lock, a *schema.BlockJobCancelArguments) error {
		return i.withBlockJob(l, a.Device, func(j *jobs.BlockJob) error { return j.CancelBlockJob(l, deref(a.Force)) })
	}))
	t.BlockJobPause(actionWith(i, func(l *aio.Lock, a *schema.BlockJobPauseArguments) error {
		return i.withBlockJob(l, a.Device, func(j *jobs.BlockJob) error { return j.Pause(l) })
	}))
	t.BlockJobResume(actionWith(i, func(l *aio.Lock, a *schema.BlockJobResumeArguments) error {
		return i.withBlockJob(l, a.Device, func(j *jobs.BlockJob) error { return j.Resume(l) })
	}))
	t.BlockJobComplete(actionWith(i, func(l *aio.Lock, a *schema.BlockJobCompleteArguments) error {
		return i.withBlockJob(l, a.Device, func(j *jobs.BlockJob) error { return j.Complete(l) })
	}))
	t.BlockJobFinalize(actionWith(i, func(l *aio.Lock, a *schema.BlockJobFinalizeArguments) error {
		return i.withBlockJob(l, a.Id, func(j *jobs.BlockJob) error { return j.Finalize(l) })
	}))
	t.BlockJobDismiss(actionWith(i, func(l *aio.Lock, a *schema.BlockJobDismissArguments) error {
		return i.withBlockJob(l, a.Id, func(j *jobs.BlockJob) error { return j.Dismiss(l) })
	}))
	t.BlockJobChange(actionWith(i, func(l *aio.Lock, a *schema.BlockJobChangeOptions) error {
		return i.withBlockJob(l, a.Id, func(j *jobs.BlockJob) error { return j.Change(l, changedMode(a)) })
	}))
	t.QueryBlockJobs(query(i, i.queryBlockJobs))
	t.Emits(&schema.BlockJobCompletedEvent{})
	t.Emits(&schema.BlockJobCancelledEvent{})
	t.Emits(&schema.BlockJobErrorEvent{})
	t.Emits(&schema.BlockJobReadyEvent{})
	t.Emits(&schema.BlockJobPendingEvent{})
}

// jobParams are the parameters that all commands for block jobs have.
func jobParams(id *string, autoFinalize, autoDismiss *bool) jobs.Params {
	return jobs.Params{
		ID:             deref(id),
		ManualFinalize: autoFinalize != nil && !*autoFinalize,
		ManualDismiss:  autoDismiss != nil && !*autoDismiss,
	}
}

func errorPolicy(e *schema.BlockdevOnError) jobs.ErrorPolicy {
	switch deref(e) {
	case schema.BlockdevOnErrorIgnore:
		return jobs.PolicyIgnore
	case schema.BlockdevOnErrorEnospc:
		return jobs.PolicyENOSPC
	case schema.BlockdevOnErrorStop:
		return jobs.PolicyStop
	case schema.BlockdevOnErrorAuto:
		return jobs.PolicyAuto
	}
	return jobs.PolicyReport
}

// withBlockJob finds a block job; other jobs do not exist for these commands.
func (i *Instance) withBlockJob(l *aio.Lock, id string, do func(*jobs.BlockJob) error) error {
	j := i.jobs.Find(l, id)
	if j == nil || j.Block() == nil {
		return qerr.WithClass(qerr.DeviceNotActive, "Block job '%s' not found", id)
	}
	return do(j.Block())
}

// changedMode is the copy mode that a job is to change to. The reference looks
// at it whatever the type says (observed: own/jobs/mirror-change).
func changedMode(a *schema.BlockJobChangeOptions) jobs.CopyMode {
	if o, ok := a.Variant.(*schema.BlockJobChangeOptionsMirror); ok {
		return copyMode(&o.CopyMode)
	}
	return jobs.CopyInBackground
}

func (i *Instance) queryBlockJobs(l *aio.Lock) ([]*schema.BlockJobInfo, error) {
	var infos []*schema.BlockJobInfo
	for _, j := range i.jobs.List(l) {
		if b := j.Block(); b != nil {
			infos = append(infos, blockJobInfo(l, b))
		}
	}
	return infos, nil
}

func blockJobInfo(l *aio.Lock, b *jobs.BlockJob) *schema.BlockJobInfo {
	current, total := b.Progress.Get()
	info := &schema.BlockJobInfo{
		Type:         blockJobType(b),
		Device:       b.ID(),
		Len:          total,
		Offset:       current,
		Busy:         b.Busy(l),
		Paused:       b.PauseRequested(l),
		Speed:        b.Speed(),
		IoStatus:     schema.EnumOf[schema.BlockDeviceIoStatus](b.IOStatus(l).String()),
		Ready:        b.Status(l) == jobs.Ready || b.Status(l) == jobs.Standby,
		Status:       schema.EnumOf[schema.JobStatus](b.Status(l).String()),
		AutoFinalize: b.AutoFinalize(),
		AutoDismiss:  b.AutoDismiss(),
		Error:        errorText(b.Err(l)),
	}
	if synced, ok := b.ActivelySynced(); ok {
		info.Variant = &schema.BlockJobInfoMirror{ActivelySynced: synced}
	}
	return info
}

func blockJobType(b *jobs.BlockJob) schema.JobType {
	return schema.EnumOf[schema.JobType](string(b.Type()))
}

// blockJobEvents tells clients what happens to block jobs.
type blockJobEvents struct{ i *Instance }

func (e blockJobEvents) JobReady(b *jobs.BlockJob) {
	current, total := b.Progress.Get()
	e.i.emit(&schema.BlockJobReadyEvent{Type: blockJobType(b), Device: b.ID(), Len: total, Offset: current, Speed: b.Speed()})
}

func (e blockJobEvents) JobPending(b *jobs.BlockJob) {
	e.i.emit(&schema.BlockJobPendingEvent{Type: blockJobType(b), Id: b.ID()})
}

func (e blockJobEvents) JobCancelled(b *jobs.BlockJob) {
	current, total := b.Progress.Get()
	e.i.emit(&schema.BlockJobCancelledEvent{Type: blockJobType(b), Device: b.ID(), Len: total, Offset: current, Speed: b.Speed()})
}

func (e blockJobEvents) JobCompleted(b *jobs.BlockJob, failed error) {
	current, total := b.Progress.Get()
	e.i.emit(&schema.BlockJobCompletedEvent{
		Type: blockJobType(b), Device: b.ID(), Len: total, Offset: current, Speed: b.Speed(), Error: errorText(failed),
	})
}

func (e blockJobEvents) JobError(b *jobs.BlockJob, op jobs.Operation, action jobs.ErrorAction) {
	e.i.emit(&schema.BlockJobErrorEvent{
		Device:    b.ID(),
		Operation: schema.EnumOf[schema.IoOperationType](op.String()),
		Action:    schema.EnumOf[schema.BlockErrorAction](action.String()),
	})
}
