package qom

import (
	"sync"

	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom/ghash"
)

// Tree is the object tree of an instance, usable by several goroutines. Its
// lock is not held while properties are read or written.
type Tree struct {
	hooks Hooks
	mu    sync.RWMutex // protects types and the properties of all objects
	types ghash.Table[*Type]
	root  *Object
}

// NewTree makes a tree with the types every tree has, then the given ones, and
// with the containers /objects, /chardevs and /backend.
func NewTree(hooks Hooks, types ...*Type) *Tree {
	t := &Tree{hooks: hooks}
	t.Register(
		&Type{Name: typeObject, Abstract: true, Properties: []*Property{
			{Name: "type", Type: "string", ReadOnly: true, Get: getType},
		}},
		&Type{Name: typeInterface, Abstract: true},
	)
	t.Register(types...)
	t.root = t.newObject(typeContainer)
	for _, name := range []string{"objects", "chardevs", "backend"} {
		t.Container(name)
	}
	return t
}

func getType(o *Object, dst []byte) ([]byte, error) {
	return qjson.AppendString(dst, o.typ.Name), nil
}

// Container returns the container of that name below the root; it is made if
// there is none.
func (t *Tree) Container(name string) *Object {
	if o := t.root.Child(name); o != nil {
		return o
	}
	o := t.newObject(typeContainer)
	if err := t.root.AddChild(name, o); err != nil {
		return t.root.Child(name) // another goroutine was faster
	}
	return o
}

// NewObject makes an object of a registered type, whether or not users can. It
// is not in the tree yet, see [Object.AddChild].
func (t *Tree) NewObject(typ string, value any) *Object {
	o := t.newObject(typ)
	o.Value = value
	return o
}

func (t *Tree) newObject(name string) *Object {
	t.mu.RLock()
	defer t.mu.RUnlock()
	typ, ok := t.types.Get(name)
	if !ok {
		typ = &Type{Name: name, Parent: typeObject}
	}
	return &Object{tree: t, typ: typ}
}

// List returns the properties and children of the object at path.
func (t *Tree) List(path string) ([]PropertyInfo, error) {
	o, err := t.Resolve(path)
	if err != nil {
		return nil, err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return o.list(), nil
}

// Get returns a property of the object at path as JSON in output format.
func (t *Tree) Get(path, property string) ([]byte, error) {
	o, err := t.resolveOne(path)
	if err != nil {
		return nil, err
	}
	return o.Get(property, nil)
}

// Set changes a property of the object at path.
func (t *Tree) Set(path, property string, v qjson.Value) error {
	o, err := t.resolveOne(path)
	if err != nil {
		return err
	}
	return o.Set(property, v)
}

// resolveOne is Resolve without a difference between no and several objects,
// which only qom-list makes (observed).
func (t *Tree) resolveOne(path string) (*Object, error) {
	o, err := t.Resolve(path)
	if err != nil {
		return nil, notFound(path)
	}
	return o, nil
}

// Completer is implemented by values that begin to work when all properties
// are set and the object is in the tree. After an error the object is taken
// out and closed.
type Completer interface{ Complete(o *Object) error }

// Closer is implemented by values with something to release when their object
// is deleted.
type Closer interface{ Close() }

// Holder is implemented by values whose object cannot be deleted at times.
type Holder interface{ InUse() bool }

// Add creates an object below /objects. props holds its properties; members
// named qom-type and id are skipped, so that the arguments of object-add can be
// passed as they are.
func (t *Tree) Add(typ, id string, props qjson.Value) error {
	if !keyval.IsIdentifier(id) {
		return keyval.ErrIdentifier("id")
	}
	o, err := t.create(typ)
	if err != nil {
		return err
	}
	if err = t.start(o, id, props); err != nil {
		release(o)
	}
	return err
}

// create makes the object with its value.
func (t *Tree) create(name string) (*Object, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	typ, ok := t.types.Get(name)
	switch {
	case !ok:
		return nil, qerr.New("invalid object type: %s", name)
	case !t.is(typ, typeUserCreatable):
		return nil, qerr.New("object type '%s' isn't supported by object-add", name)
	case typ.Abstract:
		return nil, qerr.New("object type '%s' is abstract", name)
	case typ.New == nil:
		return nil, qerr.New("object type '%s' is not supported", name)
	}
	o := &Object{tree: t, typ: typ}
	o.Value = typ.New(o)
	return o, nil
}

// start sets the properties, hangs the object into the tree and completes it.
func (t *Tree) start(o *Object, id string, props qjson.Value) error {
	for name, v := range props.DictOrder() {
		if n := string(name); n != "qom-type" && n != "id" {
			if err := o.Set(n, v); err != nil {
				return err
			}
		}
	}
	if err := t.Container("objects").AddChild(id, o); err != nil {
		return err
	}
	if c, ok := o.Value.(Completer); ok {
		return c.Complete(o)
	}
	return nil
}

func release(o *Object) {
	o.Remove()
	if c, ok := o.Value.(Closer); ok {
		c.Close()
	}
}

// Del deletes the object of that id below /objects.
func (t *Tree) Del(id string) error {
	o := t.Lookup(id)
	if o == nil {
		return qerr.New("object '%s' not found", id)
	}
	if h, ok := o.Value.(Holder); ok && h.InUse() {
		return qerr.New("object '%s' is in use, can not be deleted", id)
	}
	release(o)
	return nil
}

// Lookup returns the object of that id below /objects, nil if there is none.
func (t *Tree) Lookup(id string) *Object { return t.Container("objects").Child(id) }

// Close deletes all objects below /objects, used or not.
func (t *Tree) Close() {
	for _, o := range t.Container("objects").Children() {
		release(o)
	}
}
