// Package dmlog reads and writes logs of the kernel's device-mapper target
// log-writes, which the driver blklogwrites records as well: every write to a
// disk in the order in which it took effect.
//
// # Format
//
// All numbers are little endian. A log is a row of sectors; how long they are
// stands in the superblock, sector 0:
//
//	 0  magic 0x6a736677736872
//	 8  version 1
//	16  number of entries
//	24  bytes in a sector, 32 bits
//
// From sector 1 on entry follows entry. Each begins with a sector of its own:
//
//	 0  first sector of the disk
//	 8  number of sectors
//	16  flags: flush 1, fua 2, discard 4, mark 8
//	24  length of data within this sector, in bytes
//
// and goes on with the sectors that were written, if it is no discard. A mark
// is a place somebody gave a name; its name follows the four numbers. Log and
// disk count in the same sectors.
//
// What stands behind the last counted entry means nothing: the number of
// entries is updated now and then, and a log that was cut short ends where it
// was right last.
//
// # Reading
//
// [Reader] goes through a log; [List] prints it; [Replay] does to an image
// what was done to the disk, up to any point, and [ReplayChecking] runs a
// command wherever the disk promised to be durable, so that every state in
// which a crash could leave it can be tried. All read as they go and hold no
// more than a buffer of memory.
package dmlog

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
)

const (
	magic   = 0x6a736677736872
	version = 1

	// superLen and entryLen are the bytes that mean something at the start of
	// a superblock and of an entry.
	superLen = 28
	entryLen = 32

	// MinSectorSize and MaxSectorSize bound the bytes in a sector.
	MinSectorSize = entryLen
	MaxSectorSize = 1 << 23
)

// Super is a log's superblock.
type Super struct {
	// Entries is the number of entries.
	Entries uint64
	// SectorSize is the bytes in a sector: a power of two from MinSectorSize
	// to MaxSectorSize.
	SectorSize uint32
}

// Put writes the superblock into a sector.
func (s Super) Put(sector []byte) {
	clear(sector)
	binary.LittleEndian.PutUint64(sector, magic)
	binary.LittleEndian.PutUint64(sector[8:], version)
	binary.LittleEndian.PutUint64(sector[16:], s.Entries)
	binary.LittleEndian.PutUint32(sector[24:], s.SectorSize)
}

// decodeSuper reads a superblock from the start of a log.
func decodeSuper(b []byte) (Super, error) {
	if binary.LittleEndian.Uint64(b) != magic {
		return Super{}, qerr.New("Invalid log superblock magic")
	}
	if v := binary.LittleEndian.Uint64(b[8:]); v != version {
		return Super{}, qerr.New("Unsupported log version %d", v)
	}
	s := Super{binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint32(b[24:])}
	return s, CheckSectorSize(uint64(s.SectorSize))
}

// CheckSectorSize refuses a number of bytes that cannot be a sector.
func CheckSectorSize(n uint64) error {
	if bits.OnesCount64(n) != 1 || n < MinSectorSize || n > MaxSectorSize {
		return qerr.New("Invalid log sector size %d", n)
	}
	return nil
}

// Flags say what an entry is. Without any it is a write.
type Flags uint64

// The flags.
const (
	// Flush: what was logged before is durable, before this entry's own data
	// is written.
	Flush Flags = 1 << iota
	// FUA: this entry's data is durable.
	FUA
	// Discard: the sectors were dropped; there is no data.
	Discard
	// Mark: a place with a name.
	Mark

	allFlags = Flush | FUA | Discard | Mark
)

var flagNames = [...]string{"flush", "fua", "discard", "mark"}

// String lists the flags, joined by commas.
func (f Flags) String() string {
	var names []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Entry is one entry of a log.
type Entry struct {
	// Sector and Sectors say where on the disk something was done.
	Sector, Sectors uint64
	Flags           Flags
	// NameLen is the length of a mark's name, in bytes.
	NameLen uint64
}

// Put writes the entry into its own sector.
func (e Entry) Put(sector []byte) {
	clear(sector)
	binary.LittleEndian.PutUint64(sector, e.Sector)
	binary.LittleEndian.PutUint64(sector[8:], e.Sectors)
	binary.LittleEndian.PutUint64(sector[16:], uint64(e.Flags))
	binary.LittleEndian.PutUint64(sector[24:], e.NameLen)
}

func decodeEntry(b []byte) Entry {
	return Entry{
		Sector:  binary.LittleEndian.Uint64(b),
		Sectors: binary.LittleEndian.Uint64(b[8:]),
		Flags:   Flags(binary.LittleEndian.Uint64(b[16:])),
		NameLen: binary.LittleEndian.Uint64(b[24:]),
	}
}

// DataSectors is the number of sectors with data behind the entry's own.
func (e Entry) DataSectors() uint64 {
	if e.Flags&Discard != 0 {
		return 0
	}
	return e.Sectors
}

// check refuses an entry that no writer makes: its offsets do not fit into
// any disk, or nobody knows what it means.
func (e Entry) check(number uint64, sectorSize uint32) error {
	most := math.MaxInt64 / uint64(sectorSize)
	switch {
	case e.Flags&^allFlags != 0:
		return qerr.New("Invalid flags 0x%x in log entry %d", uint64(e.Flags), number)
	case e.Sectors > most || e.Sector > most-e.Sectors:
		return qerr.New("Log entry %d is about sectors %d+%d, which no disk has", number, e.Sector, e.Sectors)
	case e.Flags&Mark != 0 && e.NameLen > uint64(sectorSize)-entryLen:
		return qerr.New("The name in log entry %d is longer than its sector", number)
	}
	return nil
}
