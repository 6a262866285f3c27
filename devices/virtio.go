package devices

import (
	"strconv"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The limits of virtio queues.
const (
	maxQueueSize = 1024
	// maxQueues is all the queues a device may have; virtio-scsi needs two
	// more than those for requests.
	maxQueues     = 1024
	maxSCSIQueues = maxQueues - 2
)

// realizeVirtioPCI starts the PCI device around a virtio device, and that.
func realizeVirtioPCI(l *aio.Lock, d *device) error {
	if err := d.takePCISlot(); err != nil {
		return err
	}
	if d.get("disable-legacy") == "auto" {
		d.put("disable-legacy", "off") // on a plain PCI bus
	}
	if d.flag("disable-modern") && d.get("disable-legacy") == "on" {
		return qerr.New("device cannot work as neither modern nor legacy mode is enabled")
	}
	b := d.newBus("virtio-bus", virtioBus)
	b.max = 1
	if err := d.inner.realize(l, b); err != nil {
		return err
	}
	if d.wasSet("failover_pair_id") {
		return qerr.New("failover primary device must be on PCIExpress bus")
	}
	if rom := d.get("romfile"); rom != "" {
		return qerr.New("failed to find romfile \"%s\"", rom)
	}
	return nil
}

// fixVectors gives each queue an interrupt, and one to configuration changes.
func (d *device) fixVectors(queues uint64) {
	if d.number("vectors") == notSet32 {
		d.putNumber("vectors", queues+1)
	}
}

func realizeVirtioBlk(l *aio.Lock, d *device) error {
	if d.drive == nil {
		return errNoDrive()
	}
	if d.get("num-queues") == autoQueues16 {
		d.put("num-queues", strconv.Itoa(min(d.machine.cpus(), maxQueues)))
	}
	if err := d.checkBlkQueues(); err != nil {
		return err
	}
	d.outer.fixVectors(d.number("num-queues"))
	if err := d.drive.start(l, usesDisk(d)); err != nil {
		return err
	}
	if err := d.fixGeometry(l); err != nil {
		return err
	}
	if err := d.fixBlockSizes(); err != nil {
		return err
	}
	for _, name := range []string{"max-discard-sectors", "max-write-zeroes-sectors"} {
		if n := d.number(name); n < 1 || n > maxRequestSectors {
			return qerr.New("invalid %s property (%d), must be between 1 and %d", name, n, maxRequestSectors)
		}
	}
	if err := d.checkIOThreads(int(d.number("num-queues"))); err != nil {
		return err
	}
	d.drive.moveTo(l, d.iothread())
	return nil
}

// maxRequestSectors is the longest request in sectors.
const maxRequestSectors = (1<<31 - 1) / 512

func (d *device) checkBlkQueues() error {
	switch n, size := d.number("num-queues"), d.number("queue-size"); {
	case n == 0:
		return qerr.New("num-queues property must be larger than 0")
	case size <= 2:
		return qerr.New("invalid queue-size property (%d), must be > 2", size)
	case size&(size-1) != 0 || size > maxQueueSize:
		return qerr.New("invalid queue-size property (%d), must be a power of 2 (max %d)", size, maxQueueSize)
	case n > maxQueues:
		// The reference ends itself here.
		return qerr.New("num-queues property must not be larger than %d", maxQueues)
	}
	return nil
}

func realizeVirtioSCSI(_ *aio.Lock, d *device) error {
	if d.number("num_queues") == notSet32 {
		d.putNumber("num_queues", uint64(min(d.machine.cpus(), maxSCSIQueues)))
	}
	n := d.number("num_queues")
	if n == 0 || n > maxSCSIQueues {
		return qerr.New("Invalid number of queues (= %d), must be a positive integer less than %d.", n, maxSCSIQueues)
	}
	switch size := d.number("virtqueue_size"); {
	case size <= 2:
		return qerr.New("invalid virtqueue_size property (= %d), must be > 2", size)
	case size > maxQueueSize:
		// The reference ends itself here.
		return qerr.New("invalid virtqueue_size property (= %d), must be <= %d", size, maxQueueSize)
	}
	// Besides the queues for requests there are one for control and one for
	// events.
	d.outer.fixVectors(n + 2)
	if err := d.checkIOThreads(int(n)); err != nil {
		return err
	}
	d.addSCSIBus()
	return nil
}

// addSCSIBus gives a controller its bus, named after its id or numbered.
func (d *device) addSCSIBus() {
	var name string
	if d.outer.id != nil {
		name = *d.outer.id + ".0"
	} else {
		name = "scsi." + strconv.Itoa(d.machine.unnamedSCSI)
		d.machine.unnamedSCSI++
	}
	d.newBus(name, scsiBus).units = make(map[scsiAddress]*device)
}

// checkIOThreads checks the iothreads of a virtio device with the given number
// of queues.
func (d *device) checkIOThreads(queues int) error {
	link, mapping := d.get("iothread"), d.get("iothread-vq-mapping")
	if link == "" && mapping == "[]" {
		return nil
	}
	if link != "" && mapping != "[]" {
		return qerr.New("iothread and iothread-vq-mapping properties cannot be set at the same time")
	}
	if !d.outer.flag("ioeventfd") {
		return qerr.New("ioeventfd is required for iothread")
	}
	if mapping == "[]" {
		return nil
	}
	return d.machine.checkVQMapping(mapping, queues)
}
