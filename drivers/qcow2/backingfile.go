package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

var _ block.BackingFileChanger = (*image)(nil)

// CoChangeBackingFile makes the header name another backing file, or an empty
// name, which means none. A name that is longer than the header may hold is
// EINVAL, one that does not fit beside the rest of the header ENOSPC.
func (i *image) CoChangeBackingFile(co *aio.Co, b block.ImageBacking) error {
	if len(b.Filename) > maxBackingName || i.hdr.dataRaw() {
		return qerr.From(syscall.EINVAL)
	}
	i.mu.lock(co)
	defer i.mu.unlock()
	// What was copied out of the old one has to be found without it. The
	// reference does not write this, and loses it when it is killed.
	if err := i.writeBack(co); err != nil {
		return err
	}
	if err := i.barrier(co); err != nil {
		return err
	}
	return i.updateHeader(co, func(h *header) { h.setBacking(b.Filename, b.Format) })
}
