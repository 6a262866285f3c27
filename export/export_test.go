package export

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qerr"
)

// TestMain fails if any test left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a kind of export whose clients are made by the test.
type fake struct {
	export  *Export
	refuse  error
	idle    []*client // let go when they are cut off
	deleted bool
}

func (f *fake) create(l *aio.Lock, e *Export, _ *Options) error {
	f.export = e
	if f.refuse != nil {
		return f.refuse
	}
	return e.keepSize(l)
}

func (*fake) settle(*aio.Lock) {}

func (f *fake) requestShutdown(*aio.Lock) {
	for _, c := range f.idle {
		c.leave()
	}
}

func (f *fake) delete(*aio.Lock) { f.deleted = true }

// client is one that is connected to a fake export.
type client struct {
	export *Export
	once   sync.Once
}

func (f *fake) connect() *client {
	f.export.ref()
	return &client{export: f.export}
}

func (c *client) leave() { c.once.Do(c.export.unref) }

// world is a set of fake exports, and what was heard of it.
type world struct {
	*drivertest.Bench
	t       *testing.T
	set     *Set
	io      *aio.Context
	refuse  error // what the next export's kind says
	deleted []string
}

const fakeType Type = "fake"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Bench: drivertest.New(t, raw.Driver(), null.Co()), t: t}
	w.io = w.Graph.NewContext("io0")
	w.set = NewSet(Config{
		Graph:   w.Graph,
		Deleted: func(id string) { w.deleted = append(w.deleted, id) },
		IOThread: func(id string) *aio.Context {
			if id == "io0" {
				return w.io
			}
			return nil
		},
	})
	w.set.kinds = map[Type]func() kind{fakeType: func() kind { return &fake{refuse: w.refuse} }}
	t.Cleanup(func() { w.Main(w.set.Close) })
	w.Add(`{"driver": "null-co", "node-name": "n0"}`)
	return w
}

// add makes an export of n0 with options that f may change.
func (w *world) add(id string, f func(*Options)) (err error) {
	o := &Options{Type: fakeType, ID: id, NodeName: "n0"}
	if f != nil {
		f(o)
	}
	w.Main(func(l *aio.Lock) { err = w.set.Add(l, o) })
	return err
}

func (w *world) mustAdd(id string, f func(*Options)) *fake {
	w.t.Helper()
	if err := w.add(id, f); err != nil {
		w.t.Fatal(err)
	}
	return w.set.find(id).kind.(*fake)
}

// del takes an export away and returns the last part of it.
func (w *world) del(id string, mode Mode) (finish func(), err error) {
	w.Main(func(l *aio.Lock) {
		var f func(*aio.Lock)
		if f, err = w.set.Del(l, id, mode); f != nil {
			finish = func() { w.Main(f) }
		}
	})
	return finish, err
}

// list describes the exports in short.
func (w *world) list() string {
	var b strings.Builder
	w.Main(func(l *aio.Lock) {
		for _, i := range w.set.List(l) {
			fmt.Fprintf(&b, "%s of %s", i.ID, i.NodeName)
			if i.ShuttingDown {
				b.WriteString(" shutting down")
			}
			b.WriteString("; ")
		}
	})
	return b.String()
}

func (w *world) wantList(want string) {
	w.t.Helper()
	if got := w.list(); got != want {
		w.t.Errorf("exports are %q, expected %q", got, want)
	}
}

func (w *world) wantDeleted(want ...string) {
	w.t.Helper()
	w.Main(func(*aio.Lock) {
		if !slices.Equal(w.deleted, want) {
			w.t.Errorf("deleted %q, expected %q", w.deleted, want)
		}
	})
}

// awaitDeleted waits until n exports have gone.
func (w *world) awaitDeleted(n int) {
	w.Main(func(l *aio.Lock) {
		aio.WaitWhile(l, func() bool { return len(w.deleted) < n })
	})
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if got := fmt.Sprint(err); got != want {
		t.Errorf("got %q, expected %q", got, want)
	}
}

func TestListIsNewestFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustAdd("a", nil)
	w.mustAdd("b", nil)
	w.wantList("b of n0; a of n0; ")
}

// TestOrderOfChecks has options with more and more mistakes put right: what is
// reported is the first one left.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Add(`{"driver": "null-co", "node-name": "ro", "read-only": true}`)
	w.mustAdd("taken", nil)
	w.refuse = qerr.New("the kind refuses")
	nope, io := "nope", "io0"
	o := Options{ID: "1", NodeName: "nope", Writable: true, IOThread: &nope}
	for _, step := range []struct {
		want string
		then func()
	}{
		{"Invalid block export id", func() { o.ID = "taken" }},
		{"Block export id 'taken' is already in use", func() { o.ID = "e" }},
		{"Block export type '' is not supported", func() { o.Type = fakeType }},
		{"Cannot find device='' nor node-name='nope'", func() { o.NodeName = "ro" }},
		{"Cannot export read-only node as writable", func() { o.NodeName = "n0" }},
		{`iothread "nope" not found`, func() { o.IOThread = &io }},
		{"the kind refuses", func() { w.refuse = nil }},
		{"<nil>", nil},
	} {
		wantError(t, w.add("", func(given *Options) { *given = o }), step.want)
		if step.then != nil {
			step.then()
		}
	}
	w.wantList("e of n0; taken of n0; ")
}

func TestRefusedExportLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.refuse = qerr.New("no")
	wantError(t, w.add("e", nil), "no")
	w.wantList("")
	if err := w.TryDelete("n0"); err != nil {
		t.Error(err)
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	read := w.mustAdd("r", nil).export.Backend().Root()
	write := w.mustAdd("w", func(o *Options) { o.Writable = true }).export.Backend().Root()
	shared := block.PermAll &^ block.PermResize
	if read.Perm() != block.PermConsistentRead || read.Shared() != shared {
		t.Errorf("a read-only export takes %v and shares %v", read.Perm(), read.Shared())
	}
	if write.Perm() != block.PermConsistentRead|block.PermWrite || write.Shared() != shared {
		t.Errorf("a writable export takes %v and shares %v", write.Perm(), write.Shared())
	}
	wantError(t, w.TryDelete("n0"), "Node n0 is in use")
}

func TestWriteThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if !w.mustAdd("a", nil).export.Backend().WriteCache() {
		t.Error("writes do not stay in caches")
	}
	if w.mustAdd("b", func(o *Options) { o.WriteThrough = true }).export.Backend().WriteCache() {
		t.Error("writes stay in caches")
	}
}

func TestInactiveNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.Graph.Node("n0")
	setActive := func(active bool) (err error) {
		w.Main(func(l *aio.Lock) { err = n.SetActive(l, active) })
		return err
	}
	if err := setActive(false); err != nil {
		t.Fatal(err)
	}
	writable := func(o *Options) { o.Writable = true }
	allowed := func(o *Options) { o.Writable, o.AllowInactive = true, true }
	root := w.mustAdd("allows", allowed).export.Backend().Root()
	if n.Active() || root.Perm() != 0 || root.Shared() != block.PermAll {
		t.Errorf("active %v, takes %v, shares %v", n.Active(), root.Perm(), root.Shared())
	}
	if err := setActive(true); err != nil {
		t.Fatal(err)
	}
	if root.Perm() != block.PermConsistentRead|block.PermWrite {
		t.Errorf("the export of a node that has come back takes %v", root.Perm())
	}
	if err := setActive(false); err != nil {
		t.Error(err)
	}
	w.mustAdd("needs", writable)
	if !n.Active() {
		t.Error("the node was not activated")
	}
	wantError(t, setActive(false), "Failed to inactivate node: Operation not permitted")
}

func TestIOThread(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.Graph.Node("n0")
	io := "io0"
	moving := func(o *Options) { o.IOThread = &io }
	fixed := func(o *Options) { o.IOThread, o.FixedIOThread = &io, true }
	e := w.mustAdd("moving", moving).export
	if n.Context() != w.io || e.Backend().Context() != w.io {
		t.Errorf("the node is in %s, the export in %s", n.Context().Name(), e.Backend().Context().Name())
	}
	if _, err := w.del("moving", Safe); err != nil {
		t.Fatal(err)
	}
	if n.Context() != w.Graph.Main() {
		t.Errorf("the node stays in %s", n.Context().Name())
	}
	w.mustAdd("stays", func(o *Options) { o.FixedIOThread = true })
	wantError(t, w.add("fixed", fixed), "Cannot change iothread of active block backend")
	w.mustAdd("willing", moving)
	if n.Context() != w.Graph.Main() {
		t.Errorf("the node moved to %s", n.Context().Name())
	}
}

func TestDelWithoutClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.mustAdd("e", nil)
	finish, err := w.del("e", Safe)
	if err != nil || finish != nil {
		t.Errorf("finish %v, error %v", finish != nil, err)
	}
	if !f.deleted {
		t.Error("the kind was not told")
	}
	w.wantDeleted("e")
	_, err = w.del("e", Safe)
	wantError(t, err, "Export 'e' is not found")
}

func TestDelWithClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.mustAdd("e", nil)
	f.idle = append(f.idle, f.connect())
	_, err := w.del("e", Safe)
	wantError(t, err, "export 'e' still in use")
	finish, err := w.del("e", Hard)
	if err != nil || finish == nil {
		t.Fatalf("finish %v, error %v", finish != nil, err)
	}
	w.wantDeleted()
	w.wantList("e of n0 shutting down; ")
	finish()
	w.wantDeleted("e")
	w.wantList("")
}

func TestShuttingDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := w.mustAdd("e", nil)
	c := f.connect()
	finish, err := w.del("e", Hard)
	if err != nil {
		t.Fatal(err)
	}
	finish()
	_, err = w.del("e", Hard)
	wantError(t, err, "Export 'e' is already shutting down")
	wantError(t, w.add("e", nil), "Block export id 'e' is already in use")
	w.wantDeleted()
	c.leave()
	w.awaitDeleted(1)
	w.mustAdd("e", nil)
}

// TestCloseOrder has exports with and without clients.
func TestCloseOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		f := w.mustAdd(id, nil)
		if id == "b" || id == "d" {
			f.idle = append(f.idle, f.connect())
		}
	}
	w.Main(w.set.Close)
	w.wantDeleted("b", "d", "e", "c", "a")
}

// TestCloseWaits has a client with a request under way.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.mustAdd("busy", nil).connect()
	w.mustAdd("idle", nil)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		w.Main(w.set.Close)
	}()
	w.awaitDeleted(1)
	w.wantDeleted("idle")
	select {
	case <-closed:
		t.Error("the set was closed under a request")
	default:
	}
	c.leave()
	<-closed
	w.wantDeleted("idle", "busy")
}

// TestManyLeave lets clients of many exports go while the exports are being
// deleted one by one and all at once.
func TestManyLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const exports, clients = 20, 5
	var all sync.WaitGroup
	for k := range exports {
		f := w.mustAdd(fmt.Sprintf("e%d", k), nil)
		for range clients {
			c := f.connect()
			all.Go(c.leave)
		}
	}
	for k := range exports / 2 {
		finish, err := w.del(fmt.Sprintf("e%d", k), Hard)
		if err != nil {
			t.Fatal(err)
		}
		if finish != nil {
			finish()
		}
	}
	w.Main(w.set.Close)
	all.Wait()
	if len(w.deleted) != exports {
		t.Errorf("%d of %d exports were deleted", len(w.deleted), exports)
	}
}
