package file

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoGetLength is the length of the file or device in bytes.
func (n *node) CoGetLength(*aio.Co) (int64, error) {
	length, err := n.file.length()
	if err != nil {
		return 0, qerr.From(err)
	}
	return length, nil
}

// CoGetAllocatedFileSize is the space the file takes on disk in bytes, 0 for
// devices.
func (n *node) CoGetAllocatedFileSize(*aio.Co) (int64, error) {
	st, err := n.file.stat()
	if err != nil {
		return 0, qerr.From(err)
	}
	// Blocks are of 512 bytes, whatever the file system's own are.
	return st.Blocks * 512, nil
}

// CoGetInfo says that there is nothing special.
func (n *regular) CoGetInfo(*aio.Co) (block.DriverInfo, error) { return block.DriverInfo{}, nil }

// CoGetInfo says that there is nothing special.
func (n *device) CoGetInfo(*aio.Co) (block.DriverInfo, error) { return block.DriverInfo{}, nil }

// SpecificInfo tells the file's extent size hint.
func (n *regular) SpecificInfo(*aio.Co) (*block.SpecificInfo, error) {
	return n.file.specificInfo(), nil
}

// SpecificInfo is empty for devices.
func (n *device) SpecificInfo(*aio.Co) (*block.SpecificInfo, error) {
	return n.file.specificInfo(), nil
}

func (d *descriptor) specificInfo() *block.SpecificInfo {
	return &block.SpecificInfo{Type: "file", Data: block.FileSpecific{ExtentSizeHint: d.extentSizeHint()}}
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

// From linux/fs.h: FS_IOC_FSGETXATTR is _IOR('X', 31, struct fsxattr) and
// FS_IOC_FSSETXATTR _IOW('X', 32, struct fsxattr).
const (
	fsIocFsGetXattr = 0x801c581f
	fsIocFsSetXattr = 0x401c5820
	fsXflagExtsize  = 0x800
)

// extentSizeHint is the unit in bytes in which the file system allocates, 0 if
// none was set.
func (d *descriptor) extentSizeHint() int64 {
	var x fsxattr
	if d.xattrIoctl(fsIocFsGetXattr, &x) != 0 || x.xflags&fsXflagExtsize == 0 {
		return 0
	}
	return int64(x.extsize)
}

// setExtentSizeHint sets the unit in bytes in which the file system allocates.
// One that knows no such thing, or not this one, keeps its own.
func (d *descriptor) setExtentSizeHint(bytes uint32) {
	var x fsxattr
	if d.xattrIoctl(fsIocFsGetXattr, &x) != 0 {
		return
	}
	x.xflags |= fsXflagExtsize
	x.extsize = bytes
	_ = d.xattrIoctl(fsIocFsSetXattr, &x)
}

func (d *descriptor) xattrIoctl(request uintptr, x *fsxattr) syscall.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), request, uintptr(unsafe.Pointer(x)))
	return errno
}
