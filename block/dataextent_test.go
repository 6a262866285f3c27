package block_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

const unit = drivertest.HoleUnit

// statusOf says d or z for an offset, and how far it is so.
func statusOf(t *testing.T, n *block.Node, at int64) (kind byte, bytes int64) {
	t.Helper()
	st, err := n.BlockStatus(aio.Outside, true, at, 1<<40)
	must(t, err)
	if st.Flags&block.StatusOffsetValid == 0 || st.Map != at || st.File != n || st.Flags&block.StatusAllocated == 0 {
		t.Errorf("at %d: %+v", at, st)
	}
	if st.Flags&block.StatusZero != 0 {
		return 'z', st.Bytes
	}
	return 'd', st.Bytes
}

// Within data the driver is asked once, until something may have made a hole.
func TestDataIsRemembered(t *testing.T) {
	t.Parallel()
	b := bench(t)
	options := `{"driver":"mem","node-name":"m","size":1048576,"sparse":true,"zero":true,"discard":"unmap"}`
	n := b.Add(options)
	disk, blk := drivertest.DiskOf(n), b.Use(n)
	asked := func() bool {
		return slices.ContainsFunc(disk.TakeCalls(), func(c string) bool { return strings.HasPrefix(c, drivertest.Status) })
	}
	must(t, blk.Pwritev(aio.Outside, 4*unit, drivertest.Fill(1, 8*unit), 0))
	status := func(at int64, kind byte, bytes int64) {
		t.Helper()
		if k, got := statusOf(t, n, at); k != kind || got != bytes {
			t.Errorf("at %d: %c%d, want %c%d", at, k, got, kind, bytes)
		}
	}
	for name, change := range map[string]func() error{
		"discard":  func() error { return blk.Pdiscard(aio.Outside, 11*unit, 2*unit) },
		"zeroes":   func() error { return blk.PwriteZeroes(aio.Outside, 11*unit, unit, 0) },
		"truncate": func() error { return blk.Truncate(aio.Outside, 1<<20, true, block.PreallocOff, 0) },
		"reopen":   func() error { return b.Reopen(options) },
	} {
		must(t, blk.Pwritev(aio.Outside, 11*unit, drivertest.Fill(1, unit), 0))
		must(t, b.Reopen(options)) // forgets
		status(5*unit, 'd', 7*unit)
		asked()
		status(5*unit, 'd', 7*unit)
		status(6*unit+512, 'd', 6*unit-512)
		must(t, blk.Pdiscard(aio.Outside, 20*unit, unit))              // elsewhere
		must(t, blk.PwriteZeroes(aio.Outside, 12*unit, unit, 0))       // behind
		must(t, blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 1), 0)) // data makes no holes
		must(t, blk.Pdiscard(aio.Outside, 0, unit))
		status(11*unit, 'd', unit)
		if asked() {
			t.Errorf("before %s: the driver was asked for what was known", name)
		}
		if st, err := n.BlockStatus(aio.Outside, false, 0, unit); err != nil || st.Flags&block.StatusZero != 0 {
			t.Errorf("without asking for zeroes: %+v (%v)", st, err)
		}
		must(t, change())
		if status(5*unit, 'd', map[bool]int64{true: 6 * unit, false: 7 * unit}[name == "discard" || name == "zeroes"]); !asked() {
			t.Errorf("after %s: the driver was not asked", name)
		}
	}
	must(t, blk.Pwritev(aio.Outside, 11*unit, drivertest.Fill(1, unit), 0))
	must(t, b.Reopen(options))
	status(0, 'z', 4*unit)
	if status(0, 'z', 4*unit); !asked() {
		t.Error("a hole was remembered")
	}
	status(5*unit, 'd', 7*unit)
	b.Drop(blk)
	b.Main(func(l *aio.Lock) { must(t, n.SetActive(l, false)) })
	asked()
	for range 2 {
		if status(5*unit, 'd', 7*unit); !asked() {
			t.Error("an inactive node was not asked")
		}
	}
	b.Main(func(l *aio.Lock) { must(t, n.SetActive(l, true)) })
	if status(5*unit, 'd', 7*unit); !asked() {
		t.Error("an activated node was not asked")
	}
}

// An answer that was under way when a hole was made is not remembered.
func TestStaleDataIsNotRemembered(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":1048576,"sparse":true`)
	n := blk.Node()
	must(t, blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 8*unit), 0))
	answered, discarded, done := make(chan bool), make(chan bool), make(chan error)
	disk.SetHook(func(co *aio.Co, c drivertest.Call) error {
		if c.Op == drivertest.Status {
			close(answered)
			co.Yield(func() { <-discarded })
		}
		return nil
	})
	go func() {
		_, err := n.BlockStatus(aio.Outside, true, 0, unit)
		done <- err
	}()
	<-answered
	must(t, blk.Pdiscard(aio.Outside, 2*unit, unit))
	close(discarded)
	must(t, <-done)
	disk.SetHook(nil)
	if kind, bytes := statusOf(t, n, 2*unit); kind != 'z' || bytes != unit {
		t.Errorf("after the discard: %c%d", kind, bytes)
	}
}

// The status of each worker's own area follows what it did there, whatever the
// others do to theirs.
func TestStatusStress(t *testing.T) {
	t.Parallel()
	const workers, own = 8, 8
	disk, blk := mem(t, `,"size":1048576,"sparse":true,"zero":true`)
	n := blk.Node()
	var wg sync.WaitGroup
	for w := range int64(workers) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			var data [own]bool
			for range 500 {
				at, units := r.Int64N(own), 1+r.Int64N(3)
				units = min(units, own-at)
				offset, bytes := (w*own+at)*unit, units*unit
				made := false
				var err error
				switch r.IntN(5) {
				case 0, 1:
					made = true
					err = blk.Pwritev(aio.Outside, offset, drivertest.Fill(1, int(bytes)), 0)
				case 2:
					err = blk.Pdiscard(aio.Outside, offset, bytes)
				case 3:
					err = blk.PwriteZeroes(aio.Outside, offset, bytes, 0)
				case 4:
					units = 0
					if r.IntN(10) == 0 {
						err = blk.Truncate(aio.Outside, 1<<20, true, block.PreallocOff, 0)
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
				for i := range units {
					data[at+i] = made
				}
				at = r.Int64N(own)
				kind, count := statusOf(t, n, (w*own+at)*unit)
				until := at
				for until < own && data[until] == data[at] {
					until++
				}
				// What is remembered may be less than what there is now.
				exact := (until - at) * unit
				if (kind == 'd') != data[at] || count < exact && kind == 'z' || count > exact && until < own {
					t.Errorf("at %d: %c%d of %v", at, kind, count/unit, data)
				}
			}
		})
	}
	wg.Wait()
	disk.TakeCalls()
}
