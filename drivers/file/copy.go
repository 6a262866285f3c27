package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoCopyRange lets the kernel copy between two regular files, which may share
// blocks afterwards.
func (n *regular) CoCopyRange(co *aio.Co, src *block.Node, srcOff, dstOff, bytes int64) error {
	from, ok := src.Instance().(*regular)
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
