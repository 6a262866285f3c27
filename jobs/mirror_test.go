package jobs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
)

// mirrors is a graph with a source, which users write to, and a target.
type mirrors struct {
	*backups
	model []byte // what the source's users should find
	job   *jobs.BlockJob

	mu     sync.Mutex
	events []string
}

func newMirrors(t *testing.T, seed uint64, overlay bool) *mirrors {
	t.Helper()
	m := &mirrors{backups: newBackups(t, seed, overlay)}
	m.set = jobs.NewSet(jobs.Config{
		Main:     m.Graph.Main(),
		Changed:  func(_ string, s jobs.Status) { m.note("%s", s) },
		Events:   m,
		Panicked: func(p *aio.PanicError) { t.Errorf("panic: %v\n%s", p, p.Stack) },
	})
	if overlay {
		m.target = m.Add(fmt.Sprintf(`{"node-name":"copy","driver":"overlay","size":%d,"unit":512,"backing":"source"}`, backupSize))
	}
	m.model = m.readBy(m.user)
	m.Drop(m.user)
	var err error
	m.user, err = m.TryUse(m.source, block.PermConsistentRead|block.PermWrite, block.PermAll)
	m.must(err)
	return m
}

func (m *mirrors) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *mirrors) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, fmt.Sprintf(format, args...))
}

func (m *mirrors) JobReady(*jobs.BlockJob)   { m.note("READY") }
func (m *mirrors) JobPending(*jobs.BlockJob) { m.note("PENDING") }
func (m *mirrors) JobCompleted(_ *jobs.BlockJob, failed error) {
	m.note("COMPLETED %v", failed)
}
func (m *mirrors) JobCancelled(*jobs.BlockJob) { m.note("CANCELLED") }
func (m *mirrors) JobError(_ *jobs.BlockJob, op jobs.Operation, action jobs.ErrorAction) {
	m.note("ERROR %s %s", op, action)
}

func (m *mirrors) saw(event string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.events, event)
}

// start starts a mirror with small requests.
func (m *mirrors) start(p jobs.MirrorParams) {
	m.t.Helper()
	p.ID, p.ManualDismiss = "j", true
	p.Graph, p.Source, p.Target = m.Graph, m.source, m.target
	p.Granularity, p.BufSize, p.Unmap = 4096, 64<<10, true
	var err error
	m.Main(func(l *aio.Lock) {
		if m.job, err = m.set.CreateMirror(l, p); err == nil {
			m.job.Start(l)
		}
	})
	m.must(err)
}

// until waits until the job is in one of some states.
func (m *mirrors) until(states ...jobs.Status) {
	m.Main(func(l *aio.Lock) {
		aio.WaitWhile(l, func() bool { return !slices.Contains(states, m.job.Status(l)) })
	})
}

// do is what a user does with the job.
func (m *mirrors) do(f func(l *aio.Lock) error) {
	m.t.Helper()
	m.Main(func(l *aio.Lock) { m.must(f(l)) })
}

// end waits for the job's end and dismisses it.
func (m *mirrors) end() (failure error) {
	m.t.Helper()
	m.until(jobs.Concluded)
	m.do(func(l *aio.Lock) error {
		failure = m.job.Err(l)
		return m.job.Dismiss(l)
	})
	m.Graph.Nodes(func(n *block.Node) bool {
		if n.Driver().Name == "mirror_top" {
			m.t.Error("the filter is still there")
		}
		return true
	})
	return failure
}

// writing writes from several goroutines, each in a part of the disk, until it
// is stopped, or has written so much that a job which cannot keep up with it was
// tried enough.
func (m *mirrors) writing() (stop func()) {
	const writers, most = 3, 200
	var (
		wg   sync.WaitGroup
		over atomic.Bool
	)
	for i := range writers {
		r := rand.New(rand.NewPCG(m.random.Uint64(), uint64(i)))
		first, last := backupSize*i/writers, backupSize*(i+1)/writers
		wg.Go(func() {
			for n := 0; n < most && !over.Load() || n == 0; n++ {
				if err := m.change(r, first, last); err != nil {
					m.t.Error(err)
					return
				}
			}
		})
	}
	return func() {
		over.Store(true)
		wg.Wait()
	}
}

// change writes or zeroes something in a part of the disk, at any bytes.
func (m *mirrors) change(r *rand.Rand, first, last int) error {
	offset := first + r.IntN(last-first)
	area := m.model[offset:min(last, offset+1+r.IntN(20000))]
	if r.IntN(4) == 0 {
		clear(area)
		return m.user.PwriteZeroes(aio.Outside, int64(offset), int64(len(area)), 0)
	}
	value := byte(1 + r.IntN(255))
	for i := range area {
		area[i] = value
	}
	return m.user.Pwritev(aio.Outside, int64(offset), block.Vec{bytes.Clone(area)}, 0)
}

// same compares what a user finds with what should be there.
func (m *mirrors) same(user *block.Backend) {
	m.t.Helper()
	got := m.readBy(user)
	for i := range got {
		if got[i] != m.model[i] {
			m.t.Fatalf("at %d: got %#x, want %#x", i, got[i], m.model[i])
		}
	}
}

// sameTarget compares what is in the target now.
func (m *mirrors) sameTarget() {
	m.t.Helper()
	user := m.Use(m.target)
	defer m.Drop(user)
	m.same(user)
}

// Writers do not notice that the disk below them is another one.
func TestMirrorContent(t *testing.T) {
	t.Parallel()
	for _, mode := range []jobs.CopyMode{jobs.CopyInBackground, jobs.CopyOnWrite} {
		for _, sync := range []string{"full", "top", "none"} {
			t.Run(fmt.Sprintf("%s, mode %d", sync, mode), func(t *testing.T) {
				eachSeed(t, func(t *testing.T, seed uint64) { mirrorContent(t, seed, sync, mode) })
			})
		}
	}
}

func mirrorContent(t *testing.T, seed uint64, sync string, mode jobs.CopyMode) {
	m := newMirrors(t, seed, sync == "top")
	p := jobs.MirrorParams{Mode: mode, ZeroTarget: sync == "full"}
	switch sync {
	case "top":
		p.Base = m.source.BackingOf()
	case "none":
		user := m.Use(m.target)
		m.must(user.Pwritev(aio.Outside, 0, block.Vec{bytes.Clone(m.model)}, 0))
		m.Drop(user)
		p.ChangesOnly = true
	}
	var stop func()
	if p.ChangesOnly {
		m.start(p)
		stop = m.writing()
	} else {
		stop = m.writing()
		m.start(p)
	}
	m.until(jobs.Ready)
	m.do(m.job.Complete)
	if err := m.end(); err != nil {
		t.Error(err)
	}
	if m.user.Node() != m.target {
		t.Errorf("the users are at %s", m.user.Node().Name())
	}
	stop()
	m.same(m.user)
}

// A job that is ready and cancelled softly leaves a whole copy.
func TestMirrorSoftCancel(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		m := newMirrors(t, seed, false)
		stop := m.writing()
		m.start(jobs.MirrorParams{ZeroTarget: true, Mode: jobs.CopyMode(seed % 2)})
		m.until(jobs.Ready)
		stop()
		m.do(func(l *aio.Lock) error { return m.job.Cancel(l, false) })
		if err := m.end(); err != nil || m.saw("CANCELLED") || m.user.Node() != m.source {
			t.Errorf("%v, events %q, users at %s", err, m.events, m.user.Node().Name())
		}
		m.sameTarget()
		m.same(m.user)
	})
}

// The mode can change while writes are under way.
func TestMirrorChangeMode(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		m := newMirrors(t, seed, false)
		stop := m.writing()
		m.start(jobs.MirrorParams{ZeroTarget: true})
		m.do(func(l *aio.Lock) error { return m.job.Change(l, jobs.CopyOnWrite) })
		m.until(jobs.Ready)
		m.Main(func(l *aio.Lock) {
			aio.WaitWhile(l, func() bool { synced, _ := m.job.ActivelySynced(); return !synced })
			if err := m.job.Change(l, jobs.CopyInBackground); err == nil {
				t.Error("the mode changed back")
			}
		})
		stop()
		if synced, ok := m.job.ActivelySynced(); !synced || !ok {
			t.Error("it is not synchronous any more")
		}
		m.do(m.job.Complete)
		m.must(m.end())
		m.same(m.user)
	})
}

// failAt makes some requests on a disk fail.
func failAt(n *block.Node, op string, err error, when func() bool) {
	drivertest.DiskOf(n).SetHook(func(co *aio.Co, c drivertest.Call) error {
		co.Yield(func() {})
		if c.Op == op && when() {
			return err
		}
		return nil
	})
}

// sometimes is true a few times.
func sometimes(seed uint64) func() bool {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 7))
	left := 20
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		if left == 0 || r.IntN(3) > 0 {
			return false
		}
		left--
		return true
	}
}

// Requests that fail and are ignored are tried again, so the copy is whole.
func TestMirrorIgnoresErrors(t *testing.T) {
	t.Parallel()
	for _, mode := range []jobs.CopyMode{jobs.CopyInBackground, jobs.CopyOnWrite} {
		t.Run(fmt.Sprintf("mode %d", mode), func(t *testing.T) {
			eachSeed(t, func(t *testing.T, seed uint64) {
				m := newMirrors(t, seed, false)
				failAt(m.target, drivertest.Write, qerr.From(syscall.EIO), sometimes(seed))
				stop := m.writing()
				m.start(jobs.MirrorParams{ZeroTarget: true, Mode: mode, TargetErrors: jobs.PolicyIgnore})
				m.until(jobs.Ready)
				m.do(m.job.Complete)
				m.must(m.end())
				stop()
				if !m.saw("ERROR write ignore") {
					t.Error("nothing has failed")
				}
				m.same(m.user)
			})
		})
	}
}

// A job that stops at an error goes on where it was.
func TestMirrorStopsAtErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, op string
		p        jobs.MirrorParams
		event    string
	}{
		{"target", drivertest.Write, jobs.MirrorParams{TargetErrors: jobs.PolicyENOSPC}, "ERROR write stop"},
		{"source", drivertest.Read, jobs.MirrorParams{SourceErrors: jobs.PolicyStop}, "ERROR read stop"},
		{"zeroes", drivertest.Zero, jobs.MirrorParams{TargetErrors: jobs.PolicyStop}, "ERROR write stop"},
		{"flush", drivertest.Flush, jobs.MirrorParams{TargetErrors: jobs.PolicyStop}, "ERROR write stop"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMirrors(t, 1, false)
			disk := m.target
			if c.name == "source" {
				disk = m.source
			}
			failAt(disk, c.op, qerr.From(syscall.ENOSPC), once())
			c.p.ZeroTarget = true
			m.start(c.p)
			m.until(jobs.Paused)
			m.Main(func(l *aio.Lock) {
				if s := m.job.IOStatus(l); s != jobs.IONoSpace {
					t.Errorf("the I/O status is %s", s)
				}
				m.must(m.job.Resume(l))
			})
			m.until(jobs.Ready)
			if !m.saw(c.event) {
				t.Errorf("no %q in %q", c.event, m.events)
			}
			m.do(m.job.Complete)
			m.must(m.end())
			m.same(m.user)
		})
	}
}

// A job that fails leaves the source to its users, in every state.
func TestMirrorFails(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"running", "ready"} {
		for _, mode := range []jobs.CopyMode{jobs.CopyInBackground, jobs.CopyOnWrite} {
			t.Run(fmt.Sprintf("%s, mode %d", when, mode), func(t *testing.T) {
				t.Parallel()
				m := newMirrors(t, 1, false)
				var broken atomic.Bool
				broken.Store(when == "running")
				failAt(m.target, drivertest.Write, qerr.From(syscall.EIO), broken.Load)
				stop := m.writing()
				m.start(jobs.MirrorParams{ZeroTarget: true, Mode: mode})
				if when == "ready" {
					m.until(jobs.Ready)
					stop()
					broken.Store(true)
					copy(m.model, "data")
					m.must(m.user.Pwritev(aio.Outside, 0, block.Vec{[]byte("data")}, 0))
				}
				if err := m.end(); err == nil || err.Error() != "Input/output error" {
					t.Errorf("it ended with %v", err)
				}
				stop()
				if m.user.Node() != m.source {
					t.Error("the users were moved")
				}
				m.same(m.user)
			})
		}
	}
}

// rests tells whether nothing reaches the disks.
func (m *mirrors) rests() {
	m.t.Helper()
	source, target := drivertest.DiskOf(m.source), drivertest.DiskOf(m.target)
	source.TakeCalls()
	target.TakeCalls()
	for range 100 {
		m.Main(func(*aio.Lock) {})
	}
	if calls := append(source.TakeCalls(), target.TakeCalls()...); len(calls) > 0 {
		m.t.Errorf("a job that rests does %q", calls)
	}
}

// A job can be paused, and cancelled, in every state.
func TestMirrorPauseAndCancel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		at    jobs.Status
		pause bool
	}{
		{"running", jobs.Running, false},
		{"paused", jobs.Running, true},
		{"ready", jobs.Ready, false},
		{"standby", jobs.Ready, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMirrors(t, 1, false)
			m.start(jobs.MirrorParams{ZeroTarget: true})
			m.until(c.at, jobs.Ready)
			if c.pause {
				m.do(m.job.Pause)
				m.until(jobs.Paused, jobs.Standby)
				m.rests()
			}
			stop := m.writing()
			m.do(func(l *aio.Lock) error { return m.job.Cancel(l, true) })
			if err := m.end(); err == nil || !m.saw("CANCELLED") {
				t.Errorf("it ended with %v", err)
			}
			stop()
			m.same(m.user)
		})
	}
}

// A drained section of either disk waits for the job, and keeps it quiet.
func TestMirrorDrained(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		m := newMirrors(t, seed, false)
		stop := m.writing()
		m.start(jobs.MirrorParams{ZeroTarget: true, Mode: jobs.CopyMode(seed % 2)})
		for i := range 40 {
			n := []*block.Node{m.source, m.target}[i%2]
			m.Main(func(l *aio.Lock) {
				n.DrainedBegin(l)
				defer n.DrainedEnd()
				disk := drivertest.DiskOf(n)
				disk.TakeCalls()
				l.Unlocked(func() {
					for range 20 {
						m.Graph.Main().Kick()
					}
				})
				if calls := disk.TakeCalls(); len(calls) > 0 {
					t.Errorf("a drained node gets %q", calls)
				}
			})
		}
		m.until(jobs.Ready)
		m.do(m.job.Complete)
		m.must(m.end())
		stop()
		m.same(m.user)
	})
}

// Writers go on while the last step is left to the user, and find all that they
// wrote in the target then.
func TestMirrorPending(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		m := newPending(t, seed)
		stop := m.writing()
		stop()
		m.same(m.user)
		stop = m.writing()
		m.do(m.job.Finalize)
		m.must(m.end())
		if m.user.Node() != m.target {
			t.Errorf("the users are at %s", m.user.Node().Name())
		}
		stop()
		m.same(m.user)
	})
}

func newPending(t *testing.T, seed uint64) *mirrors {
	t.Helper()
	m := newMirrors(t, seed, false)
	m.start(jobs.MirrorParams{
		ZeroTarget: true, Mode: jobs.CopyMode(seed % 2), Params: jobs.Params{ManualFinalize: true},
	})
	m.until(jobs.Ready)
	m.do(m.job.Complete)
	m.until(jobs.Pending)
	return m
}

// Writes that cannot be copied at the end let the job fail, and the source stays.
func TestMirrorPendingFails(t *testing.T) {
	t.Parallel()
	m := newPending(t, 1)
	m.writing()()
	failAt(m.target, drivertest.Write, qerr.From(syscall.EIO), func() bool { return true })
	m.do(m.job.Finalize)
	if err := m.end(); err == nil || m.user.Node() != m.source || m.saw("ERROR write report") {
		t.Errorf("%v, events %q, users at %s", err, m.events, m.user.Node().Name())
	}
	m.same(m.user)
}

// A job that is cancelled while it is pending leaves the source to its writers.
func TestMirrorPendingCancelled(t *testing.T) {
	t.Parallel()
	m := newPending(t, 1)
	stop := m.writing()
	m.do(func(l *aio.Lock) error { return m.job.Cancel(l, true) })
	if err := m.end(); err == nil || m.user.Node() != m.source {
		t.Errorf("%v, users at %s", err, m.user.Node().Name())
	}
	stop()
	m.same(m.user)
}
