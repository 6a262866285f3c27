package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// alignment is what requests must be multiples of, and the addresses of their
// memory, in bytes.
type alignment struct{ request, memory int64 }

// maxAlignment is the largest alignment that is looked for.
const maxAlignment = 4096

var probedAlignments = [...]int64{1, 512, 1024, 2048, maxAlignment}

// maxIov is the number of buffers the system takes in one call.
const maxIov = 1024

// probe finds out what O_DIRECT demands. Block devices tell the size of their
// sectors; apart from that, only trying helps: the kernel refuses requests
// that are not aligned with EINVAL.
func (d *descriptor) probe() error {
	buf := block.AlignedMemory(2 * maxAlignment)
	if d.isBlock() {
		if size, err := unix.IoctlGetUint32(d.fd, unix.BLKSSZGET); err == nil {
			d.align.request = int64(size)
		}
	}
	if d.align.request == 0 {
		d.align.request = probed(func(n int64) bool { return d.takes(buf[:n]) })
	}
	d.align.memory = probed(func(n int64) bool { return d.takes(buf[n : n+maxAlignment]) })
	if d.align.request == 0 || d.align.memory == 0 {
		return qerr.New("Could not find working O_DIRECT alignment").WithHint("Try cache.direct=off\n")
	}
	return nil
}

// probed finds the smallest alignment that works, 0 if there is none. A
// request that needs none at all has not reached the disk (a hole, the end of
// the file) and proves nothing.
func probed(works func(int64) bool) int64 {
	for _, n := range probedAlignments {
		if !works(n) {
			continue
		}
		if n == 1 {
			return maxAlignment
		}
		return n
	}
	return 0
}

func (d *descriptor) takes(buf []byte) bool {
	err := retry(func() error {
		_, err := unix.Pread(d.fd, buf, 0)
		return err
	})
	return err != unix.EINVAL
}

// RefreshLimits states what the descriptor demands and the drivers can do.
func (n *node) RefreshLimits(l *block.Limits) error {
	a := n.file.align
	l.RequestAlignment = a.request
	l.MinMemAlignment = a.memory
	l.OptMemAlignment = max(a.memory, maxAlignment)
	l.MaxIov = maxIov
	l.ZeroFlags = block.ReqMayUnmap | block.ReqNoFallback
	if n.file.fileType == unix.S_IFREG {
		// What a file grows by reads as zeroes.
		l.TruncateFlags = block.ReqZeroWrite
		if !n.file.direct() {
			l.ReadFlags, l.WriteFlags = block.ReqImmediate, block.ReqImmediate
		}
	}
	return nil
}
