package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// refcounts counts the uses of each cluster of the file: a table, kept in
// memory, of blocks, which are cached. It is guarded by the image's mutex.
type refcounts struct {
	img   *image
	table []uint64
	cache *cache
	// blocks are the places of all blocks, for the check of overlaps.
	blocks offsets
	// hint is the cluster from which on free ones are looked for.
	hint int64
}

// blockOf finds the block that counts a cluster; nil if there is none yet.
func (r *refcounts) blockOf(co *aio.Co, cluster int64) (*table, error) {
	at := r.blockOffset(cluster)
	if at == 0 {
		return nil, nil
	}
	if at&(r.img.geo.clusterSize-1) != 0 {
		return nil, r.img.corrupt(co, true, at, r.img.geo.clusterSize,
			"Refblock offset %s unaligned (reftable index: %s)", hex(at), hex(cluster>>r.img.geo.refBits))
	}
	return r.cache.get(co, at)
}

func (r *refcounts) blockOffset(cluster int64) int64 {
	i := cluster >> r.img.geo.refBits
	if i >= int64(len(r.table)) {
		return 0
	}
	return int64(r.table[i] &^ reservedRef)
}

func (r *refcounts) inBlock(cluster int64) int64 {
	return cluster & (1<<r.img.geo.refBits - 1)
}

// readRefcount and writeRefcount know all widths. Of those below a byte the
// lowest bits come first.
func readRefcount(block []byte, order uint, i int64) uint64 {
	switch order {
	case 0, 1, 2:
		width := uint(1) << order
		bit := uint(i) << order
		return uint64(block[bit/8]>>(bit%8)) & (1<<width - 1)
	case 3:
		return uint64(block[i])
	case 4:
		return uint64(be.Uint16(block[i*2:]))
	case 5:
		return uint64(be.Uint32(block[i*4:]))
	}
	return be.Uint64(block[i*8:])
}

func writeRefcount(block []byte, order uint, i int64, n uint64) {
	switch order {
	case 0, 1, 2:
		width := uint(1) << order
		bit := uint(i) << order
		mask := byte(1<<width-1) << (bit % 8)
		block[bit/8] = block[bit/8]&^mask | byte(n)<<(bit%8)&mask
	case 3:
		block[i] = byte(n)
	case 4:
		be.PutUint16(block[i*2:], uint16(n))
	case 5:
		be.PutUint32(block[i*4:], uint32(n))
	default:
		be.PutUint64(block[i*8:], n)
	}
}

// get is the number of uses of a cluster.
func (r *refcounts) get(co *aio.Co, cluster int64) (uint64, error) {
	t, err := r.blockOf(co, cluster)
	if t == nil || err != nil {
		return 0, err
	}
	return readRefcount(t.data, r.img.geo.refOrder, r.inBlock(cluster)), nil
}

// used is how many of the first clusters that a block counts are in use.
func (r *refcounts) used(t *table, clusters int64) (n int64) {
	if t == nil {
		return 0
	}
	for k := range min(clusters, 1<<r.img.geo.refBits) {
		if readRefcount(t.data, r.img.geo.refOrder, k) != 0 {
			n++
		}
	}
	return n
}

// add counts one more use of each of some clusters. If it fails nothing has
// changed.
func (r *refcounts) add(co *aio.Co, first, n int64) error {
	r.img.file.Debug(block.DebugRefblockAlloc)
	for i := range n {
		if err := r.addOne(co, first+i); err != nil {
			for j := range i {
				// What was counted up can be counted down.
				_, _ = r.drop(co, first+j)
			}
			return err
		}
	}
	return nil
}

func (r *refcounts) addOne(co *aio.Co, cluster int64) error {
	if err := r.ensureBlock(co, cluster>>r.img.geo.refBits); err != nil {
		return err
	}
	t, err := r.blockOf(co, cluster)
	if err != nil {
		return err
	}
	i := r.inBlock(cluster)
	old := readRefcount(t.data, r.img.geo.refOrder, i)
	if old >= r.img.geo.maxRefcount() {
		return qerr.From(syscall.EINVAL)
	}
	writeRefcount(t.data, r.img.geo.refOrder, i, old+1)
	r.cache.setDirty(t)
	return nil
}

// drop counts one use less and tells how many are left.
func (r *refcounts) drop(co *aio.Co, cluster int64) (uint64, error) {
	t, err := r.blockOf(co, cluster)
	if err != nil {
		return 0, err
	}
	if t == nil {
		return 0, qerr.From(syscall.EINVAL)
	}
	i := r.inBlock(cluster)
	old := readRefcount(t.data, r.img.geo.refOrder, i)
	if old == 0 {
		return 0, qerr.From(syscall.EINVAL)
	}
	writeRefcount(t.data, r.img.geo.refOrder, i, old-1)
	r.cache.setDirty(t)
	if old == 1 {
		r.hint = min(r.hint, cluster)
	}
	return old - 1, nil
}

// find finds the first n free clusters from the hint on that lie side by side.
func (r *refcounts) find(co *aio.Co, n int64) (first int64, err error) {
	limit := int64(maxHostOffset) >> r.img.geo.clusterBits
	got := int64(0)
	for at := r.hint; at < limit; {
		t, err := r.blockOf(co, at)
		if err != nil {
			return 0, err
		}
		end := (at>>r.img.geo.refBits + 1) << r.img.geo.refBits
		for ; at < end; at++ {
			if t != nil && readRefcount(t.data, r.img.geo.refOrder, r.inBlock(at)) != 0 {
				got = 0
				continue
			}
			if got == 0 {
				first = at
			}
			if got++; got == n {
				return first, nil
			}
		}
	}
	return 0, qerr.From(syscall.EFBIG)
}

// alloc takes n free clusters that lie side by side and returns where in the
// file they begin. Gaps in front of them that are too small are passed over until
// something there is freed, or the image is opened again (observed: transcript
// own/qcow2/gaps).
func (r *refcounts) alloc(co *aio.Co, n int64) (offset int64, err error) {
	for {
		first, err := r.find(co, n)
		if err != nil {
			return 0, err
		}
		// Blocks that are missing go behind what was found, as in the reference.
		hint := r.hint
		r.hint = first + n
		ready, err := r.ensureBlocks(co, first, n)
		if ready {
			err = r.add(co, first, n)
		}
		if ready && err == nil {
			return first << r.img.geo.clusterBits, nil
		}
		r.hint = hint // a table that has grown may have taken what was found
		if err != nil {
			return 0, err
		}
	}
}

// allocAt takes n clusters at the given place, if they are free.
func (r *refcounts) allocAt(co *aio.Co, offset, n int64) (int64, error) {
	first := offset >> r.img.geo.clusterBits
	if _, err := r.ensureBlocks(co, first, n); err != nil {
		return 0, err
	}
	got := int64(0)
	for got < n {
		uses, err := r.get(co, first+got)
		if err != nil {
			return 0, err
		}
		if uses != 0 {
			break
		}
		got++
	}
	return got, r.add(co, first, got)
}

// ensureBlocks makes the blocks that count some clusters. It is false if one
// had to be made.
func (r *refcounts) ensureBlocks(co *aio.Co, first, n int64) (ready bool, err error) {
	ready = true
	for i := first >> r.img.geo.refBits; i <= (first+n-1)>>r.img.geo.refBits; i++ {
		if i < int64(len(r.table)) && r.table[i]&^reservedRef != 0 {
			continue
		}
		ready = false
		if err := r.ensureBlock(co, i); err != nil {
			return false, err
		}
	}
	return ready, nil
}

// ensureBlock makes the block with the given index in the table. It is
// durable, and its own cluster counted, before the table names it.
func (r *refcounts) ensureBlock(co *aio.Co, index int64) error {
	for index >= int64(len(r.table)) {
		if err := r.grow(co, index); err != nil {
			return err
		}
	}
	if r.table[index]&^reservedRef != 0 {
		return nil
	}
	cluster, err := r.find(co, 1)
	if err != nil {
		return err
	}
	// The block of the cluster found may be missing as well: that one is made
	// first, behind it. If the table has to grow, it may go there.
	if of := cluster >> r.img.geo.refBits; of != index && r.blockOffset(cluster) == 0 {
		if of >= int64(len(r.table)) {
			if err := r.grow(co, of); err != nil {
				return err
			}
			return r.ensureBlock(co, index)
		}
		r.hint = cluster + 1
		if err := r.ensureBlock(co, of); err != nil {
			return err
		}
	}
	offset := cluster << r.img.geo.clusterBits
	counts := cluster>>r.img.geo.refBits == index
	if !counts {
		if err := r.addOne(co, cluster); err != nil {
			return err
		}
	}
	r.img.file.Debug(block.DebugRefblockAllocWrite)
	if err := r.writeNewBlock(co, offset, func(b []byte) {
		if counts {
			writeRefcount(b, r.img.geo.refOrder, r.inBlock(cluster), 1)
		}
	}); err != nil {
		return err
	}
	if err := r.cache.flush(co); err != nil {
		return err
	}
	if err := r.img.barrier(co); err != nil {
		return err
	}
	r.img.file.Debug(block.DebugRefblockAllocHookup)
	if err := r.writeTableEntry(co, index, uint64(offset)); err != nil {
		return err
	}
	r.table[index] = uint64(offset)
	r.blocks.add(offset)
	return nil
}

// writeNewBlock writes a block where nothing refers to yet.
func (r *refcounts) writeNewBlock(co *aio.Co, offset int64, fill func([]byte)) error {
	b := block.AlignedMemory(int(r.img.geo.clusterSize))
	fill(b)
	r.cache.forget(offset, r.img.geo.clusterSize)
	r.img.used(offset + r.img.geo.clusterSize)
	return r.img.writeMeta(co, offset, b, overlapNone)
}

func (r *refcounts) writeTableEntry(co *aio.Co, index int64, v uint64) error {
	// Whole sectors: a torn write leaves the others as they are.
	first := index * 8 / sectorSize * sectorSize / 8
	b := block.AlignedMemory(sectorSize)
	for i := range int64(sectorSize / 8) {
		if first+i < int64(len(r.table)) {
			be.PutUint64(b[i*8:], r.table[first+i])
		}
	}
	be.PutUint64(b[(index-first)*8:], v)
	return r.img.writeMeta(co, int64(r.img.hdr.refTableOffset)+first*8, b, overlapRefTable)
}

// grow puts a longer table behind everything that the present one counts. It
// brings the blocks along that count itself and them; the header names it when
// all is durable.
func (r *refcounts) grow(co *aio.Co, index int64) error {
	r.img.file.Debug(block.DebugReftableGrow)
	g := &r.img.geo
	start := max(r.img.end>>g.clusterBits, int64(len(r.table))<<g.refBits)
	p, err := r.planGrowth(start, index)
	if err != nil {
		return err
	}
	if err := r.writeGrowth(co, p); err != nil {
		return err
	}
	if err := r.img.barrier(co); err != nil {
		return err
	}
	old := [2]int64{int64(r.img.hdr.refTableOffset), int64(r.img.hdr.refTableClusters)}
	r.img.file.Debug(block.DebugRefblockAllocSwitchTable)
	if err := r.img.moveRefTable(co, start<<g.clusterBits, p.tableClusters); err != nil {
		return err
	}
	r.table = p.table
	for i := range p.blocks {
		r.blocks.add(p.block(g, i))
	}
	r.img.file.Debug(block.DebugClusterFree)
	r.img.frees.add(old[0], old[1]<<g.clusterBits, freeOther)
	return nil
}

// growth is a longer table and its new blocks, which follow it in the file.
type growth struct {
	start, tableClusters, blocks int64
	table                        []uint64
}

func (p *growth) end() int64 { return p.start + p.tableClusters + p.blocks }

// block is where the i-th new block goes.
func (p *growth) block(g *geometry, i int64) int64 {
	return (p.start + p.tableClusters + i) << g.clusterBits
}

func (r *refcounts) planGrowth(start, index int64) (*growth, error) {
	g := &r.img.geo
	perCluster := g.clusterSize / 8
	p := &growth{start: start}
	first := start >> g.refBits
	for {
		last := (p.end()-1)>>g.refBits + 1 // with one to spare
		entries := max(index, last, int64(len(r.table))*3/2) + 1
		p.tableClusters = (entries + perCluster - 1) / perCluster
		if p.tableClusters<<g.clusterBits > maxRefTableSize {
			return nil, qerr.From(syscall.EFBIG)
		}
		blocks := (p.end()-1)>>g.refBits - first + 1
		if blocks == p.blocks {
			break
		}
		p.blocks = max(p.blocks, blocks)
	}
	p.table = make([]uint64, p.tableClusters*perCluster)
	copy(p.table, r.table)
	for i := range p.blocks {
		p.table[first+i] = uint64(p.block(g, i))
	}
	return p, nil
}

func (r *refcounts) writeGrowth(co *aio.Co, p *growth) error {
	g := &r.img.geo
	r.img.used(p.end() << g.clusterBits)
	r.img.file.Debug(block.DebugRefblockAllocWriteBlocks)
	for i := range p.blocks {
		of := p.start>>g.refBits + i
		err := r.writeNewBlock(co, p.block(g, i), func(data []byte) {
			for at := p.start; at < p.end(); at++ {
				if at>>g.refBits == of {
					writeRefcount(data, g.refOrder, r.inBlock(at), 1)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	raw := block.AlignedMemory(int(p.tableClusters << g.clusterBits))
	for i, v := range p.table {
		be.PutUint64(raw[i*8:], v)
	}
	r.img.file.Debug(block.DebugRefblockAllocWriteTable)
	return r.img.writeMeta(co, p.start<<g.clusterBits, raw, overlapNone)
}
