package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// flushState remembers a failed flush. The block layer flushes a node once at
// a time.
type flushState struct{ failed error }

// CoFlush makes finished writes durable. After a failure the kernel counts the
// pages it could not write as clean: the next fdatasync would succeed, the
// data be lost. So a node on the page cache never flushes again (observed with
// an injected error).
func (n *node) CoFlush(co *aio.Co) error {
	if n.flushed.failed != nil {
		return n.flushed.failed
	}
	co.BeginBlocking()
	defer co.EndBlocking()
	err := retry(func() error { return unix.Fdatasync(n.file.fd) })
	if err == nil {
		return nil
	}
	failed := qerr.From(err)
	if !n.file.direct() {
		n.flushed.failed = failed
	}
	return failed
}
