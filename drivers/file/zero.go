package file

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// CoPwriteZeroes zeroes an area by the best of four ways that works: a hole,
// if the caller allows it; zeroed extents; a hole that is filled again with
// unwritten extents; and unwritten extents alone, behind the end. Which errors
// lead to the next way and which are remembered was observed with injected
// ones.
func (n *regular) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	co.BeginBlocking()
	defer co.EndBlocking()
	if flags&block.ReqMayUnmap != 0 {
		if err := n.file.punchForZeroes(offset, bytes); !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	for _, way := range [...]func(n *regular, offset, bytes int64) error{
		(*regular).zeroRange, (*regular).punchAndAllocate, (*regular).allocateBehindEnd,
	} {
		if err := way(n, offset, bytes); !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return errUnsupported
}

// punchForZeroes makes a hole, which reads as zeroes. ENOTSUP says that
// another way is worth trying.
func (d *descriptor) punchForZeroes(offset, bytes int64) error {
	err := d.fallocate(holePunched, offset, bytes)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		return errUnsupported
	}
	return err
}

// zeroRange: EINVAL comes from file systems that take whole blocks only.
func (n *regular) zeroRange(offset, bytes int64) error {
	if n.noZeroing.Load() {
		return errUnsupported
	}
	err := n.file.fallocate(zeroing, offset, bytes)
	switch {
	case errors.Is(err, unix.ENOTSUP):
		n.noZeroing.Store(true)
	case errors.Is(err, unix.EINVAL):
		return errUnsupported
	}
	return err
}

func (n *regular) punchAndAllocate(offset, bytes int64) error {
	if n.noDiscard.Load() || n.noAllocating.Load() {
		return errUnsupported
	}
	err := n.file.fallocate(holePunched, offset, bytes)
	switch {
	case errors.Is(err, unix.ENOTSUP):
		n.noDiscard.Store(true)
		return err
	case errors.Is(err, unix.EINVAL):
		return errUnsupported
	case err != nil:
		return err
	}
	return n.allocate(offset, bytes)
}

func (n *regular) allocateBehindEnd(offset, bytes int64) error {
	if n.noAllocating.Load() {
		return errUnsupported
	}
	if length, err := n.file.length(); err != nil || offset < length {
		return errUnsupported
	}
	return n.allocate(offset, bytes)
}

func (n *regular) allocate(offset, bytes int64) error {
	err := n.file.fallocate(allocating, offset, bytes)
	if errors.Is(err, unix.ENOTSUP) {
		n.noAllocating.Store(true)
	}
	return err
}

// CoPwriteZeroes zeroes an area of a block device. The kernel's own zeroing
// goes past the page cache, which O_DIRECT does as well; and it may be slow,
// which a caller without fallback does not want.
func (n *device) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	co.BeginBlocking()
	defer co.EndBlocking()
	if flags&block.ReqMayUnmap != 0 {
		if err := n.file.punchForZeroes(offset, bytes); !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	if !n.file.isBlock() || !n.file.direct() || flags&block.ReqNoFallback != 0 || n.noZeroing.Load() {
		return errUnsupported
	}
	err := n.file.rangeIoctl(unix.BLKZEROOUT, offset, bytes)
	if errors.Is(err, unix.ENOTSUP) {
		n.noZeroing.Store(true)
	}
	return err
}
