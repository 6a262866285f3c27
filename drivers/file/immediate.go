package file

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// immediateLimit bounds immediate requests, in bytes: copying more takes so
// long that others had better do something meanwhile.
const immediateLimit = 256 << 10

// immediateBuffers bounds the buffers of an immediate read, whose description
// for the kernel lies on the stack.
const immediateBuffers = 16

var errWouldWait = qerr.From(unix.EAGAIN)

// readImmediate reads what the page cache holds. What lies behind the end of
// the file reads as zeroes.
func (d *descriptor) readImmediate(offset int64, v block.Vec) error {
	total := v.Len()
	if total > immediateLimit || len(v) > immediateBuffers || d.noImmediate.Load() {
		return errWouldWait
	}
	read, errno := d.preadCached(offset, v)
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		return errWouldWait
	case unix.EOPNOTSUPP, unix.ENOSYS:
		d.noImmediate.Store(true)
		return errWouldWait
	default:
		return qerr.From(errno)
	}
	if read == total {
		return nil
	}
	// The end of the file, or of what is in memory.
	if length, err := d.length(); err != nil || offset+read < length {
		return errWouldWait
	}
	v.Slice(read, total-read).Zero()
	return nil
}

// preadCached is preadv2(2) with RWF_NOWAIT, which package unix has not. As
// the call does not wait, the scheduler need not hear of it.
func (d *descriptor) preadCached(offset int64, v block.Vec) (int64, unix.Errno) {
	var list [immediateBuffers]unix.Iovec
	for i, b := range v {
		list[i].Base = unsafe.SliceData(b)
		list[i].SetLen(len(b))
	}
	// Where a word has 64 bits, the upper half of the offset is ignored.
	n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(d.fd), uintptr(unsafe.Pointer(&list)), uintptr(len(v)),
		uintptr(offset), uintptr(uint64(offset)>>32), unix.RWF_NOWAIT)
	if errno != 0 {
		return 0, errno
	}
	return int64(n), 0
}

// writeImmediate writes into the page cache, which is a matter of copying: the
// kernel brings it to the disk later. It makes a writer wait only when too much
// has to be brought there already, or for the rest of a page that is not in
// memory; RWF_NOWAIT would exclude that, but few file systems know it for such
// writes.
func (d *descriptor) writeImmediate(offset int64, v block.Vec) error {
	if v.Len() > immediateLimit {
		return errWouldWait
	}
	return d.write(offset, v)
}
