package file

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// discardStats counts discards as query-blockstats shows them.
type discardStats struct{ ok, failed, bytes atomic.Uint64 }

func (s *discardStats) account(bytes int64, err error) {
	if err != nil {
		s.failed.Add(1)
		return
	}
	s.ok.Add(1)
	s.bytes.Add(uint64(bytes))
}

func (s *discardStats) report(driver string) *block.DriverStats {
	return &block.DriverStats{
		Driver:         driver,
		DiscardsOK:     s.ok.Load(),
		DiscardsFailed: s.failed.Load(),
		DiscardBytes:   s.bytes.Load(),
	}
}

// CoPdiscard makes a hole.
func (n *regular) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	co.BeginBlocking()
	defer co.EndBlocking()
	return discard(&n.abilities, &n.discards, bytes, func() error {
		return n.file.fallocate(holePunched, offset, bytes)
	})
}

// CoPdiscard tells a block device to forget an area.
func (n *device) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	co.BeginBlocking()
	defer co.EndBlocking()
	return discard(&n.abilities, &n.discards, bytes, func() error {
		if !n.file.isBlock() {
			return errUnsupported
		}
		return n.file.rangeIoctl(unix.BLKDISCARD, offset, bytes)
	})
}

// discard runs one unless that is known to be vain; vain ones count as failed.
func discard(a *abilities, s *discardStats, bytes int64, do func() error) error {
	err := error(errUnsupported)
	if !a.noDiscard.Load() {
		err = do()
	}
	if errors.Is(err, unix.ENOTSUP) {
		a.noDiscard.Store(true)
	}
	s.account(bytes, err)
	return err
}

// DriverStats are the counters of discards.
func (n *regular) DriverStats() *block.DriverStats { return n.discards.report(n.kind.name) }

// DriverStats are the counters of discards.
func (n *device) DriverStats() *block.DriverStats { return n.discards.report(n.kind.name) }
