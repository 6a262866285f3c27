package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBlockCreate registers what makes and amends images.
func (i *Instance) registerBlockCreate(t *schema.Table) {
	t.BlockdevCreate(actionWith(i, i.blockdevCreate))
	t.XBlockdevAmend(actionWith(i, i.blockdevAmend))
}

// imageJob is a kind of jobs that are done in one step, at the end of which
// nothing is left to finalize.
type imageJob struct {
	typ jobs.Type
	run func(co *aio.Co) error
}

func (k *imageJob) Type() jobs.Type { return k.typ }

func (k *imageJob) Run(co *aio.Co, j *jobs.Job) error {
	j.Progress.SetRemaining(1)
	defer j.Progress.Add(1)
	return k.run(co)
}

// amendJob is the job of an image that is amended. It holds the node, and what
// the driver took for the amendment, until it is dismissed (observed:
// own/luks/volume).
type amendJob struct {
	imageJob
	graph *block.Graph
	node  *block.Node
}

// begin lets the driver get ready.
func (k *amendJob) begin(l *aio.Lock) error {
	k.node.Ref(l)
	if p, ok := k.node.Instance().(block.AmendPreparer); ok {
		return p.AmendBegin(l)
	}
	return nil
}

func (k *amendJob) Free(l *aio.Lock, _ *jobs.Job) {
	if p, ok := k.node.Instance().(block.AmendPreparer); ok {
		p.AmendEnd(l)
	}
	k.graph.Unref(l, k.node)
}

// startImageJob starts a job that the user has to dismiss.
func (i *Instance) startImageJob(l *aio.Lock, id string, k jobs.Kind) error {
	j, err := i.jobs.Create(l, k, jobs.Params{ID: id, ManualDismiss: true})
	if err != nil {
		return err
	}
	if amend, ok := k.(*amendJob); ok {
		if err := amend.begin(l); err != nil {
			j.GiveUp(l)
			return err
		}
	}
	j.Start(l)
	return nil
}

// hasDriver fails for the driver that only the system emulator has.
func (i *Instance) hasDriver(d schema.BlockdevDriver) error {
	if d == schema.BlockdevDriverBlkreplay && i.cfg.Personality != System {
		return noDriver(d)
	}
	return nil
}

func noDriver(d schema.BlockdevDriver) error {
	return qerr.New("Block driver '%s' not found or not supported", d)
}

func (i *Instance) blockdevCreate(l *aio.Lock, a *schema.BlockdevCreateArguments) error {
	if err := i.hasDriver(a.Options.Driver); err != nil {
		return err
	}
	errNone := qerr.New("Driver does not support blockdev-create")
	if a.Options.Variant == nil {
		return errNone // whether we have such a driver or not
	}
	d := i.graph.Driver(a.Options.Driver.String())
	if d == nil {
		return noDriver(a.Options.Driver)
	}
	if d.Create == nil {
		return errNone
	}
	o, err := flatten(a.Options.AppendJSON(nil))
	if err != nil {
		return err
	}
	return i.startImageJob(l, a.JobId, &imageJob{jobs.Create, func(co *aio.Co) error {
		return i.graph.CoCreate(co, d, o)
	}})
}

func (i *Instance) blockdevAmend(l *aio.Lock, a *schema.XBlockdevAmendArguments) error {
	n, err := i.graph.Lookup("", a.NodeName)
	if err != nil {
		return err
	}
	if err := i.hasDriver(a.Options.Driver); err != nil {
		return err
	}
	if n.Driver().Name != a.Options.Driver.String() {
		return qerr.New("x-blockdev-amend doesn't support changing the block driver")
	}
	amender := n.Amender()
	if amender == nil {
		return qerr.New("Driver does not support x-blockdev-amend")
	}
	o, err := flatten(a.Options.AppendJSON(nil))
	if err != nil {
		return err
	}
	o.Delete("driver")
	force := deref(a.Force)
	k := imageJob{jobs.Amend, func(co *aio.Co) error { return amender.CoAmend(co, o, force) }}
	return i.startImageJob(l, a.JobId, &amendJob{k, i.graph, n})
}

// flatten makes options of a decoded argument's JSON.
func flatten(text []byte) (*block.Options, error) {
	v, err := qjson.Parse(text)
	if err != nil {
		return nil, err
	}
	return block.OptionsFromJSON(v), nil
}
