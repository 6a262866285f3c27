package block_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

// patience is how long the locks test may take before it is called a
// deadlock. It takes a few seconds on a slow machine with the race detector.
const patience = 2 * time.Minute

// TestLocks has hundreds of readers ask for lengths, by every way through the
// mixed wrapper, while nodes are added, removed, reopened, resized and moved
// to other contexts, and while slow requests keep drained sections waiting.
// Nobody may wait for ever; if somebody does, the report says who holds the
// graph's lock and who waits for it.
func TestLocks(t *testing.T) {
	const (
		readers   = 300
		questions = 20
		changes   = 25
	)
	b := drivertest.New(t, raw.Driver(), null.Co(), blklogwrites.Driver())
	main, thread := b.Graph.Main(), b.Graph.NewContext("iothread0")
	b.Add(`{"driver":"mem","node-name":"m0","size":65536}`)
	b.Add(`{"driver":"mem","node-name":"m1","size":131072}`)
	b.Add(`{"driver":"null-co","node-name":"slow","size":65536,"latency-ns":20000}`)
	b.Add(`{"driver":"null-co","node-name":"apart","size":65536}`)
	b.Add(`{"driver":"blklogwrites","node-name":"logged","file":"m0","log":{"driver":"mem","size":0}}`)
	tops := []*block.Node{
		b.Add(`{"driver":"raw","node-name":"r0","file":"logged"}`),
		b.Add(`{"driver":"raw","node-name":"r1","file":"m0"}`),
		b.Add(`{"driver":"raw","node-name":"r2","file":{"driver":"raw","file":"m1"}}`),
		b.Add(`{"driver":"raw","node-name":"r3","file":"slow"}`),
		b.Add(`{"driver":"raw","node-name":"r4","file":"apart"}`),
	}
	var users []*block.Backend
	for _, n := range tops {
		blk, err := b.TryUse(n, block.PermConsistentRead, block.PermAll)
		must(t, err)
		users = append(users, blk)
	}

	resized := b.Graph.Node("m1")

	var wg sync.WaitGroup
	ask := func(c aio.Caller, i int) {
		n, blk := tops[i%len(tops)], users[i%len(tops)]
		if _, err := blk.GetLength(c); err != nil {
			t.Errorf("length of %s: %v", n.Name(), err)
		}
		if err := n.RefreshTotalSectors(c, 0); err != nil {
			t.Errorf("sectors of %s: %v", n.Name(), err)
		}
		if _, err := n.BlockStatus(c, true, 0, 512); err != nil {
			t.Errorf("status of %s: %v", n.Name(), err)
		}
		if err := blk.Preadv(c, 0, drivertest.Fill(0, 512)); err != nil {
			t.Errorf("reading %s: %v", n.Name(), err)
		}
	}
	for r := range readers {
		wg.Go(func() {
			for q := range questions {
				switch i := r + q; i % 4 {
				case 0:
					main.Enter("reader", func(co *aio.Co) { ask(co, i/4) })
				case 1:
					thread.Enter("reader", func(co *aio.Co) { ask(co, i/4) })
				case 2:
					ask(aio.Outside, i/4)
				case 3:
					b.Main(func(l *aio.Lock) { ask(l, i/4) })
				}
			}
		})
	}
	change := func(f func(i int) error) {
		wg.Go(func() {
			for i := range changes {
				if err := f(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	change(func(i int) error {
		name := fmt.Sprintf("x%d", i)
		b.Add(fmt.Sprintf(`{"driver":"raw","node-name":"%s","file":{"driver":"raw","file":"m%d"}}`, name, i%2))
		return b.TryDelete(name)
	})
	change(func(i int) error {
		_, err := b.TryAdd(`{"driver":"raw","node-name":"y","size":1048576,"file":{"driver":"raw","file":"slow"}}`)
		if err == nil {
			return fmt.Errorf("a window larger than its file was opened")
		}
		return nil
	})
	change(func(i int) error {
		return b.Reopen(fmt.Sprintf(`{"driver":"raw","node-name":"r1","file":"m%d","read-only":%v}`, i%2, i%3 == 0))
	})
	change(func(i int) error {
		return b.Reopen(fmt.Sprintf(`{"driver":"raw","node-name":"r3","file":"slow","offset":%d}`, i%2*512))
	})
	change(func(i int) error {
		blk, err := b.TryUse(resized, block.PermResize, block.PermAll)
		if err != nil {
			return err
		}
		defer b.Drop(blk)
		b.Main(func(l *aio.Lock) {
			err = blk.Truncate(l, int64(65536+i%3*512), true, block.PreallocOff, 0)
		})
		return err
	})
	change(func(i int) (err error) {
		b.Main(func(l *aio.Lock) {
			err = tops[4].SetContext(l, []*aio.Context{thread, main}[i%2])
		})
		return err
	})
	watch(t, b.Graph, &wg)
	b.Main(func(l *aio.Lock) { must(t, tops[4].SetContext(l, main)) })
	b.Graph.RetireContext(thread)
}

// watch waits for everybody, but not for ever.
func watch(t *testing.T, g *block.Graph, wg *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		// Nothing can be taken down while it hangs.
		panic(fmt.Sprintf("deadlock:\n%s\n%s", g.LockReport(), stacks))
	}
}

// The report names the writer and what the readers are at.
func TestLockReport(t *testing.T) {
	t.Parallel()
	b := bench(t)
	disk := b.Add(`{"driver":"mem","node-name":"m","size":512}`)
	blk := b.Use(disk)
	release := make(chan struct{})
	drivertest.DiskOf(disk).SetHook(func(*aio.Co, drivertest.Call) error {
		<-release // with the graph's lock, as no driver should
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := (outside{blk}).write(0, 512, 1); err != nil {
			t.Error(err)
		}
	})
	await(t, b, "reader: blk_pwritev in main runs\n")
	wg.Go(func() { b.Add(`{"driver":"raw","node-name":"r","file":"m"}`) })
	await(t, b, "writer: add a node waits for the lock\nreader: blk_pwritev in main runs\n")
	close(release)
	wg.Wait()
	b.Main(func(l *aio.Lock) {
		must(t, b.Graph.Write(l, "test", func(*block.Write) error {
			if got, want := b.Graph.LockReport(), "writer: test holds the lock\n"; got != want {
				t.Errorf("the report is %q, want %q", got, want)
			}
			return nil
		}))
	})
	if got := b.Graph.LockReport(); got != "" {
		t.Errorf("the report is %q", got)
	}
}

// await waits until the lock report says something.
func await(t *testing.T, b *drivertest.Bench, report string) {
	t.Helper()
	for deadline := time.Now().Add(patience); b.Graph.LockReport() != report; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("the report is %q, want %q", b.Graph.LockReport(), report)
		}
	}
}
