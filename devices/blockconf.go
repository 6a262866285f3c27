package devices

import (
	"math"
	"strconv"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const notSet32 = math.MaxUint32

func (d *device) putNumber(name string, n uint64) { d.put(name, strconv.FormatUint(n, 10)) }

// defaultDiscardGranularity is what SCSI disks use, in bytes.
const defaultDiscardGranularity = 4096

// fixBlockSizes completes and checks the sizes a disk shows to its guest.
func (d *device) fixBlockSizes() error {
	for _, name := range []string{"physical_block_size", "logical_block_size"} {
		if d.number(name) == 0 {
			d.putNumber(name, minBlockSize)
		}
	}
	logical := d.number("logical_block_size")
	if logical > d.number("physical_block_size") {
		return qerr.New("logical_block_size > physical_block_size not supported")
	}
	if err := d.checkMultiple("min_io_size", logical); err != nil {
		return err
	}
	if d.number("min_io_size")/logical > math.MaxUint16 {
		return qerr.New("min_io_size must not exceed %d logical blocks", math.MaxUint16)
	}
	if err := d.checkMultiple("opt_io_size", logical); err != nil {
		return err
	}
	if d.number("discard_granularity") == notSet32 {
		return nil
	}
	return d.checkMultiple("discard_granularity", logical)
}

func (d *device) checkMultiple(name string, of uint64) error {
	if d.number(name)%of != 0 {
		return qerr.New("%s must be a multiple of logical_block_size", name)
	}
	return nil
}

// The bounds of a disk's geometry, and the one that is guessed.
const (
	maxCylinders, maxHeads, maxSectors  = 65535, 255, 255
	guessedHeads, guessedSectors        = 16, 63
	minGuessedCylinders, maxGuessedCyls = 2, 16383
)

// fixGeometry completes and checks the cylinders, heads and sectors per track.
// A guess goes by the size alone; the reference looks at the partition table
// as well.
func (d *device) fixGeometry(l *aio.Lock) error {
	if d.number("cyls") == 0 && d.number("heads") == 0 && d.number("secs") == 0 {
		return d.guessGeometry(l)
	}
	for _, c := range []struct {
		name string
		max  uint64
	}{{"cyls", maxCylinders}, {"heads", maxHeads}, {"secs", maxSectors}} {
		if n := d.number(c.name); n < 1 || n > c.max {
			return qerr.New("%s must be between 1 and %d", c.name, c.max)
		}
	}
	return nil
}

func (d *device) guessGeometry(l *aio.Lock) error {
	length, err := d.drive.backend.GetLength(l)
	if err != nil {
		length = 0 // a disk that cannot tell its size is shown as tiny
	}
	// The reference counts them in 32 bits; huge disks wrap around.
	cylinders := int32(length / minBlockSize / (guessedHeads * guessedSectors))
	d.putNumber("cyls", uint64(min(max(cylinders, minGuessedCylinders), maxGuessedCyls)))
	d.putNumber("heads", guessedHeads)
	d.putNumber("secs", guessedSectors)
	return nil
}
