// Package null is a disk of any size without content: writes are forgotten,
// reads leave the caller's buffer as it is. It serves to measure everything
// above it, and to test with disks that cost nothing.
//
// Two names stand for the same node: null-co and null-aio. In the reference
// they differ in how a request waits; here both run in coroutines.
//
// # Options
//
//   - size: the length in bytes, 0 … 2^63-2^30, by default 1 GiB; shown rounded
//     up to sectors.
//   - latency-ns: how long each read, write and flush takes, in nanoseconds,
//     0 … 2^63-1, by default 0. Requests wait side by side, and do not keep
//     writers of the graph waiting.
//   - read-zeroes: whether reads return zeroes; by default they return whatever
//     the buffer held.
//
// None can change on reopen. A node with neither size nor read-zeroes has the
// plain file name "null-co://" (or "null-aio://"), the only one accepted.
//
// # Limits
//
// There is no resize and no discard; zeroes are written like data. A negative
// size is an error, where the reference aborts.
package null

import (
	"math"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	optSize       = "size"
	optLatency    = "latency-ns"
	optReadZeroes = "read-zeroes"

	defaultSize = 1 << 30
)

// Co is the driver null-co.
func Co() *block.Driver { return driver("null-co") }

// Aio is the driver null-aio.
func Aio() *block.Driver { return driver("null-aio") }

func driver(name string) *block.Driver {
	d := &block.Driver{
		Name:          name,
		Kind:          block.Protocol,
		Prefix:        name,
		StrongOptions: []string{optSize, optReadZeroes},
		Open:          open,
	}
	d.ParseFilename = func(filename string, _ *block.Options) error {
		if filename != plainName(d) {
			return qerr.New("The only allowed filename for this driver is '%s'", plainName(d))
		}
		return nil
	}
	return d
}

func plainName(d *block.Driver) string { return d.Name + "://" }

// disk is one null node.
type disk struct {
	driver     *block.Driver
	size       uint64
	latency    time.Duration
	readZeroes bool
}

func open(a *block.OpenArgs) (block.Instance, error) {
	d := &disk{driver: a.Node.Driver()}
	var err error
	if d.size, err = a.Options.TakeSize(optSize, defaultSize); err != nil {
		return nil, err
	}
	latency, err := a.Options.TakeNumber(optLatency, 0)
	if err != nil {
		return nil, err
	}
	if latency > math.MaxInt64 {
		return nil, qerr.New("latency-ns is invalid")
	}
	d.latency = time.Duration(latency)
	d.readZeroes, err = a.Options.TakeBool(optReadZeroes, false)
	return d, err
}

func (d *disk) Close(*aio.Lock) {}

// wait lets a request take its time without the graph's lock.
func (d *disk) wait(co *aio.Co) {
	if d.latency == 0 {
		return
	}
	co.Yield(func() {
		t := time.NewTimer(d.latency)
		<-t.C
	})
}

func (d *disk) CoPreadv(co *aio.Co, _ int64, v block.Vec, _ block.ReqFlags) error {
	if d.readZeroes {
		v.Zero()
	}
	d.wait(co)
	return nil
}

func (d *disk) CoPwritev(co *aio.Co, _ int64, _ block.Vec, _ block.ReqFlags) error {
	d.wait(co)
	return nil
}

func (d *disk) CoFlush(co *aio.Co) error {
	d.wait(co)
	return nil
}

func (d *disk) CoGetLength(*aio.Co) (int64, error) {
	if d.size > math.MaxInt64 {
		return 0, qerr.From(syscall.EFBIG)
	}
	return int64(d.size), nil
}

func (d *disk) CoGetAllocatedFileSize(*aio.Co) (int64, error) { return 0, nil }

// CoBlockStatus: without read-zeroes nothing is known of the content, not even
// that it is there (observed: qemu-io map).
func (d *disk) CoBlockStatus(_ *aio.Co, _ bool, offset, bytes int64) (block.Status, error) {
	st := block.Status{Flags: block.StatusOffsetValid, Bytes: bytes, Map: offset}
	if d.readZeroes {
		st.Flags |= block.StatusZero
	}
	return st, nil
}

// RefreshLimits: nothing is ever less durable than it will be. Only latency
// makes anybody wait.
func (d *disk) RefreshLimits(l *block.Limits) error {
	l.WriteFlags |= block.ReqFUA
	if d.latency == 0 {
		l.ReadFlags |= block.ReqImmediate
		l.WriteFlags |= block.ReqImmediate
	}
	return nil
}

// ExactFilename is the plain name if no option decides what is read.
func (d *disk) ExactFilename(full *block.Options) string {
	if full.Has(optSize) || full.Has(optReadZeroes) {
		return ""
	}
	return plainName(d.driver)
}

// The options cannot change; all that reopening can do is done by the block
// layer.

func (d *disk) ReopenPrepare(*aio.Lock, *block.ReopenState) error { return nil }

func (d *disk) ReopenCommit(*block.ReopenState) {}

func (d *disk) ReopenAbort(*block.ReopenState) {}

// What a null disk can do.
var (
	_ block.Reader            = (*disk)(nil)
	_ block.Writer            = (*disk)(nil)
	_ block.Flusher           = (*disk)(nil)
	_ block.LengthGetter      = (*disk)(nil)
	_ block.AllocatedSizer    = (*disk)(nil)
	_ block.StatusGetter      = (*disk)(nil)
	_ block.LimitsRefresher   = (*disk)(nil)
	_ block.Reopener          = (*disk)(nil)
	_ block.FilenameRefresher = (*disk)(nil)
)
