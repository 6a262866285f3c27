package devices

import (
	"strconv"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The bounds of a virtio-scsi bus.
const (
	maxSCSIChannel = 0
	maxSCSITarget  = 255
	maxSCSILUN     = 16383
)

// scsiAddress is a place on a SCSI bus. -1 as target or lun: any.
type scsiAddress struct{ channel, target, lun int32 }

// takeSCSIUnit finds the device its place on a bus.
func (d *device) takeSCSIUnit(b *bus) error {
	a := scsiAddress{int32(d.number("channel")), int32(d.number("scsi-id")), int32(d.number("lun"))}
	switch {
	case uint32(a.channel) > maxSCSIChannel:
		return qerr.New("bad scsi channel id: %d", a.channel)
	case a.target != -1 && uint32(a.target) > maxSCSITarget:
		return qerr.New("bad scsi device id: %d", a.target)
	case a.lun != -1 && uint32(a.lun) > maxSCSILUN:
		return qerr.New("bad scsi device lun: %d", a.lun)
	}
	if err := b.completeUnit(&a); err != nil {
		return err
	}
	if other := b.units[a]; other != nil {
		return qerr.New("lun already used by '%s'", other.idOrNull())
	}
	d.unit = a
	b.units[a] = d
	d.put("scsi-id", strconv.Itoa(int(a.target)))
	d.put("lun", strconv.Itoa(int(a.lun)))
	return nil
}

// completeUnit chooses what the client left open: the first target on which
// the unit is free, or the first free unit of the target.
func (b *bus) completeUnit(a *scsiAddress) error {
	switch {
	case a.target == -1:
		a.lun = max(a.lun, 0)
		for a.target = 0; b.units[*a] != nil; a.target++ {
			if a.target == maxSCSITarget {
				return qerr.New("no free target")
			}
		}
	case a.lun == -1:
		for a.lun = 0; b.units[*a] != nil; a.lun++ {
			if a.lun == maxSCSILUN {
				return qerr.New("no free lun")
			}
		}
	}
	return nil
}

const (
	maxSerial = 36
	// maxSerialAsID is the longest serial number that serves as device_id.
	maxSerialAsID = 20
)

func realizeSCSIDisk(l *aio.Lock, d *device) error {
	if d.drive == nil {
		return errNoDrive()
	}
	if err := d.fixBlockSizes(); err != nil {
		return err
	}
	if err := d.fixGeometry(l); err != nil {
		return err
	}
	return d.startSCSIDrive(l, usesDisk(d), d.flag("removable"))
}

func realizeSCSICD(l *aio.Lock, d *device) error {
	if d.drive == nil {
		d.drive = d.newDrive()
	}
	if err := d.fixBlockSizes(); err != nil {
		return err
	}
	return d.startSCSIDrive(l, usesCD(d), true)
}

func (d *device) startSCSIDrive(l *aio.Lock, u uses, removable bool) error {
	d.drive.removable = removable
	if err := d.drive.start(l, u); err != nil {
		return err
	}
	if len(d.get("serial")) > maxSerial {
		return qerr.New("The serial number can't be longer than %d characters", maxSerial)
	}
	if !d.wasSet("device_id") && len(d.get("serial")) > maxSerialAsID {
		return qerr.New("The serial number can't be longer than %d characters when it is also used as the default for device_id", maxSerialAsID)
	}
	if d.number("discard_granularity") == notSet32 {
		d.putNumber("discard_granularity", max(d.number("logical_block_size"), defaultDiscardGranularity))
	}
	d.drive.moveTo(l, d.bus.owner.iothread())
	return nil
}
