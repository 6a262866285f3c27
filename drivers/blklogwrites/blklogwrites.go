// Package blklogwrites is a filter that logs what is written to a disk, so that
// every state in which a crash might have left it can be brought back and
// tried. Package dmlog has the log's format, that of the kernel's
// device-mapper target log-writes, and reads such logs.
//
// # Options
//
//   - file: the disk. All requests go there.
//   - log: where the log is written; nobody else may write there or resize it.
//   - log-sector-size: bytes in a sector, a power of two from 32 to 8388608, by
//     default 512. Requests are aligned to it before they are logged.
//   - log-append: go on with the log that is there, by default false; an empty
//     one is begun. Not together with log-sector-size, which the log knows.
//   - log-super-update-interval: after how many entries the number of entries
//     in the superblock is updated, 1 … 2^64-1, by default 4096. Flushes update
//     it too.
//
// The node cannot be reopened.
//
// # What is logged
//
// A write, a write of zeroes or a discard is logged once the disk has done it,
// also when the disk failed, since part of it may have been done. Of requests
// which overlap, the later one waits, so that the order in the log is the one
// on the disk. Entries are written one after the other: a request ends when
// the disk has done it and the log holds it. If the log cannot be written, the
// request fails, and the next entry takes the place of the one that is lost.
//
// A flush is logged before the disk and the log are flushed: what comes before
// it in the log is what it covers. Writes which must be durable at once (FUA)
// are logged as such where the disk can do them, and are otherwise a write and
// a flush. Without flushes (cache.no-flush) none are logged.
//
// After a kill the log ends with the last entry that the superblock counts,
// and can be read and appended to.
//
// # The reference
//
// Logs are the same byte for byte, but for these differences. The reference does
// not log that a write was FUA. It skips the flush behind a write that must be
// durable when nothing else was written since the last one. It counts entries
// that could not be written. Closing a node without flushes, it leaves entries
// uncounted. It goes on with logs that are shorter than their entries, and
// aborts on discards which are not aligned to the log's sectors.
package blklogwrites

import (
	"errors"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites/dmlog"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	optLog            = "log"
	optSectorSize     = "log-sector-size"
	optAppend         = "log-append"
	optUpdateInterval = "log-super-update-interval"

	defaultSectorSize     = 512
	defaultUpdateInterval = 4096
)

// Driver is the driver blklogwrites.
func Driver() *block.Driver {
	return &block.Driver{
		Name:          "blklogwrites",
		Kind:          block.Filter,
		StrongOptions: []string{optSectorSize, optAppend},
		Open:          open,
	}
}

// filter is one node.
type filter struct {
	file *block.Child
	log  log
	busy ranges
}

func open(a *block.OpenArgs) (block.Instance, error) {
	f := &filter{}
	var err error
	if f.file, err = a.File(); err != nil {
		return nil, err
	}
	if f.log.child, err = a.Child(optLog, block.RoleData|block.RoleMetadata, false); err != nil {
		return nil, err
	}
	if err := f.log.open(a); err != nil {
		// The log's node is given up before all else (observed:
		// own/jobs/drains-failed).
		a.Graph().DrainAll(a.Lock)
		return nil, err
	}
	return f, nil
}

// open takes the options of the log and begins it.
func (l *log) open(a *block.OpenArgs) error {
	sized := a.Options.Has(optSectorSize)
	size, err := a.Options.TakeSize(optSectorSize, defaultSectorSize)
	if err != nil {
		return err
	}
	appending, err := a.Options.TakeBool(optAppend, false)
	if err != nil {
		return err
	}
	if appending && sized {
		return qerr.New("log-append and log-sector-size are mutually exclusive")
	}
	if l.interval, err = a.Options.TakeNumber(optUpdateInterval, defaultUpdateInterval); err != nil {
		return err
	}
	if err := l.begin(a.Lock, size, appending); err != nil {
		return err
	}
	if l.interval == 0 {
		return qerr.New("Invalid log superblock update interval 0")
	}
	return nil
}

// Close leaves the log complete: the block layer flushed the node before,
// unless it was told never to. Giving up the log's node is a change of the graph
// of its own (observed: own/jobs/drains-more).
func (f *filter) Close(l *aio.Lock) {
	f.log.close(l)
	f.log.child.Node().Graph().DrainAll(l)
}

// CoGetLength is that of the file: the operation that this program began with.
// It walks down the graph, and so runs in a coroutine, which holds the graph's
// lock for reading.
func (f *filter) CoGetLength(co *aio.Co) (int64, error) {
	return f.file.Node().CoGetLength(co)
}

// RefreshLimits makes the block layer align requests to the log's sectors.
func (f *filter) RefreshLimits(l *block.Limits) error {
	below := f.file.Node().Limits()
	l.RequestAlignment = int64(f.log.super.SectorSize)
	l.ReadFlags = below.ReadFlags & block.ReqImmediate
	l.WriteFlags = block.ReqWriteUnchanged | below.WriteFlags&block.ReqFUA
	l.ZeroFlags = block.ReqWriteUnchanged | block.ReqMayUnmap | block.ReqNoFallback
	l.TruncateFlags = below.TruncateFlags
	return nil
}

func (f *filter) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return f.file.CoPreadv(co, offset, v, flags)
}

func (f *filter) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	var kind dmlog.Flags
	if flags&block.ReqFUA != 0 {
		kind = dmlog.FUA
	}
	return f.logged(co, kind, offset, v.Len(), v, func() error {
		return f.file.CoPwritev(co, offset, v, flags)
	})
}

func (f *filter) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	return f.logged(co, 0, offset, bytes, nil, func() error {
		return f.file.CoPwriteZeroes(co, offset, bytes, flags)
	})
}

// CoPdiscard leaves alone what the log cannot tell exactly: discarding is a
// hint, and the reference aborts.
func (f *filter) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	if sector := int64(f.log.super.SectorSize); offset%sector != 0 || bytes%sector != 0 {
		return qerr.From(syscall.ENOTSUP)
	}
	return f.logged(co, dmlog.Discard, offset, bytes, nil, func() error {
		return f.file.CoPdiscard(co, offset, bytes)
	})
}

// CoFlush logs the flush; the block layer then flushes both children.
func (f *filter) CoFlush(co *aio.Co) error {
	return f.log.append(co, dmlog.Entry{Flags: dmlog.Flush}, nil)
}

// logged does something to an area of the file and logs it, while nobody else
// does anything there.
func (f *filter) logged(co *aio.Co, kind dmlog.Flags, offset, bytes int64, v block.Vec, do func() error) error {
	defer f.busy.release(f.busy.acquire(co, offset, bytes))
	fileErr := do()
	if errors.Is(fileErr, syscall.ENOTSUP) {
		return fileErr // nothing was done
	}
	sector := int64(f.log.super.SectorSize)
	e := dmlog.Entry{Sector: uint64(offset / sector), Sectors: uint64(bytes / sector), Flags: kind}
	logErr := f.log.append(co, e, v)
	if fileErr != nil {
		return fileErr
	}
	return logErr
}

// What the filter can do. Permissions go by the children's roles: the file is
// what users see, the log is the filter's own.
var (
	_ block.Reader          = (*filter)(nil)
	_ block.Writer          = (*filter)(nil)
	_ block.ZeroWriter      = (*filter)(nil)
	_ block.Discarder       = (*filter)(nil)
	_ block.Flusher         = (*filter)(nil)
	_ block.LengthGetter    = (*filter)(nil)
	_ block.LimitsRefresher = (*filter)(nil)
)
