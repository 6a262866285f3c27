package devices

import (
	"slices"
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Remove asks a device to go, as device_del does; id is the device's, or its
// path.
func (m *Machine) Remove(l *aio.Lock, id string) error {
	d, err := m.findDevice(id)
	if err != nil {
		return err
	}
	switch {
	case d.leaving:
		return qerr.New("Device %s is already in the process of unplug", id)
	case !d.bus.hotplug():
		return noHotplug(d.bus)
	case d.model.fixed:
		return qerr.New("Device '%s' does not support hotplugging", d.model.name)
	case d.bus.typ == pciBus && m.status != Running:
		d.leaving = true
		m.leaving = append(m.leaving, d)
	case d.bus.typ == pciBus:
		m.eject(l, d)
	default:
		d.unplug(l)
	}
	return nil
}

// findDevice finds a device by id or path.
func (m *Machine) findDevice(id string) (*device, error) {
	o := m.resolve(id)
	if o == nil && m.cfg.Exists != nil && strings.HasPrefix(id, "/") && m.cfg.Exists(id) {
		return nil, qerr.New("%s is not a device", id)
	}
	switch {
	case id != "" && strings.Trim(id, "/") == "": // the root
		return nil, qerr.New("%s is not a device", id)
	case o == nil:
		return nil, notFound(id)
	case o.dev == nil:
		return nil, qerr.New("%s is not a device", id)
	}
	return o.dev, nil
}

// eject is what a guest does that lets a PCI device go: the whole slot goes,
// all of its functions.
func (m *Machine) eject(l *aio.Lock, d *device) {
	slot := d.devfn / functionsPerSlot
	var functions []*device
	d.bus.devices(func(other *device) bool {
		if other.devfn/functionsPerSlot == slot {
			functions = append(functions, other)
		}
		return true
	})
	for _, f := range functions {
		f.unplug(l)
	}
}

// ejectLeaving lets all devices go for which a guest was needed, slot by slot.
func (m *Machine) ejectLeaving(l *aio.Lock) {
	slices.SortFunc(m.leaving, func(a, b *device) int { return a.devfn - b.devfn })
	for len(m.leaving) > 0 {
		m.eject(l, m.leaving[0])
	}
}

// unplug takes a device out: what sits on its buses goes first, newer devices
// before older ones.
func (d *device) unplug(l *aio.Lock) {
	for _, b := range d.buses {
		for b.children.Len() > 0 {
			b.children.Front().Value.(*device).unplug(l)
		}
	}
	if d.leaving {
		m := d.machine
		m.leaving = slices.DeleteFunc(m.leaving, func(other *device) bool { return other == d })
	}
	d.quit(l, d.machine.cfg.Later)
}

// release gives back all that the device holds, in whatever state it is. That
// it is gone is told only if it had been started.
func (d *device) release(l *aio.Lock) { d.quit(l, nil) }

// quit is release; later gets what need not be done yet.
func (d *device) quit(l *aio.Lock, later func(rest func(*aio.Lock))) {
	if d.inner != nil {
		d.inner.quit(l, later)
	}
	d.dropBootIndex()
	if drive := d.drive; drive != nil && later != nil {
		drive.retire(l)
		later(drive.detach)
		d.drive = nil
	} else if drive != nil {
		drive.close(l)
		d.drive = nil
	}
	if d.bus != nil {
		d.bus.remove(d)
	}
	e := Event{Kind: DeviceDeleted, Device: d.id, Path: d.object.path()}
	d.object.remove()
	if d.outer != nil {
		d.outer.inner = nil
	}
	if d.realized {
		d.machine.emit(e)
	}
}
