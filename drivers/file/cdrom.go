package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// cdrom is a node of host_cdrom. Its drive says before each request whether
// there is a medium; what is no drive has none.
type cdrom struct{ node }

// From linux/cdrom.h.
const (
	cdromDriveStatus = 0x5326
	cdslCurrent      = 1<<31 - 1
	cdsDiscOK        = 4
)

// CoIsInserted asks the drive.
func (n *cdrom) CoIsInserted(co *aio.Co) bool {
	co.BeginBlocking()
	defer co.EndBlocking()
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.file.fd), cdromDriveStatus, cdslCurrent)
	return errno == 0 && status == cdsDiscOK
}

func (n *cdrom) checkMedium(co *aio.Co) error {
	if n.CoIsInserted(co) {
		return nil
	}
	return qerr.From(unix.ENOMEDIUM)
}

// CoPreadv reads from the medium.
func (n *cdrom) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if err := n.checkMedium(co); err != nil {
		return err
	}
	return n.node.CoPreadv(co, offset, v, flags)
}

// CoPwritev writes to the medium.
func (n *cdrom) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if err := n.checkMedium(co); err != nil {
		return err
	}
	return n.node.CoPwritev(co, offset, v, flags)
}

// CoPdiscard does nothing but to look for a medium.
func (n *cdrom) CoPdiscard(co *aio.Co, _, _ int64) error {
	if err := n.checkMedium(co); err != nil {
		return err
	}
	return errUnsupported
}

// CoTruncate accepts the length that the medium has.
func (n *cdrom) CoTruncate(co *aio.Co, offset int64, exact bool, prealloc block.PreallocMode, _ block.ReqFlags) error {
	if !n.CoIsInserted(co) {
		return qerr.WithErrnoOnly(unix.ENOMEDIUM, "No medium inserted")
	}
	return n.truncateDevice(offset, exact, prealloc)
}
