package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// CoBlockStatus tells what the entries say.
func (i *image) CoBlockStatus(co *aio.Co, _ bool, offset, bytes int64) (block.Status, error) {
	i.mu.lock(co)
	e, err := i.lookup(co, offset, bytes)
	i.mu.unlock()
	if err != nil {
		return block.Status{}, err
	}
	st := block.Status{Bytes: e.bytes}
	if e.kind.placed() {
		st.Flags |= block.StatusOffsetValid
		st.Map, st.File = e.host, i.data.Node()
	}
	switch e.kind {
	case kindZero, kindZeroAllocated:
		st.Flags |= block.StatusZero
	case kindNormal:
		st.Flags |= block.StatusData
		if !i.external() || i.hdr.dataRaw() {
			st.Flags |= block.StatusRecurse
		}
	case kindCompressed:
		st.Flags |= block.StatusData | block.StatusCompressed
	}
	return st, nil
}
