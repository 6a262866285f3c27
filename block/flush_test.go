package block_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

func TestFlushGenerations(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":4096`)
	flush := func() { must(t, blk.Flush(aio.Outside)) }
	expect := func(when string, want ...string) {
		t.Helper()
		if got := disk.TakeCalls(); !slices.Equal(got, want) {
			t.Errorf("%s: the driver got %q, want %q", when, got, want)
		}
	}
	flush()
	expect("nothing written")
	must(t, outside{blk}.write(0, 512, 1))
	flush()
	flush()
	expect("one write", "write 0+512", "flush")
	must(t, blk.Pdiscard(aio.Outside, 0, 512))
	flush()
	expect("discard", "discard 0+512", "flush")
	must(t, blk.Truncate(aio.Outside, 8192, true, block.PreallocOff, 0))
	flush()
	expect("resize", "flush")
	must(t, blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), block.ReqFUA))
	flush()
	expect("durable write", "write 0+512", "flush")

	// What failed is tried again, and a write that failed counts too.
	disk.SetHook(func(*aio.Co, drivertest.Call) error { return syscall.EIO })
	if err := (outside{blk}).write(0, 512, 1); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := blk.Flush(aio.Outside); !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v", err)
		}
	}
	disk.SetHook(nil)
	flush()
	flush()
	expect("failures", "write 0+512", "flush", "flush", "flush")
}

// Flushes at the same time cost one; a write meanwhile costs another.
func TestFlushesTogether(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":4096`)
	must(t, outside{blk}.write(0, 512, 1))
	started, release := held(disk)
	var wg sync.WaitGroup
	flush := func() {
		wg.Go(func() {
			if err := blk.Flush(aio.Outside); err != nil {
				t.Error(err)
			}
		})
	}
	flush()
	<-started
	for range 10 {
		flush()
	}
	awaitYielded(blk.Node().Context(), 11)
	close(release)
	wg.Wait()
	if got := disk.TakeCalls(); !slices.Equal(got, []string{"write 0+512", "flush"}) {
		t.Errorf("the driver got %q", got)
	}
}

// A flush reaches the children that are written to, whatever the node itself
// has to flush; without flushes it reaches none.
func TestFlushGoesDown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options string
		perm    block.Perm
		want    []string
	}{
		{``, write, []string{"write 0+512", "flush"}},
		{`,"cache":{"no-flush":true}`, write, []string{"write 0+512"}},
		{``, read, []string{"write 0+512"}},
		{`,"read-only":true`, read, []string{"write 0+512"}},
	} {
		b := bench(t)
		b.Add(`{"driver":"raw","node-name":"r","file":{"driver":"mem","node-name":"m","size":4096,"read-only":false}` + c.options + `}`)
		blk, err := b.TryUse(b.Graph.Node("r"), c.perm, all)
		must(t, err)
		disk := drivertest.DiskOf(b.Graph.Node("m"))
		must(t, outside{b.Use(b.Graph.Node("m"))}.write(0, 512, 1))
		must(t, blk.Flush(aio.Outside))
		if got := disk.TakeCalls(); !slices.Equal(got, c.want) {
			t.Errorf("%s, taking %v: the driver got %q, want %q", c.options, c.perm, got, c.want)
		}
	}
}

// A user that never flushes has every write durable at once.
func TestWriteThrough(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":4096,"fua":true`)
	blk.SetWriteCache(false)
	must(t, outside{blk}.write(0, 512, 1))
	must(t, blk.PwriteZeroes(aio.Outside, 0, 512, 0))
	if got := disk.TakeCalls(); !slices.Equal(got, []string{"write 0+512 fua", "write 0+512 fua"}) || blk.WriteCache() {
		t.Errorf("the driver got %q", got)
	}
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	type event struct {
		node                string
		threshold, exceeded uint64
	}
	var events []event
	var mu sync.Mutex
	b := drivertest.NewWith(t, block.Config{WriteThreshold: func(node string, threshold, exceeded uint64) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, event{node, threshold, exceeded})
	}})
	n := b.Add(`{"driver":"mem","node-name":"m","size":65536,"zero":true}`)
	blk := b.Use(n)
	take := func() []event {
		defer func() { events = nil }()
		return events
	}
	must(t, outside{blk}.write(0, 65536, 1))
	if got := take(); got != nil {
		t.Errorf("without a threshold: %v", got)
	}
	n.SetWriteThreshold(4096)
	must(t, outside{blk}.write(0, 4096, 1))
	if got := take(); got != nil || n.WriteThreshold() != 4096 {
		t.Errorf("up to the threshold: %v", got)
	}
	must(t, outside{blk}.write(1000, 4096, 1))
	must(t, outside{blk}.write(0, 65536, 1))
	if got := take(); !slices.Equal(got, []event{{"m", 4096, 1000}}) || n.WriteThreshold() != 0 {
		t.Errorf("beyond: %v, armed for %d", got, n.WriteThreshold())
	}
	n.SetWriteThreshold(512)
	must(t, blk.PwriteZeroes(aio.Outside, 512, 1, 0))
	if got := take(); !slices.Equal(got, []event{{"m", 512, 1}}) {
		t.Errorf("zeroes: %v", got)
	}
	n.SetWriteThreshold(512)
	n.SetWriteThreshold(0)
	must(t, outside{blk}.write(512, 512, 1))
	if got := take(); got != nil {
		t.Errorf("disarmed: %v", got)
	}
	// Many at once, one event.
	n.SetWriteThreshold(100)
	var wg sync.WaitGroup
	var failed atomic.Int32
	for range 32 {
		wg.Go(func() {
			if (outside{blk}).write(0, 512, 1) != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if got := take(); len(got) != 1 || failed.Load() != 0 {
		t.Errorf("many writers: %v, %d failed", got, failed.Load())
	}
}
