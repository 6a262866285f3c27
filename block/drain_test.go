package block_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// held makes every request of a disk wait for the channel it returns.
func held(d *drivertest.Disk) (started chan string, release chan struct{}) {
	started, release = make(chan string, 16), make(chan struct{})
	d.SetHook(func(co *aio.Co, c drivertest.Call) error {
		started <- c.String()
		co.Yield(func() { <-release })
		return nil
	})
	return started, release
}

// awaitDrained waits until a drained section of a disk has begun.
func awaitDrained(d *drivertest.Disk) {
	for begun, _ := d.Drains(); begun == 0; begun, _ = d.Drains() {
		runtime.Gosched()
	}
}

// A drained section waits for what is under way and holds up what comes, on
// the node and on all above it.
func TestDrain(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
	b.Add(`{"driver":"raw","node-name":"r","file":"m"}`)
	m := b.Graph.Node("m")
	disk := drivertest.DiskOf(m)
	above, beside := b.Use(b.Graph.Node("r")), b.Use(m)
	started, release := held(disk)

	var wg sync.WaitGroup
	write := func(blk *block.Backend, offset int64) {
		wg.Go(func() {
			if err := (outside{blk}).write(offset, 512, 1); err != nil {
				t.Error(err)
			}
		})
	}
	write(above, 0)
	<-started
	drained, goOn := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		b.Main(func(l *aio.Lock) {
			m.DrainedBegin(l)
			m.DrainedBegin(l)
			m.DrainedEnd()
			close(drained)
			l.Unlocked(func() { <-goOn })
			m.DrainedEnd()
		})
	})
	// The write is held; whoever comes while it is being waited for waits too.
	awaitDrained(disk)
	write(above, 512)
	write(beside, 1024)
	awaitYielded(m.Context(), 3)
	select {
	case <-drained:
		t.Error("the section did not wait for the write")
	default:
	}
	close(release)
	<-drained
	if got := disk.TakeCalls(); !slices.Equal(got, []string{"write 0+512"}) {
		t.Errorf("in the section the disk has seen %q", got)
	}
	if begun, ended := disk.Drains(); begun != 1 || ended != 0 {
		t.Errorf("the driver was told %d, %d", begun, ended)
	}
	close(goOn)
	wg.Wait()
	got := disk.TakeCalls()
	slices.Sort(got)
	if !slices.Equal(got, []string{"write 1024+512", "write 512+512"}) {
		t.Errorf("behind the section the disk has seen %q", got)
	}
	if begun, ended := disk.Drains(); begun != 1 || ended != 1 {
		t.Errorf("the driver was told %d, %d", begun, ended)
	}
}

// A drained section of one node does not concern another.
func TestDrainIsLocal(t *testing.T) {
	t.Parallel()
	b := bench(t)
	blk := b.Use(b.Add(`{"driver":"mem","node-name":"m","size":4096}`))
	other := b.Add(`{"driver":"mem","node-name":"n","size":4096}`)
	top := b.Add(`{"driver":"raw","node-name":"r","file":"m"}`)
	b.Main(func(l *aio.Lock) {
		// Not even one of a node above it.
		for _, n := range []*block.Node{other, top} {
			n.DrainedBegin(l)
			defer n.DrainedEnd()
		}
		if err := blk.Pwritev(l, 0, drivertest.Fill(1, 512), 0); err != nil {
			t.Error(err)
		}
	})
}

// Who comes to a node during a drained section is held up as well, and set
// free when he leaves or the section ends.
func TestDrainFindsNewcomers(t *testing.T) {
	t.Parallel()
	b := bench(t)
	m := b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
	var wg sync.WaitGroup
	var blk *block.Backend
	b.Main(func(l *aio.Lock) {
		m.DrainedBegin(l)
		blk = b.Graph.NewBackend("", write, all)
		must(t, blk.Insert(l, m))
		wg.Go(func() {
			if err := (outside{blk}).write(0, 512, 1); err != nil {
				t.Error(err)
			}
		})
		l.Unlocked(func() { awaitYielded(m.Context(), 1) })
		if got := drivertest.DiskOf(m).TakeCalls(); got != nil {
			t.Errorf("the disk has seen %q", got)
		}
		m.DrainedEnd()
	})
	wg.Wait()
	b.Main(func(l *aio.Lock) {
		m.DrainedBegin(l)
		blk.Remove(l)
		// Nothing to wait for: there is no medium.
		if err := blk.Pwritev(l, 0, drivertest.Fill(1, 512), 0); text(err) != "No medium inserted" {
			t.Errorf("got %v", err)
		}
		m.DrainedEnd()
		blk.Close(l)
	})
}

// Removing a backend waits for its requests.
func TestRemoveWaits(t *testing.T) {
	t.Parallel()
	b := bench(t)
	m := b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
	blk := b.Use(m)
	started, release := held(drivertest.DiskOf(m))
	done := make(chan error, 1)
	go func() { done <- (outside{blk}).write(0, 512, 1) }()
	<-started
	removed := make(chan struct{})
	go func() {
		b.Drop(blk)
		close(removed)
	}()
	awaitDrained(drivertest.DiskOf(m))
	select {
	case <-removed:
		t.Error("it did not wait")
	default:
	}
	close(release)
	must(t, <-done)
	<-removed
}

// What a job reads and writes is no part of what a drained section holds up:
// the section waits for the job.
func TestDrainLetsJobsIn(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
	m := b.Graph.Node("m")
	blk := b.Use(m)
	blk.NoQueuing = true
	b.Main(func(l *aio.Lock) {
		m.DrainedBegin(l)
		if err := blk.Pwritev(l, 0, drivertest.Fill(1, 512), 0); err != nil {
			t.Error(err)
		}
		m.DrainedEnd()
	})
}
