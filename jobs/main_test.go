package jobs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blkdebug"
	"github.com/qmpblock/qmpblock/drivers/copyonread"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qjson"
)

// TestMain fails if any test left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a graph with two nodes, a and b, and jobs, whose events it records.
// Its test holds the main context's lock.
type world struct {
	t     *testing.T
	graph *block.Graph
	set   *Set
	l     *aio.Lock
	log   []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, graph: block.New(block.Config{Drivers: []*block.Driver{null.Co(), raw.Driver(), file.Driver(), qcow2.Driver(), copyonread.Driver(), blkdebug.Driver()}})}
	w.set = NewSet(Config{
		Main:     w.graph.Main(),
		Changed:  func(id string, s Status) { w.note("%s %s", id, s) },
		Events:   w,
		Panicked: func(p *aio.PanicError) { w.note("panic %v", p.Value) },
	})
	w.l = w.graph.Main().Acquire()
	for _, name := range []string{"a", "b"} {
		w.check(w.add(`{"driver": "null-co", "node-name": "`+name+`"}`), "")
	}
	t.Cleanup(func() {
		w.set.Close(w.l)
		if n := len(w.set.jobs); n != 0 {
			t.Errorf("%d jobs are left", n)
		}
		w.l.Release()
		w.graph.Close()
	})
	return w
}

// add opens a node.
func (w *world) add(options string) error {
	w.t.Helper()
	v, err := qjson.Parse([]byte(options))
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.graph.AddNode(w.l, block.OptionsFromJSON(v))
	return err
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) JobReady(j *BlockJob)     { w.note("%s READY", j.ID()) }
func (w *world) JobPending(j *BlockJob)   { w.note("%s PENDING", j.ID()) }
func (w *world) JobCancelled(j *BlockJob) { w.note("%s CANCELLED", j.ID()) }
func (w *world) JobCompleted(j *BlockJob, failed error) {
	w.note("%s COMPLETED %v", j.ID(), failed)
}
func (w *world) JobError(j *BlockJob, op Operation, action ErrorAction) {
	w.note("%s ERROR %s %s", j.ID(), op, action)
}

// expect compares what happened since the last time.
func (w *world) expect(want string) {
	w.t.Helper()
	w.l.Settle()
	if got := strings.Join(w.log, ", "); got != want {
		w.t.Errorf("\n got %s\nwant %s", got, want)
	}
	w.log = nil
}

// until polls until something has happened.
func (w *world) until(event string) {
	aio.WaitWhile(w.l, func() bool { return !slices.Contains(w.log, event) })
}

// work is a kind of jobs that does what its test says, step by step. Between
// the steps it sleeps.
type work struct {
	w     *world
	steps []func(*aio.Co, *Job) error
	// prepare is what Prepare returns, force what Cancel does.
	prepare error
	soft    bool
	changed any
}

func (k *work) Type() Type { return Mirror }

func (k *work) Run(co *aio.Co, j *Job) error {
	for _, step := range k.steps {
		if err := step(co, j); err != nil || j.CancelRequested() {
			return err
		}
	}
	return nil
}

func (k *work) Prepare(*aio.Lock, *Job) error { return k.prepare }
func (k *work) Commit(_ *aio.Lock, j *Job)    { k.w.note("%s commit", j.ID()) }
func (k *work) Abort(_ *aio.Lock, j *Job)     { k.w.note("%s abort", j.ID()) }
func (k *work) Clean(_ *aio.Lock, j *Job)     { k.w.note("%s clean", j.ID()) }

func (k *work) Complete(l *aio.Lock, j *Job) error {
	j.Wake(l)
	return nil
}

func (k *work) Cancel(_ *aio.Lock, j *Job, force bool) bool { return force || !k.soft }

func (k *work) Change(_ *aio.Lock, _ *Job, options any) error {
	k.changed = options
	return nil
}

// The steps.

func sleep(co *aio.Co, j *Job) error {
	j.Yield(co)
	return nil
}

// endless goes on until the job is cancelled.
func endless(co *aio.Co, j *Job) error {
	for !j.Cancelled() {
		j.Yield(co)
	}
	return nil
}

func ready(co *aio.Co, j *Job) error {
	j.SetReady(co)
	return nil
}

func fail(*aio.Co, *Job) error { return fmt.Errorf("it went wrong") }

// medium is work that needs no turn.
func medium(w *world, release <-chan struct{}) func(*aio.Co, *Job) error {
	return func(co *aio.Co, _ *Job) error {
		co.LeaveTurn()
		<-release
		return nil
	}
}

type steps = []func(*aio.Co, *Job) error

// create makes a job that does the given steps.
func (w *world) create(id string, p Params, s ...func(*aio.Co, *Job) error) *Job {
	w.t.Helper()
	p.ID = id
	j, err := w.set.Create(w.l, &work{w: w, steps: s}, p)
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// createBlock makes a block job over the node a.
func (w *world) createBlock(id string, p Params, k *work) *BlockJob {
	w.t.Helper()
	k.w, p.ID = w, id
	b, err := w.set.CreateBlock(w.l, k, BlockParams{Params: p, Graph: w.graph, Node: w.graph.Node("a"), Shared: block.PermAll})
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) check(err error, want string) {
	w.t.Helper()
	switch {
	case err == nil && want != "":
		w.t.Errorf("no error, want %q", want)
	case err != nil && err.Error() != want:
		w.t.Errorf("got %q, want %q", err, want)
	}
}
