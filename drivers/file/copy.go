package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CopyRanger is the ability of an instance to copy from another one without
// moving the bytes through memory.
type CopyRanger interface {
	// CoCopyRange copies bytes from src at srcOff to dstOff. ENOTSUP says
	// that the two do not fit together; the caller should read and write
	// then, and may do so after every other error.
	CoCopyRange(co *aio.Co, src block.Instance, srcOff, dstOff, bytes int64) error
}

// CoCopyRange lets the kernel copy between two regular files, which may share
// blocks afterwards.
func (n *regular) CoCopyRange(co *aio.Co, src block.Instance, srcOff, dstOff, bytes int64) error {
	from, ok := src.(*regular)
	if !ok {
		return errUnsupported
	}
	co.BeginBlocking()
	defer co.EndBlocking()
	for bytes > 0 {
		// A count that fits into int everywhere; the kernel takes less anyway.
		count := int(min(bytes, 1<<30))
		copied, err := unix.CopyFileRange(from.file.fd, &srcOff, n.file.fd, &dstOff, count, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EXDEV:
			return errUnsupported
		case err != nil:
			return unsupported(err)
		case copied == 0:
			// The source ends here. What is behind it reads as zeroes, which
			// the kernel does not copy.
			return qerr.From(unix.ENOSPC)
		}
		bytes -= int64(copied)
	}
	return nil
}
