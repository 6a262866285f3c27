package qom

import (
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom/ghash"
)

// Object is a node of the tree.
type Object struct {
	// Value is what the properties of the object's type work on. It does not
	// change once the object is in a tree.
	Value any

	tree       *Tree
	typ        *Type
	parent     *Object // nil for the root and what is not in the tree
	name       string
	properties ghash.Table[*Property]
}

// Type returns the name of the object's type.
func (o *Object) Type() string { return o.typ.Name }

// Name returns the name under which the parent has the object, "" outside the
// tree.
func (o *Object) Name() string { return o.name }

// Path returns the object's place: "/objects/io0". The root is "/".
func (o *Object) Path() string {
	o.tree.mu.RLock()
	defer o.tree.mu.RUnlock()
	return o.path()
}

func (o *Object) path() string {
	switch {
	case o.parent == nil:
		return "/"
	case o.parent.parent == nil:
		return "/" + o.name
	}
	return o.parent.path() + "/" + o.name
}

// AddChild hangs child, which must not be in the tree yet, below o.
func (o *Object) AddChild(name string, child *Object) error {
	o.tree.mu.Lock()
	defer o.tree.mu.Unlock()
	if o.property(name) != nil {
		return qerr.New("attempt to add duplicate property '%s' to object (type '%s')", name, o.typ.Name)
	}
	child.parent, child.name = o, name
	o.properties.Set(name, &Property{
		Name: name,
		Type: "child<" + child.typ.Name + ">",
		Get: func(_ *Object, dst []byte) ([]byte, error) {
			return qjson.AppendString(dst, child.Path()), nil
		},
		child: child,
	})
	return nil
}

// Remove takes the object, with all below it, out of the tree.
func (o *Object) Remove() {
	o.tree.mu.Lock()
	defer o.tree.mu.Unlock()
	if o.parent != nil {
		o.parent.properties.DeleteInPlace(o.name)
		o.parent, o.name = nil, ""
	}
}

// Child returns the child of that name, nil if there is none.
func (o *Object) Child(name string) *Object {
	o.tree.mu.RLock()
	defer o.tree.mu.RUnlock()
	return o.child(name)
}

// Children returns all children in the order of listings.
func (o *Object) Children() []*Object {
	o.tree.mu.RLock()
	defer o.tree.mu.RUnlock()
	var children []*Object
	for _, p := range o.properties.Reversed() {
		if p.child != nil {
			children = append(children, p.child)
		}
	}
	return children
}

func (o *Object) child(name string) *Object {
	if p, ok := o.properties.Get(name); ok {
		return p.child
	}
	return nil
}

// property finds a property of the object or its type, nil if there is none.
func (o *Object) property(name string) *Property {
	if p := o.tree.property(o.typ, name); p != nil {
		return p
	}
	p, _ := o.properties.Get(name)
	return p
}

// findProperty is property for callers without the lock.
func (o *Object) findProperty(name string) (*Property, error) {
	o.tree.mu.RLock()
	defer o.tree.mu.RUnlock()
	if p := o.property(name); p != nil {
		return p, nil
	}
	return nil, qerr.New("Property '%s.%s' not found", o.typ.Name, name)
}

// Get appends the value of a property to dst, as JSON in output format.
func (o *Object) Get(name string, dst []byte) ([]byte, error) {
	p, err := o.findProperty(name)
	if err != nil {
		return dst, err
	}
	if p.Get == nil {
		return dst, qerr.New("Property '%s.%s' is not readable", o.typ.Name, name)
	}
	return p.Get(o, dst)
}

// Set changes a property.
func (o *Object) Set(name string, v qjson.Value) error {
	p, err := o.findProperty(name)
	if err != nil {
		return err
	}
	if p.Set == nil {
		return qerr.New("Property '%s.%s' is not writable", o.typ.Name, name)
	}
	return p.Set(o, v)
}

// list returns the properties of the type and then those of the object.
func (o *Object) list() []PropertyInfo {
	infos := o.tree.classProperties(o.typ)
	for _, p := range o.properties.Reversed() {
		infos = append(infos, p.info())
	}
	return infos
}
