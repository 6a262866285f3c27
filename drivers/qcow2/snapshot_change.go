package qcow2

import (
	"strconv"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CanSnapshot: data in a file of its own cannot be kept.
func (i *image) CanSnapshot() bool { return !i.external() }

// CoSnapshotCreate keeps what the disk holds now. No request may be under way.
//
// The marks of sole use go first, then clusters are counted once more, and at
// last the table names the snapshot: whenever that is interrupted, no cluster is
// overwritten that a snapshot needs. Meanwhile marks and counts disagree, which
// the header says.
func (i *image) CoSnapshotCreate(co *aio.Co, info block.SnapshotInfo) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	if len(i.snapshots) >= maxSnapshots {
		return qerr.From(syscall.EFBIG)
	}
	if err := i.modifying(co); err != nil {
		return err
	}
	lagged := i.dirtyBit
	if err := i.unsettled(co); err != nil {
		return err
	}
	s := snapshot{
		id: i.nextSnapshotID(), name: info.Name, sec: info.DateSec, nsec: info.DateNsec,
		vmClock: info.VMClockNsec, vmStateSize: info.VMStateSize, diskSize: i.hdr.size, icount: info.Icount,
		l1Size: uint32(i.l1.entries),
	}
	err := i.share(co)
	if err == nil {
		err = i.nameSnapshot(co, s)
		i.unsure = i.unsure || err != nil
	}
	if settled := i.settled(co, lagged); err == nil {
		err = settled
	}
	return err
}

// share counts one more use of everything that the active tables refer to. If
// it fails all is as before.
func (i *image) share(co *aio.Co) error {
	err := i.forEachEntry(co, i.clearCopied)
	if err == nil {
		err = i.writeBack(co)
	}
	if err == nil {
		err = i.countAgain(co)
	}
	if err != nil && i.forEachEntry(co, i.setCopied) != nil {
		i.unsure = true
	}
	return err
}

func (i *image) nameSnapshot(co *aio.Co, s snapshot) error {
	if err := i.copyL1(co, &s); err != nil {
		return err
	}
	return i.writeSnapshots(co, append(i.snapshots[:len(i.snapshots):len(i.snapshots)], s))
}

func (i *image) nextSnapshotID() string {
	last := 0
	for n := range i.snapshots {
		if id, err := strconv.Atoi(i.snapshots[n].id); err == nil {
			last = max(last, id)
		}
	}
	return strconv.Itoa(last + 1)
}

// forEachEntry visits the L1 table's entries in use, and after each those of
// its L2 table. What f returns takes the entry's place.
func (i *image) forEachEntry(co *aio.Co, f func(co *aio.Co, word uint64, l1 bool) (uint64, error)) error {
	for n, e := range i.l1.used() {
		if e&offsetMask == 0 {
			continue
		}
		word, err := f(co, e, true)
		if err != nil {
			return err
		}
		if word != e {
			i.setL1(n, word)
		}
		start := int64(n) << (i.geo.clusterBits + i.geo.l2Bits)
		for at := start; at < start+i.geo.clusterSize<<i.geo.l2Bits; at += i.geo.clusterSize << i.geo.sliceBits {
			if err := i.forEachInSlice(co, at, f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *image) forEachInSlice(co *aio.Co, at int64, f func(co *aio.Co, word uint64, l1 bool) (uint64, error)) error {
	s, err := i.sliceAt(co, at)
	if err != nil {
		return err
	}
	for k := range s.entries() {
		m := s.get(k)
		if m.word&(offsetMask|flagCompressed) == 0 {
			continue
		}
		word, err := f(co, m.word, false)
		if err != nil {
			return err
		}
		if word != m.word {
			m.word = word
			i.setEntry(s, k, m)
		}
	}
	return nil
}

func (i *image) clearCopied(_ *aio.Co, word uint64, _ bool) (uint64, error) {
	if word&flagCompressed != 0 {
		return word, nil
	}
	return word &^ flagCopied, nil
}

// setCopied marks what has only one use, and nothing else.
func (i *image) setCopied(co *aio.Co, word uint64, _ bool) (uint64, error) {
	if word&flagCompressed != 0 {
		return word, nil
	}
	uses, err := i.refs.get(co, int64(word&offsetMask)>>i.geo.clusterBits)
	if uses == 1 {
		return word | flagCopied, err
	}
	return word &^ flagCopied, err
}

// countAgain counts one more use of everything that the active tables refer
// to. If it fails the counts are as before.
func (i *image) countAgain(co *aio.Co) error {
	done := 0
	err := i.forEachEntry(co, func(co *aio.Co, word uint64, l1 bool) (uint64, error) {
		first, n := i.clustersOf(word, l1)
		if err := i.refs.add(co, first, n); err != nil {
			return word, err
		}
		done++
		return word, nil
	})
	if err == nil {
		return nil
	}
	_ = i.forEachEntry(co, func(co *aio.Co, word uint64, l1 bool) (uint64, error) {
		first, n := i.clustersOf(word, l1)
		for k := int64(0); k < n && done > 0; k++ {
			_, _ = i.refs.drop(co, first+k)
		}
		done--
		return word, nil
	})
	return err
}

// clustersOf are the clusters that an entry refers to.
func (i *image) clustersOf(word uint64, l1 bool) (first, n int64) {
	at, bytes := int64(word&offsetMask), i.geo.clusterSize
	if word&flagCompressed != 0 && !l1 {
		at, bytes = i.geo.compressedAt(word)
	}
	first = at >> i.geo.clusterBits
	return first, (at+bytes-1)>>i.geo.clusterBits - first + 1
}

// copyL1 writes the snapshot's own L1 table.
func (i *image) copyL1(co *aio.Co, s *snapshot) error {
	clusters := i.geo.clusters(i.l1.bytes())
	if clusters == 0 {
		return nil
	}
	at, err := i.alloc(co, clusters, "L1 table")
	if err != nil {
		return err
	}
	s.l1Offset = at
	return i.writeMeta(co, at, i.l1.encode(flagCopied), overlapNone)
}

// writeSnapshots writes a new table of snapshots and makes it the image's.
func (i *image) writeSnapshots(co *aio.Co, list []snapshot) error {
	raw := encodeSnapshots(list)
	var at int64
	if len(raw) > 0 {
		if len(raw) > maxSnapTable {
			return qerr.From(syscall.EFBIG)
		}
		clusters := i.geo.clusters(int64(len(raw)))
		var err error
		if at, err = i.alloc(co, clusters, "snapshot table"); err != nil {
			return err
		}
		if err := i.writeMeta(co, at, raw, overlapNone); err != nil {
			return err
		}
	}
	if err := i.writeMapping(co); err != nil {
		return err
	}
	if err := i.barrier(co); err != nil {
		return err
	}
	b := make([]byte, 12)
	be.PutUint32(b, uint32(len(list)))
	be.PutUint64(b[4:], uint64(at))
	if err := i.writeHeader(co, offsetSnapshots, b); err != nil {
		return err
	}
	if err := i.barrier(co); err != nil {
		return err
	}
	if old := i.snapshotTableSize(); old > 0 {
		i.frees.add(int64(i.hdr.snapshotsOffset), old, freeSnapshot)
	}
	i.hdr.snapshots, i.hdr.snapshotsOffset = uint32(len(list)), uint64(at)
	i.snapshots = list
	return i.writeBack(co)
}

// encodeSnapshots makes the table. What entries held that we do not know is
// kept.
func encodeSnapshots(list []snapshot) []byte {
	var b []byte
	for n := range list {
		s := &list[n]
		extra := make([]byte, max(24, len(s.extra)))
		copy(extra, s.extra)
		be.PutUint64(extra, s.vmStateSize)
		be.PutUint64(extra[8:], s.diskSize)
		be.PutUint64(extra[16:], s.icount)
		s.extra = extra
		head := make([]byte, snapshotSize)
		be.PutUint64(head, uint64(s.l1Offset))
		be.PutUint32(head[8:], s.l1Size)
		be.PutUint16(head[12:], uint16(len(s.id)))
		be.PutUint16(head[14:], uint16(len(s.name)))
		be.PutUint32(head[16:], s.sec)
		be.PutUint32(head[20:], s.nsec)
		be.PutUint64(head[24:], s.vmClock)
		be.PutUint32(head[32:], uint32(min(s.vmStateSize, 1<<32-1)))
		be.PutUint32(head[36:], uint32(len(extra)))
		b = append(b, head...)
		b = append(b, extra...)
		b = append(b, s.id...)
		b = append(b, s.name...)
		b = append(b, make([]byte, -len(b)&7)...)
	}
	return b
}

// CoSnapshotDelete forgets a snapshot and gives its clusters up. No request may
// be under way.
//
// The table forgets it first: until then all it needs stays counted. Then marks
// of sole use and counts disagree for a while, which the header says.
func (i *image) CoSnapshotDelete(co *aio.Co, id string) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	if err := i.modifying(co); err != nil {
		return err
	}
	list := make([]snapshot, 0, len(i.snapshots))
	var gone *snapshot
	for n := range i.snapshots {
		if s := i.snapshots[n]; s.id == id && gone == nil {
			gone = &s
		} else {
			list = append(list, s)
		}
	}
	if gone == nil {
		return qerr.From(syscall.ENOENT)
	}
	if gone.l1Size > maxL1Size/8 || gone.l1Offset < 0 || i.geo.inCluster(gone.l1Offset) != 0 {
		return qerr.From(syscall.EFBIG)
	}
	table, err := i.readTable(co, uint64(gone.l1Offset), int64(gone.l1Size))
	if err != nil {
		return err
	}
	lagged := i.dirtyBit
	if err := i.unsettled(co); err != nil {
		return err
	}
	if err = i.writeSnapshots(co, list); err == nil {
		err = i.giveUpSnapshot(co, gone, table)
	}
	i.unsure = i.unsure || err != nil
	if settled := i.settled(co, lagged); err == nil {
		err = settled
	}
	return err
}

// giveUpSnapshot gives up what a snapshot had that is not named any more.
func (i *image) giveUpSnapshot(co *aio.Co, gone *snapshot, table []uint64) error {
	if err := i.freeTables(co, table); err != nil {
		return err
	}
	if n := int64(gone.l1Size) * 8; n > 0 {
		i.frees.add(gone.l1Offset, n, freeSnapshot)
	}
	if err := i.writeBack(co); err != nil {
		return err
	}
	return i.forEachEntry(co, i.setCopied)
}

// freeTables gives up what an L1 table refers to.
func (i *image) freeTables(co *aio.Co, l1 []uint64) error {
	for _, e := range l1 {
		at := int64(e & offsetMask)
		if at == 0 || i.geo.inCluster(at) != 0 {
			continue
		}
		table, err := i.readTable(co, uint64(at), i.geo.clusterSize/8)
		if err != nil {
			return err
		}
		for n := 0; n < len(table); n += int(i.geo.entrySize / 8) {
			i.freeEntry(co, mapping{word: table[n]}, freeSnapshot)
		}
		i.frees.add(at, i.geo.clusterSize, freeSnapshot)
		if i.frees.held > maxHeld {
			if err := i.writeBack(co); err != nil {
				return err
			}
		}
	}
	return nil
}
