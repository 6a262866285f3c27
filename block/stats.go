package block

import (
	"sync/atomic"
	"time"
)

// Op is a kind of request that is accounted for.
type Op uint8

// The accounted kinds.
const (
	OpRead Op = iota
	OpWrite
	OpFlush
	OpUnmap
	OpZoneAppend
	numOps
)

// Stats counts what a user of a backend did.
type Stats struct {
	ops        [numOps]opStats
	lastAccess atomic.Int64 // Unix time in ns, 0: never
}

type opStats struct {
	bytes, ops, failed, invalid, merged, totalNS atomic.Uint64
}

// OpCounts are the counters of one kind of request.
type OpCounts struct {
	Bytes, Ops, Failed, Invalid, Merged uint64
	// TotalNS is the time spent in finished requests, in nanoseconds.
	TotalNS uint64
}

// Counts reads the counters of one kind.
func (s *Stats) Counts(op Op) OpCounts {
	o := &s.ops[op]
	return OpCounts{o.bytes.Load(), o.ops.Load(), o.failed.Load(), o.invalid.Load(), o.merged.Load(), o.totalNS.Load()}
}

// IdleTime is the time since the last request ended, and whether there was one.
func (s *Stats) IdleTime() (time.Duration, bool) {
	last := s.lastAccess.Load()
	if last == 0 {
		return 0, false
	}
	return time.Duration(time.Now().UnixNano() - last), true
}

// Account counts a request that began at start and ended now.
func (s *Stats) Account(op Op, bytes int64, start time.Time, err error) {
	o := &s.ops[op]
	now := time.Now()
	if err != nil {
		o.failed.Add(1)
	} else {
		o.bytes.Add(uint64(bytes))
		o.ops.Add(1)
	}
	o.totalNS.Add(uint64(now.Sub(start)))
	s.lastAccess.Store(now.UnixNano())
}

// AccountInvalid counts a request that was refused before it began.
func (s *Stats) AccountInvalid(op Op) {
	s.ops[op].invalid.Add(1)
	s.lastAccess.Store(time.Now().UnixNano())
}
