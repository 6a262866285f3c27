package file

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// abilities remembers what the file system turned out not to be able to do, so
// that it is asked once.
type abilities struct {
	noZeroing, noDiscard, noAllocating atomic.Bool
}

// The operations of fallocate(2); allocating is the plain one.
const (
	allocating  = 0
	zeroing     = unix.FALLOC_FL_ZERO_RANGE
	holePunched = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
)

func (d *descriptor) fallocate(op uint32, offset, bytes int64) error {
	return unsupported(retry(func() error { return unix.Fallocate(d.fd, op, offset, bytes) }))
}

// rangeIoctl makes one of the ioctls of block devices that take an area.
func (d *descriptor) rangeIoctl(request uintptr, offset, bytes int64) error {
	area := [2]uint64{uint64(offset), uint64(bytes)}
	return unsupported(retry(func() error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), request, uintptr(unsafe.Pointer(&area)))
		if errno != 0 {
			return errno
		}
		return nil
	}))
}

// unsupported gives the many ways to say "cannot do that" one name, and all
// other errors the form that clients see.
func unsupported(err error) error {
	switch err {
	case nil:
		return nil
	case unix.ENODEV, unix.ENOSYS, unix.ENOTTY, unix.EOPNOTSUPP:
		return errUnsupported
	}
	return qerr.From(err)
}

var errUnsupported = qerr.From(unix.ENOTSUP)
