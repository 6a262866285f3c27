// Package devices is what a control plane sees of a machine's devices: it adds
// and removes them, reads their properties, and finds out which disk is behind
// which. No guest runs here; where a real one would have a say, the machine
// plays a guest that agrees at once.
//
// # Models and properties
//
// A model is a row of a table (models.go): its name, the bus it sits on, its
// properties with types and defaults, and a function that starts a device when
// all properties are set. The texts of errors follow from the types
// (property.go), so a new model gets them for nothing.
//
// A virtio device consists of two: a PCI device, and the virtio device proper
// which sits on a bus of its own inside it ("virtio-backend"). Most properties
// of the first are aliases of the second's.
//
// # Buses
//
// A device sits on a bus and may have buses itself; the tree begins with
// main-system-bus. A bus hands out places: PCI slots and functions (pci.go),
// SCSI targets and units (scsi.go). Only some of the machine's own devices
// exist, those that occupy a place a client could ask for.
//
// # Disks
//
// A device with a drive holds a node by a [block.Backend]. [Machine.Each] shows
// all of them, in the order in which they got their backends: that is the order
// of query-block.
//
// # Unplugging
//
// A SCSI device goes at once. A PCI device waits for the guest: while the
// machine runs ours lets go immediately, while it is stopped the request stays
// pending until the machine goes on.
//
// # Objects
//
// Machine, devices and buses are objects with paths, types and properties
// ([Machine.Object]). What lies in the guest's address space (memory regions,
// interrupts) is left out.
//
// Everything here was observed on the system emulator, machine type pc.
package devices
