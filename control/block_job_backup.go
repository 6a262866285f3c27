package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBackup registers the commands that start backups: transactions of one
// action each.
func (i *Instance) registerBackup(t *schema.Table) {
	t.BlockdevBackup(actionWith(i, func(l *aio.Lock, a *schema.BlockdevBackup) error {
		return i.transact(l, backupAction{a})
	}))
	t.DriveBackup(actionWith(i, func(l *aio.Lock, a *schema.DriveBackup) error {
		return i.transact(l, driveBackupAction{a})
	}))
}

// defaultBackupWorkers is how many requests of a backup are under way at once
// unless the user says otherwise.
const defaultBackupWorkers = 64

// backupAction starts a backup into a node.
type backupAction struct{ *schema.BlockdevBackup }

func (a backupAction) prepare(l *aio.Lock, t *transaction) error {
	source, err := t.graph.Lookup(a.Device, a.Device)
	if err != nil {
		return err
	}
	target, err := t.graph.Lookup(a.Target, a.Target)
	if err != nil {
		return err
	}
	t.drain(l, source)
	return t.backup(l, a.BlockdevBackup, source, target)
}

// backup makes the job, which starts when the transaction is committed. The
// source is drained.
func (t *transaction) backup(l *aio.Lock, a *schema.BlockdevBackup, source, target *block.Node) error {
	id := t.backupID(a, source)
	p := jobs.BackupParams{
		Params:        jobParams(&id, a.AutoFinalize, a.AutoDismiss),
		Graph:         t.graph,
		Source:        source,
		Target:        target,
		Speed:         deref(a.Speed),
		Sync:          jobs.BackupSync(a.Sync),
		Compress:      deref(a.Compress),
		DiscardSource: deref(a.DiscardSource),
		SourceErrors:  errorPolicy(a.OnSourceError),
		TargetErrors:  errorPolicy(a.OnTargetError),
		FilterName:    a.FilterNodeName,
		MaxWorkers:    defaultBackupWorkers,
	}
	p.Transaction = t.jobs
	if perf := a.XPerf; perf != nil {
		if perf.MaxWorkers != nil {
			p.MaxWorkers = *perf.MaxWorkers
		}
		p.MaxChunk, p.MinCluster = deref(perf.MaxChunk), deref(perf.MinClusterSize)
		p.UseCopyRange = deref(perf.UseCopyRange)
	}
	if err := chooseBitmap(&p, a); err != nil {
		return err
	}
	job, err := t.Instance.jobs.CreateBackup(l, p)
	if err != nil {
		return err
	}
	t.onCommit(job.Start)
	t.onAbort(job.End)
	return nil
}

// backupID is the name of the job: that of the device, if the user gave none.
func (t *transaction) backupID(a *schema.BlockdevBackup, source *block.Node) string {
	if a.JobId != nil {
		return *a.JobId
	}
	var name string
	t.graph.Backends(func(b *block.Backend) bool {
		if b.Node() == source {
			name = b.Name()
		}
		return name == ""
	})
	return name
}

// chooseBitmap finds the bitmap of a backup, and refuses what makes no sense.
func chooseBitmap(p *jobs.BackupParams, a *schema.BlockdevBackup) error {
	if p.Sync == jobs.SyncIncremental || p.Sync == jobs.SyncBitmap {
		if a.Bitmap == nil {
			return qerr.New("must provide a valid bitmap name for '%s' sync mode", p.Sync)
		}
	}
	var mode *jobs.BitmapMode
	if a.BitmapMode != nil {
		m := jobs.BitmapMode(*a.BitmapMode)
		mode = &m
	}
	if p.Sync == jobs.SyncIncremental {
		onSuccess := jobs.OnSuccess
		if mode != nil && *mode != onSuccess {
			return qerr.New("Bitmap sync mode must be '%s' when using sync mode '%s'", schema.BitmapSyncModeOnSuccess, p.Sync)
		}
		mode = &onSuccess
	}
	if a.Bitmap != nil {
		if p.Bitmap = p.Source.DirtyBitmap(*a.Bitmap); p.Bitmap == nil {
			return qerr.New("Bitmap '%s' could not be found", *a.Bitmap)
		}
	}
	if mode != nil {
		p.BitmapMode = *mode
	}
	return p.Sync.CheckBitmap(p.Bitmap, mode)
}

// driveBackupAction starts a backup into an image that is opened, or made
// first.
type driveBackupAction struct{ *schema.DriveBackup }

func (a driveBackupAction) prepare(l *aio.Lock, t *transaction) error {
	source, err := t.graph.Lookup(a.Device, a.Device)
	if err != nil {
		return err
	}
	t.drain(l, source)
	if !source.IsInserted(l) {
		return qerr.New("Device has no medium")
	}
	// No image is made in vain.
	if err := source.CheckBlocked(block.BlockOpBackupSource); err != nil {
		return err
	}
	common := a.common()
	im := block.CopyImage{Filename: a.Target, Format: deref(a.Format)}
	im.Existing = a.Mode != nil && *a.Mode == schema.NewImageModeExisting
	switch common.Sync {
	case schema.MirrorSyncModeTop:
		if im.Backing = source.KnownBehind(); im.Backing == nil {
			common.Sync = schema.MirrorSyncModeFull
		}
	case schema.MirrorSyncModeNone:
		im.Backing = source
	}
	target, err := t.graph.OpenBackup(l, source, im, common.Sync == schema.MirrorSyncModeNone)
	if err != nil {
		return err
	}
	// The job has a reference of its own.
	defer t.graph.Unref(l, target)
	return t.backup(l, common, source, target)
}

// common is what a backup into a node would be told.
func (a driveBackupAction) common() *schema.BlockdevBackup {
	d := a.DriveBackup
	return &schema.BlockdevBackup{
		JobId: d.JobId, Device: d.Device, Sync: d.Sync, Speed: d.Speed, Bitmap: d.Bitmap, BitmapMode: d.BitmapMode,
		Compress: d.Compress, OnSourceError: d.OnSourceError, OnTargetError: d.OnTargetError, AutoFinalize: d.AutoFinalize,
		AutoDismiss: d.AutoDismiss, FilterNodeName: d.FilterNodeName, DiscardSource: d.DiscardSource, XPerf: d.XPerf,
	}
}
