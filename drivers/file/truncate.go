package file

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoTruncate changes the length of the file; it is always exact. The modes off,
// falloc and full are known.
func (n *regular) CoTruncate(co *aio.Co, offset int64, _ bool, prealloc block.PreallocMode, _ block.ReqFlags) error {
	co.BeginBlocking()
	defer co.EndBlocking()
	return n.file.setLength(offset, prealloc)
}

func (d *descriptor) setLength(to int64, prealloc block.PreallocMode) error {
	length, err := d.length()
	if err != nil {
		return failed(err, "Could not stat file")
	}
	if to < length && prealloc != block.PreallocOff {
		return qerr.WithErrnoOnly(unix.ENOTSUP, "Cannot use preallocation for shrinking files")
	}
	switch prealloc {
	case block.PreallocOff:
		err = d.resize(to)
	case block.PreallocFalloc:
		err = d.growAllocated(length, to)
	case block.PreallocFull:
		return d.growWritten(length, to)
	default:
		return qerr.WithErrnoOnly(unix.ENOTSUP, "Unsupported preallocation mode: %s", prealloc)
	}
	if err == nil && length == 0 {
		d.writeFirstBlock(to)
	}
	return err
}

func (d *descriptor) truncate(length int64) error {
	return retry(func() error { return unix.Ftruncate(d.fd, length) })
}

func (d *descriptor) resize(length int64) error {
	return failed(d.truncate(length), "Could not resize file")
}

// growAllocated grows by space that is reserved.
func (d *descriptor) growAllocated(from, to int64) error {
	if from == to {
		return nil
	}
	err := d.fallocate(allocating, from, to-from)
	if errors.Is(err, unix.ENOTSUP) {
		err = d.writeZeroes(from, to)
	}
	if err == nil {
		return nil
	}
	d.restore(from)
	return failed(err, "Could not preallocate new data")
}

// growWritten grows by zeroes that are written and made durable.
func (d *descriptor) growWritten(from, to int64) error {
	err := d.resize(to)
	if err == nil {
		err = failed(d.writeZeroes(from, to), "Could not write zeros for preallocation")
	}
	if err == nil {
		err = failed(retry(func() error { return unix.Fsync(d.fd) }), "Could not flush file to disk")
	}
	if err != nil {
		d.restore(from)
	}
	return err
}

// restore goes back to the old length after a failure, which is what the
// client hears of, whatever comes of this.
func (d *descriptor) restore(length int64) { _ = d.truncate(length) }

// zeroChunk is how many zeroes are written at once, in bytes.
const zeroChunk = 64 << 10

func (d *descriptor) writeZeroes(from, to int64) error {
	zeroes := block.AlignedMemory(int(min(to-from, zeroChunk)))
	for from < to {
		part := zeroes[:min(to-from, zeroChunk)]
		if err := d.write(from, block.Vec{part}); err != nil {
			return err
		}
		from += int64(len(part))
	}
	return nil
}

// writeFirstBlock gives a file that was empty its first block: alignments
// cannot be probed on a hole. Files shorter than a block get a sector, even if
// that makes them longer (observed: growing from 0 to 1 gives 512). A failure
// costs nothing but that.
func (d *descriptor) writeFirstBlock(length int64) {
	size := int64(maxAlignment)
	switch {
	case length == 0:
		return
	case length < size:
		size = block.SectorSize
	}
	_ = d.writeZeroes(0, size)
}

// CoTruncate accepts what a device can do: keep its length. Callers that do
// not insist may also ask for less.
func (n *device) CoTruncate(_ *aio.Co, offset int64, exact bool, prealloc block.PreallocMode, _ block.ReqFlags) error {
	return n.truncateDevice(offset, exact, prealloc)
}

func (n *node) truncateDevice(offset int64, exact bool, prealloc block.PreallocMode) error {
	if prealloc != block.PreallocOff {
		return qerr.WithErrnoOnly(unix.ENOTSUP, "Preallocation mode '%s' unsupported for this non-regular file", prealloc)
	}
	length, err := n.file.length()
	switch {
	case err != nil:
		return failed(err, "Could not get length")
	case exact && offset != length:
		return qerr.WithErrnoOnly(unix.ENOTSUP, "Cannot resize device files")
	case offset > length:
		return qerr.WithErrnoOnly(unix.EINVAL, "Cannot grow device files")
	}
	return nil
}
