package blklogwrites

import (
	"io"
	"sync"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites/dmlog"
	"github.com/qmpblock/qmpblock/qerr"
)

// log is the end of a log, where entries are appended.
type log struct {
	child    *block.Child
	interval uint64

	// mu is held while an entry is written: only then is its place certain,
	// and the superblock counts whole entries alone. The sector size is fixed.
	mu    sync.Mutex
	super dmlog.Super
	end   int64 // where the next entry goes, in bytes
	saved uint64
	buf   []byte // one sector
}

// begin finds where the first entry goes: at the start of a new log with
// sectors of the given size, or behind what the log has.
func (g *log) begin(l *aio.Lock, sectorSize uint64, appending bool) error {
	if err := dmlog.CheckSectorSize(sectorSize); err != nil {
		return err
	}
	g.super.SectorSize, g.end = uint32(sectorSize), int64(sectorSize)
	if !appending {
		return nil
	}
	length, err := g.child.Node().GetLength(l)
	if err != nil {
		return qerr.Prepend(err, "Could not get log size: ")
	}
	if length == 0 {
		return nil
	}
	_, err = aio.Mixed(l, g.child.Node().Context(), "log_find_end", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, g.walk(childReader{co, g.child}, length)
	})
	return err
}

// walk goes through the log that is there, to where it ends.
func (g *log) walk(from io.ReaderAt, length int64) error {
	r, err := dmlog.NewReader(from, length)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = r.Next()
	}
	if err != io.EOF {
		return err
	}
	g.super, g.saved, g.end = r.Super(), r.Super().Entries, r.End()
	return nil
}

// childReader reads a child from within a coroutine.
type childReader struct {
	co    *aio.Co
	child *block.Child
}

func (r childReader) ReadAt(b []byte, at int64) (int, error) {
	if err := r.child.CoPreadv(r.co, at, block.Vec{b}, 0); err != nil {
		return 0, err
	}
	return len(b), nil
}

// append writes an entry, and the superblock if it is time. v is the data;
// without it an entry with data has zeroes.
func (g *log) append(co *aio.Co, e dmlog.Entry, v block.Vec) error {
	g.lock(co)
	defer g.mu.Unlock()
	if err := g.write(co, e, v); err != nil {
		return err
	}
	sector := int64(g.super.SectorSize)
	g.end += sector + int64(e.DataSectors())*sector
	g.super.Entries++
	if e.Flags&dmlog.Flush != 0 || g.super.Entries%g.interval == 0 {
		return g.saveSuper(co)
	}
	return nil
}

// lock waits with the graph's lock released: whoever is writing an entry may
// have given it up as well and need it again.
func (g *log) lock(co *aio.Co) {
	if !g.mu.TryLock() {
		co.Yield(g.mu.Lock)
	}
}

func (g *log) write(co *aio.Co, e dmlog.Entry, v block.Vec) error {
	sector := int64(g.super.SectorSize)
	data := int64(e.DataSectors()) * sector
	if g.end > 1<<63-1-sector-data {
		return qerr.From(syscall.EFBIG)
	}
	e.Put(g.sector())
	whole := append(block.Vec{g.buf}, v...)
	if err := g.child.CoPwritev(co, g.end, whole, 0); err != nil || v != nil || data == 0 {
		return err
	}
	return g.child.CoPwriteZeroes(co, g.end+sector, data, 0)
}

func (g *log) saveSuper(co *aio.Co) error {
	g.super.Put(g.sector())
	if err := g.child.CoPwritev(co, 0, block.Vec{g.buf}, 0); err != nil {
		return err
	}
	g.saved = g.super.Entries
	return nil
}

// sector is memory for one sector, fit for direct I/O.
func (g *log) sector() []byte {
	if g.buf == nil {
		g.buf = block.AlignedMemory(int(g.super.SectorSize))
	}
	return g.buf
}

// close counts entries that no flush has counted. Nobody is there to be told
// that it failed; then the log is as after a kill.
func (g *log) close(l *aio.Lock) {
	if g.super.Entries == g.saved {
		return
	}
	_, _ = aio.Mixed(l, g.child.Node().Context(), "log_close", func(co *aio.Co) (struct{}, error) {
		g.lock(co)
		defer g.mu.Unlock()
		return struct{}{}, g.saveSuper(co)
	})
}
