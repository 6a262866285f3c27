package qcow2

import (
	"maps"
	"slices"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// CoFlush writes the metadata that has changed. The block layer flushes the
// children behind it.
func (i *image) CoFlush(co *aio.Co) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	return i.writeBack(co)
}

// writeBack writes all metadata in the order that keeps the image whole at
// every point, and then frees what nothing refers to any more.
func (i *image) writeBack(co *aio.Co) error {
	if err := i.writeMapping(co); err != nil {
		return err
	}
	if !i.frees.pending() {
		return nil
	}
	if err := i.barrier(co); err != nil {
		return err
	}
	if err := i.release(co); err != nil {
		return err
	}
	return i.writeRefcounts(co)
}

func (i *image) writeMapping(co *aio.Co) error {
	if err := i.writeRefcounts(co); err != nil {
		return err
	}
	if err := i.l2.flush(co); err != nil {
		return err
	}
	return i.writeL1(co)
}

// writeRefcounts leaves them where they are if they may be too low on disk.
func (i *image) writeRefcounts(co *aio.Co) error {
	if i.dirtyBit {
		return nil
	}
	return i.refs.cache.flush(co)
}

// beforeMapping comes before L2 slices are written.
func (i *image) beforeMapping(co *aio.Co) error {
	if err := i.writeRefcounts(co); err != nil {
		return err
	}
	return i.barrier(co)
}

// writeL1 writes the sectors of the L1 table that have changed. The L2 tables
// that they name are durable first.
func (i *image) writeL1(co *aio.Co) error {
	if len(i.l1Dirty) == 0 {
		return nil
	}
	if err := i.beforeMapping(co); err != nil {
		return err
	}
	const perSector = sectorSize / 8
	for _, n := range slices.Sorted(maps.Keys(i.l1Dirty)) {
		b := block.AlignedMemory(sectorSize)
		for k := range int64(perSector) {
			if at := n*perSector + k; at < int64(i.l1.entries) {
				be.PutUint64(b[k*8:], i.l1.get(int(at)))
			}
		}
		if err := i.writeMeta(co, int64(i.hdr.l1Offset)+n*sectorSize, b, overlapActiveL1); err != nil {
			return err
		}
		delete(i.l1Dirty, n)
	}
	return nil
}
