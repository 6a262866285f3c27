package devices

import (
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom/ghash"
)

// object is a place in the tree below /machine: a device, a bus, or a
// container.
type object struct {
	name, typ string
	parent    *object // nil for /machine
	children  ghash.Table[*object]
	dev       *device
	bus       *bus
}

func (o *object) add(name, typ string) *object {
	c := &object{name: name, typ: typ, parent: o}
	o.children.Set(name, c)
	return c
}

func (o *object) remove() {
	if o.parent != nil {
		o.parent.children.Delete(o.name)
		o.parent = nil
	}
}

// has tells whether a child of that name cannot be added.
func (o *object) has(name string) bool {
	_, taken := o.children.Get(name)
	return taken || name == "type"
}

func (o *object) path() string {
	if o.parent == nil {
		return "/" + o.name
	}
	return o.parent.path() + "/" + o.name
}

// resolve finds an object by its path, or by its path below
// /machine/peripheral; nil if there is none.
func (m *Machine) resolve(path string) *object {
	rest, absolute := path, strings.HasPrefix(path, "/")
	at := m.peripheral
	if absolute {
		parts := nonEmpty(strings.Split(path, "/"))
		if len(parts) == 0 || parts[0] != m.object.name {
			return nil
		}
		at, rest = m.object, strings.Join(parts[1:], "/")
	}
	for _, part := range nonEmpty(strings.Split(rest, "/")) {
		next, ok := at.children.Get(part)
		if !ok {
			return nil
		}
		at = next
	}
	return at
}

// Object is one object of the tree below /machine, as qom-list and qom-get
// show it.
type Object struct {
	Path, Type string
	// Properties are in the order of qom-list.
	Properties []Property
}

// Property is one property of an object.
type Property struct {
	Name, Type string
	// Value is JSON in output format, nil if the property cannot be read.
	Value []byte
	// Owner is the type that an error about the property names.
	Owner string
}

// Object returns the object at an absolute path, nil if there is none.
func (m *Machine) Object(path string) *Object {
	if !strings.HasPrefix(path, "/") {
		return nil
	}
	o := m.resolve(path)
	if o == nil {
		return nil
	}
	return &Object{Path: o.path(), Type: o.typ, Properties: o.properties()}
}

// Objects visits the paths of all objects, each before those below it, until
// f returns false.
func (m *Machine) Objects(f func(path string) bool) { m.object.visit(f) }

func (o *object) visit(f func(string) bool) bool {
	if !f(o.path()) {
		return false
	}
	for _, c := range o.children.Reversed() {
		if !c.visit(f) {
			return false
		}
	}
	return true
}

func (o *object) properties() []Property {
	list := []Property{stringProperty("type", "string", o.typ, o.typ)}
	switch {
	case o.dev != nil:
		return append(list, o.dev.properties()...)
	case o.bus != nil:
		return append(list, o.bus.properties()...)
	}
	for _, c := range o.children.Reversed() {
		list = append(list, c.asProperty(o.typ))
	}
	return list
}

func stringProperty(name, typ, value, owner string) Property {
	return Property{Name: name, Type: typ, Value: qjson.AppendString(nil, value), Owner: owner}
}

func boolProperty(name string, value bool, owner string) Property {
	return Property{Name: name, Type: "bool", Value: qjson.AppendBool(nil, value), Owner: owner}
}

func (o *object) asProperty(owner string) Property {
	return stringProperty(o.name, "child<"+o.typ+">", o.path(), owner)
}

// isCommon tells whether every device has the property.
func isCommon(name string) bool {
	switch name {
	case "type", "parent_bus", "realized", "hotplugged", "hotpluggable":
		return true
	}
	return false
}

// properties lists what all devices have, then the model's rows, then the
// children that are no rows.
func (d *device) properties() []Property {
	typ := d.model.name
	list := []Property{
		stringProperty("parent_bus", "link<bus>", d.bus.object.path(), typ),
		boolProperty("realized", d.realized, typ),
		boolProperty("hotplugged", d.hotplugged, typ),
		boolProperty("hotpluggable", d.outer == nil && !d.model.fixed, typ),
	}
	for _, rows := range d.model.rows {
		for i := range rows {
			list = append(list, d.property(&rows[i]))
		}
	}
	for name, c := range d.object.children.Reversed() {
		if d.model.row(name) == nil {
			list = append(list, c.asProperty(typ))
		}
	}
	return list
}

func (d *device) property(p *property) Property {
	if p.kind == child {
		c, _ := d.object.children.Get(p.name)
		return c.asProperty(d.model.name)
	}
	owner, p := d.find(p.name)
	out := Property{Name: p.name, Type: p.kind.typeName(), Owner: owner.model.name}
	switch p.kind {
	case unreadable:
	case pciAddressText:
		out.Value = qjson.AppendString(nil, d.pciAddressText())
	default:
		out.Value = p.kind.appendJSON(nil, owner.shown(p))
	}
	return out
}

// shown is a value as clients see it: the drive is the name of the node.
func (d *device) shown(p *property) string {
	if p.kind != drive || d.drive == nil {
		return d.get(p.name)
	}
	if n := d.drive.backend.Node(); n != nil {
		return n.Name()
	}
	return ""
}

// properties lists a bus's own properties and its links to devices, which
// share a hash table.
func (b *bus) properties() []Property {
	var list []Property
	for name, d := range b.links.Reversed() {
		switch {
		case d != nil:
			list = append(list, stringProperty(name, "link<"+d.model.name+">", d.object.path(), b.typ))
		case name == handlerProperty:
			list = append(list, stringProperty(name, "link<hotplug-handler>", b.handler(), b.typ))
		case name == hotplugBusNumber:
			list = append(list, Property{Name: name, Type: "uint32", Value: []byte("0"), Owner: b.typ})
		default:
			list = append(list, boolProperty(name, true, b.typ))
		}
	}
	return list
}

// handler is the path of the object that takes care of plugging on the bus.
func (b *bus) handler() string {
	switch b.typ {
	case pciBus:
		return "/machine/unattached/device[3]/pm"
	case scsiBus:
		return b.owner.object.path()
	}
	return ""
}

// Set changes a property of the object at an absolute path, as qom-set does.
// Objects outside of /machine are not found.
func (m *Machine) Set(l *aio.Lock, path, name string, v qjson.Value) error {
	o := m.resolve(path)
	if o == nil || !strings.HasPrefix(path, "/") {
		return notFound(path)
	}
	if o.dev != nil && !o.dev.model.fixed {
		return o.dev.set(l, name, v)
	}
	for _, p := range o.properties() {
		if p.Name == name {
			return qerr.New("Property '%s.%s' is not writable", o.typ, name)
		}
	}
	return qerr.New("Property '%s.%s' not found", o.typ, name)
}
