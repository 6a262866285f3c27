package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// snapshotSize is the fixed part of an entry of the snapshot table, in bytes.
const snapshotSize = 40

// maxSnapshotExtra bounds what an entry may hold that we do not know.
const maxSnapshotExtra = 1024

// snapshot is an internal snapshot.
type snapshot struct {
	l1Offset    int64
	l1Size      uint32
	id, name    string
	sec, nsec   uint32
	vmClock     uint64 // nanoseconds
	vmStateSize uint64
	diskSize    uint64
	icount      uint64
	extra       []byte // all of it, also what we do not know
	// tables are its L2 tables, read only if they are to be guarded.
	tables offsets
}

// loadSnapshots reads the snapshot table.
func (i *image) loadSnapshots(co *aio.Co) error {
	i.snapshots = nil
	at := int64(i.hdr.snapshotsOffset)
	start := at
	for n := range int(i.hdr.snapshots) {
		s, next, err := i.readSnapshot(co, at, n)
		if err != nil {
			return err
		}
		if next-start > maxSnapTable {
			return qerr.New("Snapshot table is too large")
		}
		i.snapshots = append(i.snapshots, s)
		at = next
	}
	if i.opts.overlap&overlapInactiveL2 == 0 {
		return nil
	}
	for n := range i.snapshots {
		s := &i.snapshots[n]
		if s.l1Size > maxL1Size/8 || s.l1Offset < 0 {
			continue
		}
		table, err := i.readTable(co, uint64(s.l1Offset), int64(s.l1Size))
		if err != nil {
			return err
		}
		s.tables = offsetsOf(offsetMask, table)
	}
	return nil
}

// readSnapshot reads one entry and tells where the next one is.
func (i *image) readSnapshot(co *aio.Co, at int64, n int) (s snapshot, next int64, err error) {
	read := func(offset, bytes int64) []byte {
		b := make([]byte, bytes)
		if err == nil {
			err = i.file.CoPreadv(co, offset, block.Vec{b}, 0)
		}
		return b
	}
	b := read(at, snapshotSize)
	s = snapshot{
		l1Offset:    int64(be.Uint64(b)),
		l1Size:      be.Uint32(b[8:]),
		sec:         be.Uint32(b[16:]),
		nsec:        be.Uint32(b[20:]),
		vmClock:     be.Uint64(b[24:]),
		vmStateSize: uint64(be.Uint32(b[32:])),
		diskSize:    i.hdr.size,
		icount:      1<<64 - 1,
	}
	idLen, nameLen, extraLen := int64(be.Uint16(b[12:])), int64(be.Uint16(b[14:])), int64(be.Uint32(b[36:]))
	if extraLen > maxSnapshotExtra {
		return s, 0, qerr.New("Too much extra metadata in snapshot table entry %d", n)
	}
	extra := read(at+snapshotSize, extraLen)
	if len(extra) >= 8 {
		s.vmStateSize = be.Uint64(extra)
	}
	if len(extra) >= 16 {
		s.diskSize = be.Uint64(extra[8:])
	}
	if len(extra) >= 24 {
		s.icount = be.Uint64(extra[16:])
	}
	s.extra = extra
	s.id = string(read(at+snapshotSize+extraLen, idLen))
	s.name = string(read(at+snapshotSize+extraLen+idLen, nameLen))
	if err != nil {
		return s, 0, qerr.Prepend(err, "Failed to read snapshot table: ")
	}
	return s, (at + snapshotSize + extraLen + idLen + nameLen + 7) &^ 7, nil
}

// snapshotTableSize is the length of the table in the file, in bytes.
func (i *image) snapshotTableSize() int64 {
	var size int64
	for n := range i.snapshots {
		s := &i.snapshots[n]
		size += (snapshotSize + int64(len(s.extra)+len(s.id)+len(s.name)) + 7) &^ 7
	}
	return size
}

// Snapshots lists the internal snapshots.
func (i *image) Snapshots(co *aio.Co) []block.SnapshotInfo {
	i.mu.lock(co)
	defer i.mu.unlock()
	var list []block.SnapshotInfo
	for n := range i.snapshots {
		s := &i.snapshots[n]
		list = append(list, block.SnapshotInfo{
			ID: s.id, Name: s.name, VMStateSize: s.vmStateSize,
			DateSec: s.sec, DateNsec: s.nsec, VMClockNsec: s.vmClock, Icount: s.icount,
		})
	}
	return list
}
