package devices

import (
	"container/list"
	"strconv"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// device is one device, as a client added it or as the machine was born with.
type device struct {
	machine *Machine
	model   *model
	id      *string // nil if it has none
	object  *object
	bus     *bus          // it sits on; nil before that
	place   *list.Element // among the children of bus
	link    string        // the name of bus's link to it
	buses   []*bus        // it has, the newest first
	inner   *device       // the virtio device inside
	outer   *device       // the PCI device around
	values  map[string]string
	drive   *Drive // of its property "drive"

	hotplugged, realized, leaving bool
	devfn                         int         // on a PCI bus
	unit                          scsiAddress // on a SCSI bus
}

// top is the device that a client would name: the outer one.
func (d *device) top() *device {
	if d.outer != nil {
		return d.outer
	}
	return d
}

// name is what errors call the device: its id, or its path.
func (d *device) name() string {
	if d.id != nil {
		return *d.id
	}
	return d.object.path()
}

// idOrNull is the id as the reference prints a missing one.
func (d *device) idOrNull() string {
	if d.id == nil {
		return "(null)"
	}
	return *d.id
}

// find resolves aliases: it returns the device that has the property, and the
// row; nil if there is none.
func (d *device) find(name string) (*device, *property) {
	p := d.model.row(name)
	switch {
	case p == nil:
	case p.kind == alias:
		return d.inner.find(name)
	case p.kind == child && !d.object.has(name):
		return d, nil
	}
	return d, p
}

// get is a property's value as text.
func (d *device) get(name string) string {
	d, p := d.find(name)
	if v, ok := d.values[name]; ok || p == nil {
		return v
	}
	return p.def
}

// number is the value of a property that holds an unsigned number.
func (d *device) number(name string) uint64 {
	n, _ := strconv.ParseUint(d.get(name), 10, 64)
	return n
}

// flag is the value of a boolean property.
func (d *device) flag(name string) bool { return d.get(name) == "true" }

// wasSet tells whether the property was given a value, be it the default.
func (d *device) wasSet(name string) bool {
	d, _ = d.find(name)
	_, ok := d.values[name]
	return ok
}

// put changes a value without any check.
func (d *device) put(name, v string) {
	d, _ = d.find(name)
	if d.values == nil {
		d.values = make(map[string]string)
	}
	d.values[name] = v
}

// set gives a property the value a client sent.
func (d *device) set(l *aio.Lock, name string, v qjson.Value) error {
	owner, p := d.find(name)
	if p == nil {
		if isCommon(name) {
			return qerr.New("Property '%s.%s' is not writable", d.model.name, name)
		}
		return qerr.New("Property '%s.%s' not found", d.model.name, name)
	}
	if err := owner.checkRealized(p); err != nil {
		return err
	}
	value, err := p.parse(owner.model.name, v)
	if err != nil {
		return err
	}
	switch p.kind {
	case drive:
		return owner.setDrive(l, value)
	case bootIndex:
		return owner.setBootIndex(value)
	case iothreadLink:
		return owner.setIOThread(p, value)
	}
	owner.put(name, value)
	return nil
}

// checkRealized refuses what can only be changed before the device starts.
func (d *device) checkRealized(p *property) error {
	switch {
	case !d.realized, !p.kind.writable(), p.kind == drive, p.kind == bootIndex:
		return nil
	case p.kind == iothreadLink:
		return qerr.New("Attempt to set link property '%s' on device '%s' (type '%s') after it was realized", p.name, d.idOrNull(), d.model.name)
	case d.id == nil:
		return qerr.New("Attempt to set property '%s' on anonymous device (type '%s') after it was realized", p.name, d.model.name)
	}
	return qerr.New("Attempt to set property '%s' on device '%s' (type '%s') after it was realized", p.name, *d.id, d.model.name)
}

// setBootIndex takes a place in the boot order; negative ones are none.
func (d *device) setBootIndex(v string) error {
	if v[0] != '-' {
		if other := d.machine.bootIndices[v]; other != nil && other != d {
			return qerr.New("The bootindex %s has already been used", v)
		}
	}
	d.dropBootIndex()
	if v[0] != '-' {
		d.machine.bootIndices[v] = d
	}
	d.put("bootindex", v)
	return nil
}

func (d *device) dropBootIndex() {
	if v := d.values["bootindex"]; d.machine.bootIndices[v] == d {
		delete(d.machine.bootIndices, v)
	}
}

func (d *device) setIOThread(p *property, name string) error {
	if name == "" {
		d.put(p.name, "")
		return nil
	}
	t, err := d.machine.resolveIOThread(name, p.name)
	if err != nil {
		return err
	}
	d.put(p.name, t.Path)
	return nil
}

// iothread is the context in which the device's requests run; nil: the main
// context.
func (d *device) iothread() *aio.Context {
	name := d.get("iothread")
	if name == "" {
		mapping, err := qjson.Parse([]byte(d.get("iothread-vq-mapping")))
		if err != nil {
			return nil
		}
		for e := range mapping.Elems() {
			name = e.Get("iothread").Str()
			break
		}
	}
	if name == "" {
		return nil
	}
	t, err := d.machine.resolveIOThread(name, "iothread")
	if err != nil || t == nil {
		return nil
	}
	return t.Context
}

// newBus gives the device a bus.
func (d *device) newBus(name, typ string) *bus {
	b := newBus(name, typ, d.object.add(name, typ))
	b.owner = d
	d.buses = append([]*bus{b}, d.buses...)
	return b
}
