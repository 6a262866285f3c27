package jobs

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qjson"
)

// What needs no waiting is over when Start has returned and the lock's holder
// settles.
func TestSynchronous(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("j", Params{}).Start(w.l)
	w.expect("j created, j running, j waiting, j pending, j commit, j clean, j concluded, j null")
	w.create("j", Params{ManualDismiss: true}, fail).Start(w.l)
	w.expect("j created, j running, j aborting, j abort, j clean, j concluded")
	w.check(w.set.Find(w.l, "j").Err(w.l), "it went wrong")
}

// What waits for the medium is continued when somebody polls.
func TestMedium(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	release := make(chan struct{})
	w.create("j", Params{}, medium(w, release), ready, sleep).Start(w.l)
	w.expect("j created, j running")
	close(release)
	w.until("j ready")
	w.expect("j ready")
	w.check(w.set.Find(w.l, "j").Complete(w.l), "")
	w.expect("j waiting, j pending, j commit, j clean, j concluded, j null")
}

func TestIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("j", Params{})
	for id, want := range map[string]string{"": "Invalid job ID ''", "1": "Invalid job ID '1'", "j": "Job ID 'j' already in use"} {
		_, err := w.set.Create(w.l, &work{w: w}, Params{ID: id})
		w.check(err, want)
	}
	w.create("k", Params{})
	hidden, err := w.set.Create(w.l, &work{w: w}, Params{Internal: true})
	w.check(err, "")
	var ids []string
	for _, j := range w.set.List(w.l) {
		ids = append(ids, j.ID())
	}
	if !slices.Equal(ids, []string{"k", "j"}) {
		t.Errorf("listed %q", ids)
	}
	w.log = nil
	hidden.Start(w.l)
	w.expect(" commit,  clean")
	w.set.Find(w.l, "k").GiveUp(w.l)
	w.expect("k null")
}

// at brings a job to a state. The other job keeps it waiting.
func (w *world) at(s Status) *Job {
	w.t.Helper()
	p := Params{ManualFinalize: true, ManualDismiss: true}
	var j *Job
	switch s {
	case Created:
		j = w.create("j", p)
	case Running, Paused:
		j = w.create("j", p, sleep)
	case Ready, Standby:
		j = w.create("j", p, ready, sleep)
	case Waiting:
		p.Transaction = NewTransaction()
		other := w.create("other", p, sleep)
		j = w.create("j", p)
		other.Start(w.l)
	case Pending, Concluded:
		j = w.create("j", p)
	default:
		w.t.Fatalf("nobody meets a job in state %s", s)
	}
	if s != Created {
		j.Start(w.l)
	}
	w.l.Settle()
	switch s {
	case Paused, Standby:
		w.check(j.Pause(w.l), "")
	case Concluded:
		w.check(j.Finalize(w.l), "")
	}
	if j.Status(w.l) != s {
		w.t.Fatalf("it is %s, not %s", j.Status(w.l), s)
	}
	w.log = nil
	return j
}

var met = []Status{Created, Running, Paused, Ready, Standby, Waiting, Pending, Concluded}

// Every verb in every state that users meet. Where it is allowed the job goes
// on as it should.
func TestVerbs(t *testing.T) {
	t.Parallel()
	end := "j waiting, j pending"
	cancelled := "j aborting, j abort, j clean, j concluded"
	for verb, c := range map[string]struct {
		do func(w *world, j *Job) error
		in map[Status]string
	}{
		"cancel": {func(w *world, j *Job) error { return j.Cancel(w.l, true) }, map[Status]string{
			Created: cancelled + ", j null", Running: cancelled, Paused: "j running, " + cancelled,
			Ready: cancelled, Standby: "j ready, " + cancelled, Pending: cancelled,
			Waiting: cancelled + ", other aborting, other abort, other clean, other concluded",
		}},
		"pause": {func(w *world, j *Job) error { return j.Pause(w.l) }, map[Status]string{
			Created: "", Running: "j paused", Ready: "j standby", Paused: "Job is already paused", Standby: "Job is already paused",
		}},
		"resume": {func(w *world, j *Job) error { return j.Resume(w.l) }, map[Status]string{
			Paused: "j running, " + end, Standby: "j ready, " + end,
		}},
		"complete": {func(w *world, j *Job) error { return j.Complete(w.l) }, map[Status]string{
			Ready: end, Standby: "",
		}},
		"finalize": {func(w *world, j *Job) error { return j.Finalize(w.l) }, map[Status]string{
			Pending: "j commit, j clean, j concluded",
		}},
		"dismiss": {func(w *world, j *Job) error { return j.Dismiss(w.l) }, map[Status]string{
			Concluded: "j null",
		}},
	} {
		for _, s := range met {
			t.Run(verb+" "+s.String(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				j := w.at(s)
				err := c.do(w, j)
				want, ok := c.in[s]
				switch {
				case ok && err == nil:
					w.expect(want)
				case ok:
					w.check(err, want)
				case verb == "resume":
					w.check(err, "Can't resume a job that was not paused")
				default:
					w.check(err, "Job 'j' in state '"+s.String()+"' cannot accept command verb '"+verb+"'")
				}
			})
		}
	}
}

// A pause before the job starts keeps it from its work.
func TestPausedBeforeStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.at(Created)
	w.check(j.Pause(w.l), "")
	j.Start(w.l)
	w.expect("j running, j paused")
	w.check(j.Resume(w.l), "")
	w.expect("j running, j waiting, j pending")
}

// Cancelling wakes the job from each of its waits, and the end is the same
// when the whole set is closed.
func TestCancelAndClose(t *testing.T) {
	t.Parallel()
	for _, s := range met {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			j := w.at(s)
			w.set.Close(w.l)
			if j.Status(w.l) != Null || len(w.set.jobs) != 0 {
				t.Errorf("it is %s, %d are left", j.Status(w.l), len(w.set.jobs))
			}
		})
	}
	t.Run("medium", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		release := make(chan struct{})
		j := w.create("j", Params{}, medium(w, release), sleep)
		j.Start(w.l)
		w.check(j.Cancel(w.l, true), "")
		w.expect("j created, j running")
		close(release)
		w.until("j null")
		w.expect("j aborting, j abort, j clean, j concluded, j null")
	})
}

// slowEnd waits in its last step until somebody has the lock.
type slowEnd struct {
	work
	wait func(l *aio.Lock)
}

func (k *slowEnd) Clean(l *aio.Lock, j *Job) {
	k.work.Clean(l, j)
	k.wait(l)
}

// Who closes the set while a job takes its last step waits for that one.
func TestCloseAtEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	closing := make(chan struct{})
	k := &slowEnd{work: work{w: w}, wait: func(l *aio.Lock) {
		aio.WaitWhile(l, func() bool {
			select {
			case <-closing:
				return false
			default:
				return true
			}
		})
	}}
	j, err := w.set.Create(w.l, k, Params{ID: "j"})
	w.check(err, "")
	var closer sync.WaitGroup
	closer.Go(func() {
		l := w.graph.Main().Acquire()
		defer l.Release()
		if s := j.Status(l); s != Pending {
			t.Errorf("closed in state %s", s)
		}
		close(closing)
		l.Context().Kick()
		w.set.Close(l)
	})
	j.Start(w.l)
	w.until("j null")
	w.l.Unlocked(closer.Wait)
	w.expect("j created, j running, j waiting, j pending, j commit, j clean, j concluded, j null")
}

// A job that is ready may end well when it is cancelled without force; force
// comes afterwards if it must.
func TestSoftCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.createBlock("j", Params{}, &work{soft: true, steps: steps{ready, sleep}})
	b.Start(w.l)
	w.expect("j created, j running, j ready, j READY")
	w.check(b.Pause(w.l), "")
	w.check(b.CancelBlockJob(w.l, false), "The block job for device 'j' is currently paused")
	w.check(b.Resume(w.l), "")
	w.expect("j standby, j ready, j waiting, j pending, j commit, j clean, j COMPLETED <nil>, j concluded, j null")

	b = w.createBlock("j", Params{}, &work{soft: true, steps: steps{ready, sleep}})
	b.Start(w.l)
	w.check(b.CancelBlockJob(w.l, false), "")
	w.expect("j created, j running, j ready, j READY, j waiting, j pending, j commit, j clean, j COMPLETED <nil>, j concluded, j null")

	b = w.createBlock("j", Params{}, &work{soft: true, steps: steps{ready, sleep}})
	b.Start(w.l)
	w.check(b.CancelBlockJob(w.l, true), "")
	w.expect("j created, j running, j ready, j READY, j aborting, j abort, j clean, j CANCELLED, j concluded, j null")
}

// Jobs of one transaction end together.
func TestTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := Params{Transaction: NewTransaction()}
	i, j := w.create("i", p, ready, sleep), w.create("j", p)
	i.Start(w.l)
	j.Start(w.l)
	w.expect("i created, j created, i running, i ready, j running, j waiting")
	w.check(i.Complete(w.l), "")
	w.expect("i waiting, j pending, i pending, j commit, j clean, j concluded, j null, i commit, i clean, i concluded, i null")

	p.Transaction = NewTransaction()
	i, j = w.create("i", p, sleep), w.create("j", p, fail)
	i.Start(w.l)
	j.Start(w.l)
	w.expect("i created, j created, i running, j running, j aborting, j abort, j clean, j concluded, j null, " +
		"i aborting, i abort, i clean, i concluded, i null")

	// One of them cannot take the last step; its error is its own.
	p = Params{Transaction: NewTransaction(), ManualDismiss: true}
	i, j = w.create("i", p), w.create("j", p)
	i.kind.(*work).prepare = qerrTest("no space")
	i.Start(w.l)
	j.Start(w.l)
	w.expect("i created, j created, i running, j running, j waiting, i waiting, j pending, i pending, i aborting, " +
		"j aborting, j abort, j clean, j concluded, i abort, i clean, i concluded")
	w.check(i.Err(w.l), "no space")
	w.check(j.Err(w.l), "Operation canceled")
}

type qerrTest string

func (e qerrTest) Error() string { return string(e) }

// A drained section of a node pauses the jobs that hold it, and those alone.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.createBlock("j", Params{}, &work{steps: steps{sleep, ready, sleep}})
	b.Start(w.l)
	w.expect("j created, j running")
	drain := func(name string, inside func()) {
		n := w.graph.Node(name)
		n.DrainedBegin(w.l)
		inside()
		n.DrainedEnd()
	}
	drain("b", func() { w.expect("") })
	drain("a", func() {
		w.expect("j paused")
		drain("a", func() { w.expect("") })
		w.check(b.Pause(w.l), "")
		if !b.PauseRequested(w.l) || b.Busy(w.l) {
			t.Error("it is not paused")
		}
	})
	w.expect("") // the user still wants it to rest
	w.check(b.Resume(w.l), "")
	w.expect("j running, j ready, j READY")
	w.graph.DrainAll(w.l)
	w.expect("j standby, j ready, j waiting, j pending, j commit, j clean, j COMPLETED <nil>, j concluded, j null")

	// One that is at work on the medium is waited for.
	release := make(chan struct{})
	b = w.createBlock("j", Params{}, &work{steps: steps{medium(w, release), sleep, sleep}})
	b.Start(w.l)
	w.expect("j created, j running")
	close(release)
	drain("a", func() { w.expect("j paused") })
	w.expect("j running")
	// One that starts inside rests at once, and cancelling does not wait.
	w.check(b.Cancel(w.l, true), "")
	w.expect("j aborting, j abort, j clean, j CANCELLED, j concluded, j null")
	drain("a", func() {
		b = w.createBlock("k", Params{}, &work{steps: steps{sleep}})
		b.Start(w.l)
		w.expect("k created, k running, k paused")
		w.check(b.Cancel(w.l, true), "")
		w.expect("k running, k aborting, k abort, k clean, k CANCELLED, k concluded, k null")
	})
}

// Changes of the graph anywhere drain all jobs, as often as in the reference
// (observed: own/jobs/drains).
func TestDrainsOfChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.createBlock("j", Params{}, &work{steps: steps{ready, endless}})
	b.Start(w.l)
	w.log = nil
	reopen := func() error {
		v, err := qjson.Parse([]byte(`{"driver": "raw", "node-name": "r", "file": "b"}`))
		if err != nil {
			t.Fatal(err)
		}
		return w.graph.Reopen(w.l, []*block.Options{block.OptionsFromJSON(v)})
	}
	user := w.graph.NewBackend("", 0, block.PermAll)
	for _, c := range []struct {
		name string
		do   func() error
		want int
		err  string
	}{
		{"node", func() error { return w.add(`{"driver": "null-co", "node-name": "n"}`) }, 0, ""},
		{"raw node", func() error { return w.add(`{"driver": "raw", "node-name": "r", "file": "b"}`) }, 3, ""},
		{"nodes", func() error { return w.add(`{"driver": "raw", "node-name": "s", "file": {"driver": "null-co"}}`) }, 3, ""},
		{"no node", func() error { return w.add(`{"driver": "raw", "node-name": "t", "file": "none"}`) }, 1,
			"Cannot find device='none' nor node-name='none'"},
		{"reopen", reopen, 1, ""},
		{"delete nodes", func() error { return w.graph.DeleteNode(w.l, "s") }, 2, ""},
		{"insert", func() error { return user.Insert(w.l, w.graph.Node("n")) }, 1, ""},
		{"close", func() error { user.Close(w.l); return nil }, 1, ""},
	} {
		w.check(c.do(), c.err)
		w.l.Settle()
		if want := strings.Repeat("j standby j ready ", c.want); strings.Join(append(w.log, ""), " ") != want {
			t.Errorf("%s: %q, want %d drains", c.name, w.log, c.want)
		}
		w.log = nil
	}
}

// The nodes of a block job are kept from others until it has concluded.
func TestNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.createBlock("j", Params{ManualDismiss: true}, &work{steps: steps{endless}})
	w.check(b.AddNode(w.l, "target", w.graph.Node("b"), block.PermWrite, block.PermAll), "")
	b.Start(w.l)
	// They may move to an iothread.
	other := w.graph.NewContext("t")
	w.check(w.graph.Node("a").SetContext(w.l, other), "")
	w.check(w.graph.Node("a").SetContext(w.l, w.graph.Main()), "")
	w.graph.RetireContext(other)
	for _, name := range []string{"a", "b"} {
		w.check(w.graph.DeleteNode(w.l, name), "Node '"+name+"' is busy: block device is in use by block job: mirror")
	}
	if d := w.graph.Dump(); len(d.Edges) != 2 || d.Nodes[0].Kind != block.DumpedJob || d.Nodes[0].Name != "j" {
		t.Errorf("the dump is %+v", d)
	}
	w.check(b.Cancel(w.l, true), "")
	w.l.Settle()
	w.check(w.graph.DeleteNode(w.l, "b"), "")
	if d := w.graph.Dump(); len(d.Edges) != 0 || d.Nodes[0].Kind != block.DumpedJob {
		t.Errorf("the dump is %+v", d)
	}
	w.check(b.Dismiss(w.l), "")
	if d := w.graph.Dump(); len(d.Nodes) != 1 {
		t.Errorf("the dump is %+v", d)
	}
	_, err := w.set.CreateBlock(w.l, &work{w: w}, BlockParams{Params: Params{ID: "k"}, Graph: w.graph, Node: w.graph.Node("a"), Speed: -1})
	w.check(err, "Parameter 'speed' expects a non-negative value")
	w.log = w.log[len(w.log)-1:]
	w.expect("k null")
	w.check(w.graph.DeleteNode(w.l, "a"), "")
}

func TestSpeedAndChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	k := &work{steps: steps{func(co *aio.Co, j *Job) error {
		j.Block().Throttle(co, 1<<60) // as good as for ever
		return nil
	}, sleep}}
	b := w.createBlock("j", Params{}, k)
	w.check(b.SetSpeed(w.l, -1), "Parameter 'speed' expects a non-negative value")
	w.check(b.SetSpeed(w.l, 1), "")
	b.Start(w.l)
	w.check(b.Change(w.l, 7), "")
	if k.changed != 7 || b.Speed() != 1 {
		t.Errorf("changed to %v, speed %d", k.changed, b.Speed())
	}
	w.check(b.SetSpeed(w.l, 0), "")
	b.Wake(w.l) // from the throttle
	b.Wake(w.l)
	w.expect("j created, j running, j waiting, j pending, j commit, j clean, j COMPLETED <nil>, j concluded, j null")
	w.check(b.SetSpeed(w.l, 0), "Job 'j' in state 'null' cannot accept command verb 'set-speed'")
	w.check(b.Change(w.l, 7), "Job 'j' in state 'null' cannot accept command verb 'change'")
}

// An error that stops the job counts as a pause by the user, whose resuming
// clears it.
func TestErrorStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.createBlock("j", Params{}, &work{steps: steps{func(co *aio.Co, j *Job) error {
		j.Block().Failed(co, Write, StopOnError, IONoSpace)
		j.PausePoint(co)
		return nil
	}, sleep}})
	b.Start(w.l)
	w.expect("j created, j running, j ERROR write stop, j paused")
	if b.IOStatus(w.l) != IONoSpace {
		t.Errorf("the status is %s", b.IOStatus(w.l))
	}
	w.check(b.Resume(w.l), "")
	if b.IOStatus(w.l) != IOOK {
		t.Errorf("the status is %s", b.IOStatus(w.l))
	}
	w.expect("j running")
}

// A panic is the job's error.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := w.create("j", Params{ManualDismiss: true}, func(*aio.Co, *Job) error { panic("boom") })
	j.Start(w.l)
	w.expect("j created, j running, panic boom, j aborting, j abort, j clean, j concluded")
	w.check(j.Err(w.l), "Internal error in mirror: boom")
}
