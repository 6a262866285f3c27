package qom

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

func newTree() *Tree { return NewTree(Hooks{}, StorageDaemonTypes()...) }

func parse(t *testing.T, text string) qjson.Value {
	t.Helper()
	v, err := qjson.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func mustAdd(t *testing.T, tree *Tree, typ, id, props string) {
	t.Helper()
	if err := tree.Add(typ, id, parse(t, props)); err != nil {
		t.Fatalf("%s %s: %v", typ, id, err)
	}
}

func expectError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// loop records what happens to an event loop.
type loop struct {
	id     string
	params EventLoopParams
	closed bool
}

func (l *loop) SetParams(p EventLoopParams) { l.params = p }
func (l *loop) Close()                      { l.closed = true }

func TestIOThreadHook(t *testing.T) {
	t.Parallel()
	var started []*loop
	tree := NewTree(Hooks{NewIOThread: func(id string, p EventLoopParams) (EventLoop, error) {
		if id == "bad" {
			return nil, qerr.New("no more threads")
		}
		started = append(started, &loop{id: id, params: p})
		return started[len(started)-1], nil
	}}, StorageDaemonTypes()...)
	mustAdd(t, tree, "iothread", "io0", `{"qom-type": "iothread", "id": "io0", "poll-grow": 2, "aio-max-batch": 7}`)
	l := started[0]
	if want := (EventLoopParams{PollMaxNS: 32768, PollGrow: 2, AIOMaxBatch: 7, ThreadPoolMax: 64}); l.id != "io0" || l.params != want {
		t.Errorf("started %+v", l)
	}
	if tree.IOThread("io0") != l || tree.IOThread("nope") != nil {
		t.Error("IOThread does not find the loop")
	}
	if err := tree.Set("/objects/io0", "poll-shrink", parse(t, "5")); err != nil || l.params.PollShrink != 5 {
		t.Errorf("%v, %+v", err, l.params)
	}
	if err := tree.Set("io0", "thread-pool-min", parse(t, "100")); err == nil || l.params.ThreadPoolMin != 0 {
		t.Errorf("%v, %+v", err, l.params)
	}
	expectError(t, tree.Add("iothread", "bad", parse(t, `{}`)), "no more threads")
	if tree.Lookup("bad") != nil {
		t.Error("an object that failed to start is in the tree")
	}
	if err := tree.Del("io0"); err != nil || !l.closed || tree.IOThread("io0") != nil {
		t.Errorf("%v, %+v", err, l)
	}
	mustAdd(t, tree, "iothread", "io1", `{}`)
	tree.Close()
	if !started[1].closed || tree.Lookup("io1") != nil {
		t.Error("Close leaves an iothread")
	}
}

func TestAddErrors(t *testing.T) {
	t.Parallel()
	tree := newTree()
	for _, tt := range []struct{ typ, id, props, want string }{
		{"iothread", "1", `{"poll-grow": -1}`, "Parameter 'id' expects an identifier"},
		{"nope", "x", `{}`, "invalid object type: nope"},
		{"container", "x", `{}`, "object type 'container' isn't supported by object-add"},
		{"secret_common", "x", `{}`, "object type 'secret_common' is abstract"},
		{"secret_keyring", "x", `{}`, "object type 'secret_keyring' is not supported"},
		{"iothread", "x", `{"nope": 1}`, "Property 'iothread.nope' not found"},
		{"iothread", "type", `{}`, "attempt to add duplicate property 'type' to object (type 'container')"},
	} {
		expectError(t, tree.Add(tt.typ, tt.id, parse(t, tt.props)), tt.want)
	}
	if children := tree.Container("objects").Children(); len(children) != 0 {
		t.Errorf("%d objects are left", len(children))
	}
}

func TestSecretContent(t *testing.T) {
	t.Parallel()
	tree := newTree()
	mustAdd(t, tree, "secret", "key", `{"format": "base64", "data": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`)
	mustAdd(t, tree, "secret", "s0", `{"format": "base64", "data": "kWhEh8NMNFbrTpAc74hKHg==", "keyid": "key", "iv": "AAAAAAAAAAAAAAAAAAAAAA=="}`)
	mustAdd(t, tree, "iothread", "io0", `{}`)
	if got, err := tree.Secret("s0"); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if err := tree.Set("s0", "data", parse(t, `"other"`)); err != nil {
		t.Error(err)
	}
	if got, _ := tree.Secret("s0"); string(got) != "hello" {
		t.Errorf("setting the property changed the secret to %q", got)
	}
	_, err := tree.Secret("nope")
	expectError(t, err, "No secret with id 'nope'")
	_, err = tree.Secret("io0")
	expectError(t, err, "Object with id 'io0' is not a secret")
}

// device is an object of another package.
type device struct{ speed int64 }

func TestOwnTypes(t *testing.T) {
	t.Parallel()
	tree := newTree()
	tree.Register(&Type{Name: "device", Parent: "object", Abstract: true}, &Type{Name: "disk", Parent: "device"})
	tree.Define("disk", &Property{
		Name: "speed", Type: "int", Description: "as it turns", Default: "7200",
		Get: func(o *Object, dst []byte) ([]byte, error) {
			return qjson.AppendInt(dst, o.Value.(*device).speed), nil
		},
	})
	infos, err := tree.TypeProperties("disk")
	want := []PropertyInfo{{Name: "type", Type: "string"}, {Name: "speed", Type: "int", Description: "as it turns", Default: "7200"}}
	if err != nil || !slices.Equal(infos, want) {
		t.Errorf("%+v, %v", infos, err)
	}
	machine := tree.Container("machine")
	if err := machine.AddChild("vd0", tree.NewObject("disk", &device{5400})); err != nil {
		t.Fatal(err)
	}
	err = machine.AddChild("vd0", tree.NewObject("disk", nil))
	expectError(t, err, "attempt to add duplicate property 'vd0' to object (type 'container')")
	vd0 := machine.Child("vd0")
	if vd0.Path() != "/machine/vd0" || vd0.Name() != "vd0" || vd0.Type() != "disk" {
		t.Errorf("%s %s %s", vd0.Path(), vd0.Name(), vd0.Type())
	}
	if got, err := tree.Get("vd0", "speed"); err != nil || string(got) != "5400" {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := tree.Get("/machine", "vd0"); err != nil || string(got) != `"/machine/vd0"` {
		t.Errorf("%s, %v", got, err)
	}
	vd0.Remove()
	_, err = tree.Get("vd0", "speed")
	expectError(t, err, "Device 'vd0' not found")
	if e := qerr.From(err); e.Class != qerr.DeviceNotFound {
		t.Error(e.Class)
	}
	text, ok := tree.PropertyHelp("disk")
	if want := "disk options:\n  speed=<int>            - as it turns\n"; !ok || text != want {
		t.Errorf("%q", text)
	}
}

// stubborn is a value that does not let go.
type stubborn struct{ closed int }

func (s *stubborn) InUse() bool            { return s.closed == 0 }
func (s *stubborn) Close()                 { s.closed++ }
func (s *stubborn) Complete(*Object) error { return errors.ErrUnsupported }

func TestHolderAndCompleter(t *testing.T) {
	t.Parallel()
	tree := newTree()
	s := &stubborn{}
	tree.Register(&Type{Name: "stubborn", Parent: "object", Interfaces: []string{"user-creatable"}, New: func(*Object) any { return s }})
	if err := tree.Add("stubborn", "s", qjson.Value{}); !errors.Is(err, errors.ErrUnsupported) || s.closed != 1 || tree.Lookup("s") != nil {
		t.Errorf("%v, closed %d times", err, s.closed)
	}
	s.closed = 0
	if err := tree.Container("objects").AddChild("s", tree.NewObject("stubborn", s)); err != nil {
		t.Fatal(err)
	}
	expectError(t, tree.Del("s"), "object 's' is in use, can not be deleted")
	s.closed = 1
	if err := tree.Del("s"); err != nil || s.closed != 2 {
		t.Errorf("%v, closed %d times", err, s.closed)
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	tree := newTree()
	if got := tree.CreatableHelp(); !strings.HasPrefix(got, "List of user creatable objects:\n  authz-list\n  authz-list-file\n") {
		t.Error(got)
	}
	if _, ok := tree.PropertyHelp("nope"); ok {
		t.Error("there is help for an unknown type")
	}
	want := "thread-context options:\n  cpu-affinity=<int>\n  node-affinity=<int>\n"
	if got, _ := tree.PropertyHelp("thread-context"); got != want {
		t.Error(got)
	}
	if got, _ := tree.PropertyHelp("container"); got != "There are no options for container.\n" {
		t.Error(got)
	}
}
