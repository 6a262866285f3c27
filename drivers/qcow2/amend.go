package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CoAmend changes nothing: the only options that a client of QMP can amend are
// the key slots of an encrypted image, and those cannot be opened. Amending
// nothing succeeds, also where the image is read-only.
func (i *image) CoAmend(_ *aio.Co, o *block.Options, _ bool) error {
	if o.HasSub(optEncrypt) {
		return qerr.New("image is not encrypted, can't amend")
	}
	return nil
}
