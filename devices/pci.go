package devices

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

const (
	pciSlots         = 32
	functionsPerSlot = 8
)

// parsePCIAddress reads "slot.function" in hexadecimal, the function being
// optional, or a number slot*8+function; -1 means any.
func parsePCIAddress(owner, name string, v qjson.Value) (string, error) {
	switch v.Kind() {
	case qjson.String:
		devfn, ok := parseSlot(v.Str())
		if !ok {
			return "", qerr.New("Property '%s.%s' doesn't take value '%s'", owner, name, v.Str())
		}
		return strconv.Itoa(devfn), nil
	case qjson.Int, qjson.Uint, qjson.Double:
		s, err := parseSigned(name, v)
		if err != nil {
			return "", err
		}
		if n := v.Int(); n < -1 || n > math.MaxUint8 {
			return "", qerr.New("Parameter '%s' expects a value between -1 and 255", name)
		}
		return s, nil
	}
	return "", qerr.New("Invalid parameter type for '%s', expected int or str", name)
}

func parseSlot(s string) (devfn int, ok bool) {
	slot, rest, ok := scanHex(s)
	if !ok || slot >= pciSlots {
		return 0, false
	}
	if rest == "" {
		return int(slot) * functionsPerSlot, true
	}
	if rest[0] != '.' {
		return 0, false
	}
	function, rest, ok := scanHex(rest[1:])
	if !ok || rest != "" || function >= functionsPerSlot {
		return 0, false
	}
	return int(slot)*functionsPerSlot + int(function), true
}

// scanHex reads a hexadecimal number as C's scanf does: white space, a sign
// and 0x may stand before it.
func scanHex(s string) (n uint64, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	if len(s) > 1 && s[0] == '0' && s[1]|0x20 == 'x' {
		if s = s[2:]; s == "" || !isHex(s[0]) {
			return 0, s, true
		}
	}
	end := 0
	for end < len(s) && isHex(s[end]) {
		end++
	}
	n, err := strconv.ParseUint(s[:end], 16, 32)
	if err != nil || negative && n != 0 {
		return 0, "", false
	}
	return n, s[end:], true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// takePCISlot finds the device its place on the bus.
func (d *device) takePCISlot() error {
	b := d.bus
	devfn, _ := strconv.Atoi(d.get("addr"))
	if devfn < 0 {
		if devfn = b.freeSlot(); devfn < 0 {
			return qerr.New("PCI: no slot/function available for %s, all in use or reserved", d.model.name)
		}
	}
	slot, function := devfn/functionsPerSlot, devfn%functionsPerSlot
	if other := b.functions[devfn]; other != nil {
		return qerr.New("PCI: slot %d function %d not available for %s, in use by %s,id=%s",
			slot, function, d.model.name, other.model.name, other.idOrNull())
	}
	if other := b.functions[slot*functionsPerSlot]; other != nil && d.hotplugged {
		return qerr.New("PCI: slot %d function 0 already occupied by %s, new func %s cannot be exposed to guest.",
			slot, other.model.name, d.model.name)
	}
	if err := b.checkFunctions(d, slot, function); err != nil {
		return err
	}
	d.devfn = devfn
	b.functions[devfn] = d
	d.put("addr", strconv.Itoa(devfn))
	return nil
}

// freeSlot is the first place whose function 0 is free, -1 if there is none.
func (b *bus) freeSlot() int {
	for devfn := 0; devfn < len(b.functions); devfn += functionsPerSlot {
		if b.functions[devfn] == nil {
			return devfn
		}
	}
	return -1
}

// checkFunctions holds the functions of a slot together: several of them need
// a function 0 that says so.
func (b *bus) checkFunctions(d *device, slot, function int) error {
	first := slot * functionsPerSlot
	if function != 0 {
		if zero := b.functions[first]; zero != nil && !zero.flag("multifunction") {
			return qerr.New("PCI: single function device can't be populated in function %x.%x", slot, function)
		}
		return nil
	}
	if d.flag("multifunction") {
		return nil
	}
	for f := 1; f < functionsPerSlot; f++ {
		if b.functions[first+f] != nil {
			return qerr.New("PCI: %x.0 indicates single function, but %x.%x is already populated.", slot, slot, f)
		}
	}
	return nil
}

// pciAddressText is the place in the notation of clients.
func (d *device) pciAddressText() string {
	return fmt.Sprintf("%02x.%x", d.devfn/functionsPerSlot, d.devfn%functionsPerSlot)
}

// hotplugBusNumber is a property of a PCI bus: its number for ACPI hotplug.
const hotplugBusNumber = "acpi-pcihp-bsel"

// addFixed gives the machine the devices and buses it is born with.
func (m *Machine) addFixed() {
	m.root = newBus("main-system-bus", systemBus, m.unattached.add("sysbus", systemBus))

	host := m.fixedDevice("i440FX-pcihost", m.root, m.object, "i440fx")
	pci := host.newBus("pci.0", pciBus)
	pci.functions = make([]*device, pciSlots*functionsPerSlot)

	m.fixedFunction("i440FX", pci, 0, m.unattached, "device[2]")
	south := m.fixedFunction("PIIX3", pci, 1*functionsPerSlot, m.unattached, "device[3]")
	south.newBus("isa.0", isaBus)
	ide := m.fixedFunction("piix3-ide", pci, 1*functionsPerSlot+1, south.object, "ide")
	ide.newBus("ide.0", ideBus)
	ide.newBus("ide.1", ideBus)
	m.fixedFunction("PIIX4_PM", pci, 1*functionsPerSlot+3, south.object, "pm").newBus("i2c", i2cBus)
	pci.links.Set(hotplugBusNumber, nil)
}

func (m *Machine) fixedDevice(name string, on *bus, parent *object, child string) *device {
	d := &device{machine: m, model: &model{name: name, bus: on.typ, fixed: true}, realized: true}
	d.object = parent.add(child, name)
	d.object.dev = d
	on.add(d)
	return d
}

func (m *Machine) fixedFunction(name string, on *bus, devfn int, parent *object, child string) *device {
	d := m.fixedDevice(name, on, parent, child)
	d.model.rows = [][]property{pciRows}
	d.devfn = devfn
	d.put("addr", strconv.Itoa(devfn))
	if name == "PIIX3" {
		d.put("multifunction", "true")
	}
	on.functions[devfn] = d
	return d
}
