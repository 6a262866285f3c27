package block_test

import (
	"errors"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
)

func TestStats(t *testing.T) {
	t.Parallel()
	var s block.Stats
	if _, ok := s.IdleTime(); ok {
		t.Error("there was no request yet")
	}
	start := time.Now().Add(-time.Second)
	s.Account(block.OpRead, 4096, start, nil)
	s.Account(block.OpRead, 512, start, nil)
	s.Account(block.OpRead, 512, start, errors.New("bad"))
	s.AccountInvalid(block.OpRead)
	s.Account(block.OpFlush, 0, start, nil)
	got := s.Counts(block.OpRead)
	if got.TotalNS < uint64(3*time.Second) || got.TotalNS > uint64(time.Minute) {
		t.Errorf("the requests took %v", time.Duration(got.TotalNS))
	}
	got.TotalNS = 0
	if want := (block.OpCounts{Bytes: 4608, Ops: 2, Failed: 1, Invalid: 1}); got != want {
		t.Errorf("reads: %+v, want %+v", got, want)
	}
	if got := s.Counts(block.OpFlush); got.Ops != 1 || got.Bytes != 0 {
		t.Errorf("flushes: %+v", got)
	}
	if got := s.Counts(block.OpWrite); got != (block.OpCounts{}) {
		t.Errorf("writes: %+v", got)
	}
	if idle, ok := s.IdleTime(); !ok || idle < 0 || idle > time.Minute {
		t.Errorf("idle for %v, %v", idle, ok)
	}
}

// The highest offset written to is a node's, counts data and zeroes, and not
// what failed.
func TestHighestOffset(t *testing.T) {
	t.Parallel()
	_, blk := mem(t, `,"size":65536,"align":512`)
	n := blk.Node()
	must(t, outside{blk}.write(1000, 24, 1))
	if got := n.WrHighestOffset(); got != 1024 {
		t.Errorf("after a write: %d", got)
	}
	must(t, outside{blk}.write(0, 512, 1))
	if err := (outside{blk}).write(65535, 2, 1); err == nil {
		t.Error("a write beyond the end succeeded")
	}
	if got := n.WrHighestOffset(); got != 1024 {
		t.Errorf("after lesser ones: %d", got)
	}
}
