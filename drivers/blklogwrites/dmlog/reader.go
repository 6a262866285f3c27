package dmlog

import (
	"io"

	"github.com/qmpblock/qmpblock/qerr"
)

// Record is one entry as a [Reader] found it.
type Record struct {
	Entry
	// Number counts the entries of the log from 0.
	Number uint64
	// Name is a mark's.
	Name string
	// Offset and Length say in bytes where on the disk something was done.
	Offset, Length int64
	// data is where in the log the data begins.
	data int64
}

// DataLen is the bytes of data that the entry has in the log.
func (r *Record) DataLen() int64 {
	if r.Flags&Discard != 0 {
		return 0
	}
	return r.Length
}

// Reader goes through a log from the first entry to the last.
type Reader struct {
	log    io.ReaderAt
	size   int64
	super  Super
	head   []byte
	number uint64
	at     int64
}

// NewReader reads the superblock of a log of size bytes.
func NewReader(log io.ReaderAt, size int64) (*Reader, error) {
	head := make([]byte, superLen)
	// A log that was never written to is shorter than its superblock, and
	// has the wrong magic as well.
	if n, err := log.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, qerr.Prepend(err, "Could not read log superblock: ")
	} else if err == io.EOF {
		clear(head[n:])
	}
	s, err := decodeSuper(head)
	if err != nil {
		return nil, err
	}
	return &Reader{log: log, size: size, super: s, head: make([]byte, s.SectorSize), at: int64(s.SectorSize)}, nil
}

// Super is the log's superblock.
func (r *Reader) Super() Super { return r.super }

// End is where in the log the entries end that were read so far, in bytes.
func (r *Reader) End() int64 { return r.at }

// Next returns the next entry, and io.EOF behind the last one. Any other error
// tells what is wrong with the log, and where.
func (r *Reader) Next() (*Record, error) {
	if r.number == r.super.Entries {
		return nil, io.EOF
	}
	sector := int64(r.super.SectorSize)
	if r.at > r.size-sector {
		return nil, r.cutShort(r.number)
	}
	if _, err := r.log.ReadAt(r.head, r.at); err != nil && err != io.EOF {
		return nil, qerr.Prepend(err, "Failed to read log entry %d: ", r.number)
	}
	rec := &Record{Entry: decodeEntry(r.head), Number: r.number, data: r.at + sector}
	if err := rec.check(r.number, r.super.SectorSize); err != nil {
		return nil, err
	}
	rec.Offset, rec.Length = int64(rec.Sector)*sector, int64(rec.Sectors)*sector
	if rec.DataLen() > r.size-rec.data {
		return nil, r.cutShort(r.number)
	}
	if rec.Flags&Mark != 0 {
		rec.Name = string(r.head[entryLen:][:rec.NameLen])
	}
	r.number++
	r.at = rec.data + rec.DataLen()
	return rec, nil
}

func (r *Reader) cutShort(number uint64) error {
	return qerr.New("Log entry %d of %d at byte %d goes beyond the end of the log (%d bytes)",
		number, r.super.Entries, r.at, r.size)
}

// Data is what the entry wrote.
func (r *Reader) Data(rec *Record) *io.SectionReader {
	return io.NewSectionReader(r.log, rec.data, rec.DataLen())
}
