package luks

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
)

// AmendBegin takes the header for writing, and from those who read it.
func (v *volume) AmendBegin(l *aio.Lock) error {
	v.amending++
	return v.node.RefreshPerms(l)
}

// AmendEnd gives it back. That cannot fail.
func (v *volume) AmendEnd(l *aio.Lock) {
	v.amending--
	_ = v.node.RefreshPerms(l)
}

// CoAmend fills or erases key slots. Queries see the header as it was until all
// is done.
func (v *volume) CoAmend(co *aio.Co, o *block.Options, force bool) error {
	options, err := crypto.TakeAmendOptions(o)
	if err != nil {
		return err
	}
	options.Force, options.Opened = force, v.secret
	if !v.amend.TryLock() {
		co.Yield(v.amend.Lock)
	}
	defer v.amend.Unlock()
	next := *v.luks.Load()
	err = next.Amend(v.storage(co), options, v.node.Graph().Secret)
	v.luks.Store(&next)
	if err != nil {
		return err
	}
	return v.node.CoFlush(co)
}
