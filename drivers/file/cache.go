package file

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// cacheOptions say what happens to the page cache when a node becomes active:
// another host may have written to the file meanwhile.
type cacheOptions struct{ drop, check bool }

func takeCacheOptions(o *block.Options) (c cacheOptions, err error) {
	if c.drop, err = o.TakeBool(optDropCache, true); err != nil {
		return c, err
	}
	c.check, err = o.TakeBool(optCheckCacheDropped, false)
	return c, err
}

// CoInvalidateCache drops the pages of the file. O_DIRECT has not read any.
func (n *node) CoInvalidateCache(co *aio.Co) error {
	if !n.cache.drop || n.file.direct() {
		return nil
	}
	co.BeginBlocking()
	defer co.EndBlocking()
	if err := unix.Fadvise(n.file.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return failed(err, "fadvise failed")
	}
	if n.cache.check {
		return n.file.checkCacheDropped()
	}
	return nil
}

// cacheWindow is how much of the file is mapped at once to look at its pages.
const cacheWindow = 128 << 20

// checkCacheDropped fails if a page of the file is still in memory.
func (d *descriptor) checkCacheDropped() error {
	length, err := d.length()
	if err != nil {
		return failed(err, "Could not get length")
	}
	for at := int64(0); at < length; at += cacheWindow {
		cached, err := d.cached(at, min(cacheWindow, length-at))
		if err != nil {
			return err
		}
		if cached {
			return qerr.New("page cache still in use!")
		}
	}
	return nil
}

func (d *descriptor) cached(offset, bytes int64) (bool, error) {
	window, err := unix.Mmap(d.fd, offset, int(bytes), unix.PROT_NONE, unix.MAP_PRIVATE)
	if err != nil {
		return false, failed(err, "mmap failed")
	}
	defer unix.Munmap(window)
	page := int64(syscall.Getpagesize())
	pages := make([]byte, (bytes+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(unsafe.SliceData(window))), uintptr(bytes), uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	if errno != 0 {
		return false, failed(errno, "mincore failed")
	}
	for _, p := range pages {
		if p&1 != 0 {
			return true, nil
		}
	}
	return false, nil
}
