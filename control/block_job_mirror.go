package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBlockJobMirror registers the jobs that follow a node's changes.
func (i *Instance) registerBlockJobMirror(t *schema.Table) {
	t.BlockdevMirror(actionWith(i, i.blockdevMirror))
	t.DriveMirror(actionWith(i, i.driveMirror))
}

func (i *Instance) blockdevMirror(l *aio.Lock, a *schema.BlockdevMirrorArguments) error {
	n, err := i.graph.LookupRoot(a.Device)
	if err != nil {
		return err
	}
	target, err := i.graph.Lookup(a.Target, a.Target)
	if err != nil {
		return err
	}
	p := jobs.MirrorParams{
		Params:       jobParams(a.JobId, a.AutoFinalize, a.AutoDismiss),
		Source:       n,
		Target:       target,
		ZeroTarget:   a.Sync == schema.MirrorSyncModeFull,
		Replaces:     a.Replaces,
		Speed:        deref(a.Speed),
		BufSize:      deref(a.BufSize),
		SourceErrors: errorPolicy(a.OnSourceError),
		TargetErrors: errorPolicy(a.OnTargetError),
		Unmap:        true,
		Mode:         copyMode(a.CopyMode),
		FilterName:   a.FilterNodeName,
	}
	return i.startMirror(l, p, a.Sync, a.Granularity)
}

func (i *Instance) driveMirror(l *aio.Lock, a *schema.DriveMirror) error {
	n, err := i.graph.LookupRoot(a.Device)
	if err != nil {
		return err
	}
	if a.Replaces != nil && a.NodeName == nil {
		return qerr.New("a node-name must be provided when replacing a named node of the graph")
	}
	im := block.CopyImage{Filename: a.Target, Format: deref(a.Format)}
	im.Existing = a.Mode != nil && *a.Mode == schema.NewImageModeExisting
	sync := a.Sync
	switch sync {
	case schema.MirrorSyncModeFull:
	case schema.MirrorSyncModeNone:
		im.Backing = n
	default:
		im.Backing = n.KnownBehind()
	}
	if sync == schema.MirrorSyncModeTop && im.Backing == nil {
		// Nobody else tells what an existing image must hold (observed:
		// transcript own/jobs/drive-mirror-top-alone).
		sync = schema.MirrorSyncModeFull
	}
	target, err := i.graph.OpenMirror(l, n, im, a.NodeName)
	if err != nil {
		return err
	}
	// The job has a reference of its own.
	defer i.graph.Unref(l, target)
	p := jobs.MirrorParams{
		Params:       jobParams(a.JobId, a.AutoFinalize, a.AutoDismiss),
		Source:       n,
		Target:       target,
		ZeroTarget:   sync == schema.MirrorSyncModeFull && im.Existing,
		Replaces:     a.Replaces,
		Speed:        deref(a.Speed),
		BufSize:      deref(a.BufSize),
		SourceErrors: errorPolicy(a.OnSourceError),
		TargetErrors: errorPolicy(a.OnTargetError),
		Unmap:        a.Unmap == nil || *a.Unmap,
		Mode:         copyMode(a.CopyMode),
		Backing:      jobs.ShareBacking,
	}
	if im.Existing {
		p.Backing = jobs.OpenBacking
	}
	return i.startMirror(l, p, sync, a.Granularity)
}

func copyMode(m *schema.MirrorCopyMode) jobs.CopyMode {
	if deref(m) == schema.MirrorCopyModeWriteBlocking {
		return jobs.CopyOnWrite
	}
	return jobs.CopyInBackground
}

// The limits of a mirror's granularity, in bytes.
const minMirrorGranularity, maxMirrorGranularity = 512, 64 << 20

// startMirror checks what the commands that mirror have in common, and starts
// the job.
func (i *Instance) startMirror(l *aio.Lock, p jobs.MirrorParams, sync schema.MirrorSyncMode, granularity *uint32) error {
	if g := int64(deref(granularity)); g != 0 {
		if g < minMirrorGranularity || g > maxMirrorGranularity {
			return qerr.New("Parameter 'granularity' expects a value in range [512B, 64MB]")
		}
		if g&(g-1) != 0 {
			return qerr.New("Parameter 'granularity' expects a power of 2")
		}
		p.Granularity = g
	}
	if err := p.Source.CheckBlocked(block.BlockOpMirrorSource); err != nil {
		return err
	}
	if err := p.Target.CheckBlocked(block.BlockOpMirrorTarget); err != nil {
		return err
	}
	if p.Replaces != nil {
		if err := jobs.CheckReplaces(l, i.graph, p.Source, *p.Replaces); err != nil {
			return err
		}
	}
	switch sync {
	case schema.MirrorSyncModeIncremental, schema.MirrorSyncModeBitmap:
		return qerr.New("Sync mode '%s' not supported", sync)
	case schema.MirrorSyncModeTop:
		p.Base = p.Source.Behind()
	case schema.MirrorSyncModeNone:
		p.ChangesOnly = true
	}
	p.Graph = i.graph
	j, err := i.jobs.CreateMirror(l, p)
	if err != nil {
		return err
	}
	j.Start(l)
	return nil
}
