package qom

import (
	"slices"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom/ghash"
)

// Names of types that have a meaning to this package.
const (
	typeObject        = "object"
	typeInterface     = "interface"
	typeContainer     = "container"
	typeUserCreatable = "user-creatable"
)

// Type describes a kind of objects.
type Type struct {
	Name     string
	Parent   string // "" for the roots, object and interface
	Abstract bool
	// Interfaces are names of interface types that this type has besides
	// those of its parents.
	Interfaces []string
	// Properties in the order of their definition.
	Properties []*Property
	// New makes the value of a new object, nil for a type that cannot be
	// created by a user here.
	New func(o *Object) any

	properties ghash.Table[*Property]
}

// Property describes one property of a type or an object.
type Property struct {
	Name        string
	Type        string // as clients see it: "int", "string", "child<iothread>"
	Description string // "" for none
	Default     string // JSON, "" for none
	ReadOnly    bool   // not for users to set, so left out of help
	// Get appends the value as JSON in output format; nil if it cannot be
	// read.
	Get func(o *Object, dst []byte) ([]byte, error)
	// Set changes the value; nil if it cannot be written.
	Set func(o *Object, v qjson.Value) error

	child *Object
}

// TypeInfo describes a type as qom-list-types shows it.
type TypeInfo struct {
	Name     string
	Parent   string // "" for none
	Abstract bool
}

// PropertyInfo describes a property as qom-list shows it.
type PropertyInfo struct {
	Name        string
	Type        string
	Description string // "" for none
	Default     string // JSON, "" for none
}

func (p *Property) info() PropertyInfo {
	return PropertyInfo{p.Name, p.Type, p.Description, p.Default}
}

// Register adds types, parents before their children.
func (t *Tree) Register(types ...*Type) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, typ := range types {
		for _, p := range typ.Properties {
			typ.properties.Set(p.Name, p)
		}
		t.types.Set(typ.Name, typ)
	}
}

// Define adds properties to a type that is registered.
func (t *Tree) Define(name string, properties ...*Property) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if typ, ok := t.types.Get(name); ok {
		for _, p := range properties {
			typ.Properties = append(typ.Properties, p)
			typ.properties.Set(p.Name, p)
		}
	}
}

// Types lists the types that are, descend from or implement the given one, all
// for "". Abstract types are left out unless abstract is set.
func (t *Tree) Types(implements string, abstract bool) []TypeInfo {
	t.mu.RLock()
	defer t.mu.RUnlock()
	infos := []TypeInfo{}
	for _, typ := range t.types.Reversed() {
		if typ.Abstract && !abstract || implements != "" && !t.is(typ, implements) {
			continue
		}
		infos = append(infos, TypeInfo{typ.Name, typ.Parent, typ.Abstract})
	}
	return infos
}

// TypeProperties lists the properties that an object of a type has from the
// start.
func (t *Tree) TypeProperties(name string) ([]PropertyInfo, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	typ, ok := t.types.Get(name)
	if !ok {
		return nil, qerr.WithClass(qerr.DeviceNotFound, "Class '%s' not found", name)
	}
	if t.is(typ, typeInterface) && !t.is(typ, typeObject) {
		return nil, qerr.New("Parameter 'typename' expects a QOM type")
	}
	return t.classProperties(typ), nil
}

// classProperties lists the properties of a type, those of its oldest ancestor
// first. Each table is walked backwards, because the reference builds the list
// from its end.
func (t *Tree) classProperties(typ *Type) []PropertyInfo {
	infos := []PropertyInfo{}
	for _, ancestor := range slices.Backward(t.line(typ)) {
		for _, p := range ancestor.properties.Reversed() {
			infos = append(infos, p.info())
		}
	}
	return infos
}

// line returns a type and its ancestors up to the root.
func (t *Tree) line(typ *Type) []*Type {
	var line []*Type
	for ok := true; ok; typ, ok = t.types.Get(typ.Parent) {
		line = append(line, typ)
	}
	return line
}

// is tells whether typ is, descends from or implements the type of that name.
func (t *Tree) is(typ *Type, name string) bool {
	for _, ancestor := range t.line(typ) {
		if ancestor.Name == name {
			return true
		}
		for _, iface := range ancestor.Interfaces {
			if typ, ok := t.types.Get(iface); ok && t.is(typ, name) {
				return true
			}
		}
	}
	return false
}

// property finds a property of a type.
func (t *Tree) property(typ *Type, name string) *Property {
	for _, ancestor := range t.line(typ) {
		if p, ok := ancestor.properties.Get(name); ok {
			return p
		}
	}
	return nil
}
