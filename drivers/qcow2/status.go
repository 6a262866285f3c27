package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// CoBlockStatus tells what the entries say. Where encrypted data is in the file
// is no use to anybody. Only where clusters are allocated
// that have no data yet, the file is asked as well.
func (i *image) CoBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (block.Status, error) {
	i.mu.lock(co)
	e, err := i.lookup(co, offset, bytes)
	hollow := err == nil && i.isHollow(co) && wantZero && e.kind == kindNormal && i.crypt == nil
	i.mu.unlock()
	if err != nil {
		return block.Status{}, err
	}
	st := block.Status{Bytes: e.bytes}
	if e.kind.placed() && i.crypt == nil {
		st.Flags |= block.StatusOffsetValid
		st.Map, st.File = e.host, i.data.Node()
	}
	switch e.kind {
	case kindZero, kindZeroAllocated:
		st.Flags |= block.StatusZero
	case kindNormal:
		st.Flags |= block.StatusData
		if hollow {
			st.Flags |= block.StatusRecurse
		}
	case kindCompressed:
		st.Flags |= block.StatusData | block.StatusCompressed
	}
	return st, nil
}

// isHollow tells whether clearly more clusters are counted than the file takes
// on disk, as when metadata is preallocated. It is found out once, by the first who
// asks for anything: he waits for the medium, which users of jobs see
// (observed: own/jobs/first-status).
func (i *image) isHollow(co *aio.Co) bool {
	if !i.hollowKnown {
		i.hollow, i.hollowKnown = i.findHollow(co), true
	}
	return i.hollow
}

func (i *image) findHollow(co *aio.Co) bool {
	length, err := i.file.Node().CoGetLength(co)
	if err != nil {
		return false
	}
	onDisk, err := i.file.Node().CoGetAllocatedFileSize(co)
	if err != nil {
		return false
	}
	most := onDisk >> i.geo.clusterBits
	most = max(most*10/9, most+2)
	counted := int64(0)
	for c := int64(0); c < i.geo.clusters(length) && counted < most; c += 1 << i.geo.refBits {
		t, err := i.refs.blockOf(co, c)
		if err != nil {
			return false
		}
		counted += i.refs.used(t, i.geo.clusters(length)-c)
	}
	return counted >= most
}
