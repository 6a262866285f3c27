package devices

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The types of buses.
const (
	systemBus = "System"
	pciBus    = "PCI"
	isaBus    = "ISA"
	ideBus    = "IDE"
	i2cBus    = "i2c-bus"
	scsiBus   = "SCSI"
	virtioBus = "virtio-pci-bus"
	// anyVirtioBus is what virtio devices ask for: on a PCI machine it is
	// always a virtioBus.
	anyVirtioBus = "virtio-bus"
)

// model is a kind of device.
type model struct {
	name  string
	alias string // another name by which clients may call it
	bus   string // the type of bus it sits on
	rows  [][]property
	// inner is the virtio device inside; its name among the models.
	inner string
	// fixed says that the machine is born with such devices; clients can
	// neither add nor remove them.
	fixed bool
	// realize starts a device whose properties are set. What it took before
	// an error is given back by [device.release].
	realize func(l *aio.Lock, d *device) error
}

// models is the table of what can be added.
func models() []*model {
	return []*model{
		{
			name: "virtio-blk-pci", alias: "virtio-blk", bus: pciBus, inner: "virtio-blk-device",
			rows:    [][]property{pciRows, virtioPCIRows, virtioBlkPCIRows},
			realize: realizeVirtioPCI,
		},
		{
			name: "virtio-blk-device", bus: virtioBus,
			rows:    [][]property{virtioRows, virtioBlkRows},
			realize: realizeVirtioBlk,
		},
		{
			name: "virtio-scsi-pci", alias: "virtio-scsi", bus: pciBus, inner: "virtio-scsi-device",
			rows:    [][]property{pciRows, virtioPCIRows, virtioSCSIPCIRows},
			realize: realizeVirtioPCI,
		},
		{
			name: "virtio-scsi-device", bus: virtioBus,
			rows:    [][]property{virtioRows, virtioSCSIRows},
			realize: realizeVirtioSCSI,
		},
		{
			name: "scsi-hd", bus: scsiBus,
			rows:    [][]property{scsiRows, scsiHDRows},
			realize: realizeSCSIDisk,
		},
		{
			name: "scsi-cd", bus: scsiBus,
			rows:    [][]property{scsiRows, scsiCDRows},
			realize: realizeSCSICD,
		},
	}
}

// model finds a model by its name or alias.
func (m *Machine) model(name string) (*model, error) {
	for _, mod := range m.models {
		if mod.name == name || mod.alias == name && name != "" {
			return mod, nil
		}
	}
	return nil, qerr.New("'%s' is not a valid device model name", name)
}

// row finds a property.
func (mod *model) row(name string) *property {
	for _, rows := range mod.rows {
		for i := range rows {
			if rows[i].name == name {
				return &rows[i]
			}
		}
	}
	return nil
}

// busName is what the model calls the bus it wants.
func (mod *model) busName() string {
	if mod.bus == virtioBus {
		return anyVirtioBus
	}
	return mod.bus
}
