package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// CoPreadv reads.
func (i *image) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	flags &= block.ReqImmediate
	bytes := v.Len()
	for done := int64(0); done < bytes; {
		n, err := i.readExtent(co, offset+done, v, done, bytes-done, flags)
		if err != nil {
			return err
		}
		done += n
	}
	return nil
}

// readExtent reads what is of one kind at an offset, into v from skip on.
func (i *image) readExtent(co *aio.Co, offset int64, v block.Vec, skip, bytes int64, flags block.ReqFlags) (int64, error) {
	if err := i.enter(co, offset, flags); err != nil {
		return 0, err
	}
	e, err := i.lookup(co, offset, bytes)
	epoch := i.frees.pin()
	i.mu.unlock()
	defer i.frees.unpin(epoch)
	if err != nil {
		return 0, err
	}
	v = v.Slice(skip, e.bytes)
	switch e.kind {
	case kindNormal:
		i.file.Debug(block.DebugReadAIO)
		return e.bytes, i.readData(co, offset, e.host, v, flags)
	case kindCompressed:
		if flags != 0 {
			return 0, errWouldWait
		}
		return e.bytes, i.readCompressed(co, e.first.word, i.geo.inCluster(offset), v)
	case kindUnallocated, kindReserved:
		if b := i.node.Backing(); b != nil {
			i.file.Debug(block.DebugReadBackingAIO)
			return e.bytes, b.CoPreadv(co, offset, v, flags)
		}
	}
	v.Zero()
	return e.bytes, nil
}

// readCompressed reads a part of a compressed cluster.
func (i *image) readCompressed(co *aio.Co, word uint64, from int64, v block.Vec) error {
	at, size := i.geo.compressedAt(word)
	packed := i.getBuffer(size)
	defer i.putBuffer(packed)
	i.file.Debug(block.DebugReadCompressed)
	if err := i.file.CoPreadv(co, at, block.Vec{*packed}, 0); err != nil {
		return err
	}
	whole := i.getBuffer(i.geo.clusterSize)
	defer i.putBuffer(whole)
	if err := i.codec.decompress(*whole, *packed); err != nil {
		return err
	}
	v.CopyFrom((*whole)[from:])
	return nil
}

// getBuffer returns memory of at most two clusters.
func (i *image) getBuffer(bytes int64) *[]byte {
	b, ok := i.buffers.Get().(*[]byte)
	if !ok {
		m := block.AlignedMemory(int(2 * i.geo.clusterSize))
		b = &m
	}
	*b = (*b)[:bytes]
	return b
}

func (i *image) putBuffer(b *[]byte) {
	*b = (*b)[:cap(*b)]
	i.buffers.Put(b)
}
