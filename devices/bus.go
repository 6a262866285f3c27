package devices

import (
	"container/list"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qom/ghash"
)

// bus is what devices sit on.
type bus struct {
	name     string
	typ      string
	owner    *device // nil for main-system-bus
	object   *object
	children list.List // of *device, the newest first
	max      int       // devices that fit, 0: any number

	links    ghash.Table[*device] // the properties of the bus's object; nil for what is no link
	nextLink int

	functions []*device               // of a PCI bus, by slot*8+function
	units     map[scsiAddress]*device // of a SCSI bus
}

// newBus makes a bus whose object is o.
func newBus(name, typ string, o *object) *bus {
	b := &bus{name: name, typ: typ, object: o}
	o.bus = b
	b.links.Set(handlerProperty, nil)
	b.links.Set("realized", nil)
	return b
}

const handlerProperty = "hotplug-handler"

func (b *bus) full() bool { return b.max > 0 && b.children.Len() >= b.max }

// hotplug tells whether devices can come and go while the machine exists.
func (b *bus) hotplug() bool { return b.typ == pciBus || b.typ == scsiBus }

// add seats a device.
func (b *bus) add(d *device) {
	d.bus = b
	d.place = b.children.PushFront(d)
	d.link = "child[" + strconv.Itoa(b.nextLink) + "]"
	b.nextLink++
	b.links.Set(d.link, d)
}

func (b *bus) remove(d *device) {
	b.children.Remove(d.place)
	b.links.Delete(d.link)
	if b.functions != nil && b.functions[d.devfn] == d {
		b.functions[d.devfn] = nil
	}
	if b.units[d.unit] == d {
		delete(b.units, d.unit)
	}
	d.bus, d.place = nil, nil
}

// devices visits the devices on the bus, the newest first.
func (b *bus) devices(f func(*device) bool) {
	for e := b.children.Front(); e != nil; e = e.Next() {
		if !f(e.Value.(*device)) {
			return
		}
	}
}

// search looks for a bus from b on, newer devices first, that fits; one that
// is full is taken only if there is no other.
func (b *bus) search(fits func(*bus) bool) *bus {
	var pick *bus
	if fits(b) {
		if !b.full() {
			return b
		}
		pick = b
	}
	b.devices(func(d *device) bool {
		for _, below := range d.buses {
			if found := below.search(fits); found != nil {
				pick = found
				if !found.full() {
					return false
				}
			}
		}
		return true
	})
	return pick
}

// busFor finds the bus for a device when the client named none.
func (m *Machine) busFor(mod *model) (*bus, error) {
	b := m.root.search(func(b *bus) bool { return b.typ == mod.bus })
	if b == nil || b.full() {
		return nil, qerr.New("No '%s' bus found for device '%s'", mod.busName(), mod.name)
	}
	return b, nil
}

// findBus follows a path of buses and devices in turn: "s0.0",
// "/i440FX-pcihost/pci.0", "pci.0/s0". A relative path begins with a bus that
// is searched everywhere; a device with one bus stands for that bus.
func (m *Machine) findBus(path string) (*bus, error) {
	at := m.root
	parts := strings.Split(path, "/")
	if parts[0] != "" || len(parts) == 1 {
		at = m.root.search(func(b *bus) bool { return b.name == parts[0] })
		if at == nil {
			return nil, qerr.New("Bus '%s' not found", parts[0])
		}
	}
	at, err := at.follow(nonEmpty(parts[1:]))
	if err != nil {
		return nil, err
	}
	if at.full() {
		return nil, qerr.New("Bus '%s' is full", path)
	}
	return at, nil
}

func nonEmpty(parts []string) []string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

func (b *bus) follow(parts []string) (*bus, error) {
	for len(parts) > 0 {
		d := b.child(parts[0])
		if d == nil {
			return nil, notFound(parts[0])
		}
		if len(parts) == 1 {
			return d.onlyBus()
		}
		next := d.childBus(parts[1])
		if next == nil {
			return nil, qerr.New("Bus '%s' not found", parts[1])
		}
		b, parts = next, parts[2:]
	}
	return b, nil
}

// child finds a device on the bus by its id, else by its model.
func (b *bus) child(name string) *device {
	var byModel, byAlias, found *device
	b.devices(func(d *device) bool {
		if d.id != nil && *d.id == name {
			found = d
			return false
		}
		switch name {
		case d.model.name:
			byModel = first(byModel, d)
		case d.model.alias:
			byAlias = first(byAlias, d)
		}
		return true
	})
	return first(found, first(byModel, byAlias))
}

func first(a, b *device) *device {
	if a != nil {
		return a
	}
	return b
}

func (d *device) onlyBus() (*bus, error) {
	switch len(d.buses) {
	case 0:
		return nil, qerr.New("Device '%s' has no child bus", d.pathElement())
	case 1:
		return d.buses[0], nil
	}
	return nil, qerr.New("Device '%s' has multiple child buses", d.pathElement())
}

func (d *device) pathElement() string {
	if d.id != nil {
		return *d.id
	}
	return d.model.name
}

func (d *device) childBus(name string) *bus {
	for _, b := range d.buses {
		if b.name == name {
			return b
		}
	}
	return nil
}

func notFound(what string) error {
	return qerr.WithClass(qerr.DeviceNotFound, "Device '%s' not found", what)
}
