package devices

import (
	"strconv"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// Add adds a device to the existing machine, as device_add does. args holds
// the members driver, bus, id and properties; these three are ignored when
// they are no strings.
func (m *Machine) Add(l *aio.Lock, args qjson.Value) error { return m.plug(l, args, true, false) }

// AddAtStart adds a device that the machine is born with, as --device does.
func (m *Machine) AddAtStart(l *aio.Lock, args qjson.Value) error {
	return m.plug(l, args, false, false)
}

// AddSpelled is AddAtStart for arguments that are all text, as a command line's
// are.
func (m *Machine) AddSpelled(l *aio.Lock, args qjson.Value) error {
	return m.plug(l, args, false, true)
}

func (m *Machine) plug(l *aio.Lock, args qjson.Value, hotplugged, spelled bool) error {
	driver := args.Get("driver")
	if driver.Kind() != qjson.String {
		return qerr.New("Parameter 'driver' is missing")
	}
	mod, err := m.model(driver.Str())
	if err != nil {
		return err
	}
	b, err := m.chooseBus(mod, args.Get("bus"))
	if err != nil {
		return err
	}
	if hotplugged && !b.hotplug() {
		return noHotplug(b)
	}
	d, err := m.newDevice(mod, args.Get("id"))
	if err != nil {
		return err
	}
	d.setHotplugged(hotplugged)
	if err := m.start(l, d, b, args, spelled); err != nil {
		d.release(l)
		return err
	}
	return nil
}

func noHotplug(b *bus) error {
	return qerr.New("Bus '%s' does not support hotplugging", b.name)
}

func (m *Machine) chooseBus(mod *model, path qjson.Value) (*bus, error) {
	if path.Kind() != qjson.String {
		return m.busFor(mod)
	}
	b, err := m.findBus(path.Str())
	if err != nil {
		return nil, err
	}
	if b.typ != mod.bus {
		return nil, qerr.New("Device '%s' can't go on %s bus", mod.name, b.typ)
	}
	return b, nil
}

// newDevice makes a device with its place in the object tree. What has no id
// gets a number there, which is never used again.
func (m *Machine) newDevice(mod *model, id qjson.Value) (*device, error) {
	d := &device{machine: m, model: mod}
	parent, name := m.peripheralAnon, "device["+strconv.Itoa(m.anonymous)+"]"
	if id.Kind() == qjson.String {
		parent, name = m.peripheral, id.Str()
		d.id = &name
	} else {
		m.anonymous++
	}
	if parent.has(name) {
		return nil, qerr.New("Duplicate device ID '%s'", name)
	}
	d.object = parent.add(name, mod.name)
	d.object.dev = d
	if mod.inner == "" {
		return d, nil
	}
	inner, err := m.model(mod.inner)
	if err != nil {
		return nil, err
	}
	d.inner = &device{machine: m, model: inner, outer: d}
	d.inner.object = d.object.add("virtio-backend", inner.name)
	d.inner.object.dev = d.inner
	return d, nil
}

func (d *device) setHotplugged(on bool) {
	d.hotplugged = on
	if d.inner != nil {
		d.inner.hotplugged = on
	}
}

// start sets the properties in the order of QEMU's dictionaries and starts the
// device on a bus.
func (m *Machine) start(l *aio.Lock, d *device, b *bus, args qjson.Value, spelled bool) error {
	for name, v := range args.DictOrder() {
		switch string(name) {
		case "driver", "bus", "id":
			continue
		}
		if _, p := d.find(string(name)); p != nil && spelled {
			var err error
			if v, err = p.read(v); err != nil {
				return err
			}
		}
		if err := d.set(l, string(name), v); err != nil {
			return err
		}
	}
	return d.realize(l, b)
}

// realize seats a device on a bus and starts it. A SCSI device needs its
// address before that, a PCI device afterwards.
func (d *device) realize(l *aio.Lock, b *bus) error {
	if b.typ == scsiBus {
		if err := d.takeSCSIUnit(b); err != nil {
			return err
		}
	}
	b.add(d)
	if err := d.model.realize(l, d); err != nil {
		return err
	}
	d.realized = true
	return nil
}
