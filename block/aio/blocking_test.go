package aio_test

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/qmpblock/qmpblock/block/aio"
)

// At most as many as the bound says are inside at once, and all get in.
func TestBlockingIsBounded(t *testing.T) {
	t.Parallel()
	const workers, rounds, bound = 16, 500, 3
	ctx := newWorld(t, "-*")
	ctx.SetMaxBlocking(bound)
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range rounds {
				ctx.Enter("test", func(co *aio.Co) {
					co.BeginBlocking()
					defer co.EndBlocking()
					if now := inside.Add(1); now > bound {
						t.Errorf("%d inside", now)
					}
					runtime.Gosched()
					inside.Add(-1)
				})
			}
		})
	}
	wg.Wait()
}

// awaitYielded waits until n coroutines of a context have yielded.
func awaitYielded(ctx *aio.Context, n int) {
	for {
		yielded := 0
		for _, co := range ctx.Coroutines() {
			if strings.HasSuffix(co, "has yielded") {
				yielded++
			}
		}
		if yielded == n {
			return
		}
		runtime.Gosched()
	}
}

// First come, first served; a larger bound lets more in at once, a smaller one
// waits for those that are too many.
func TestBlockingQueue(t *testing.T) {
	t.Parallel()
	ctx := newWorld(t, "-*")
	ctx.SetMaxBlocking(1)
	var wg sync.WaitGroup
	entered, leave := make(chan int), make(chan bool)
	start := func(id int) {
		wg.Go(func() {
			ctx.Enter("test", func(co *aio.Co) {
				co.BeginBlocking()
				defer co.EndBlocking()
				entered <- id
				<-leave
			})
		})
	}
	start(0)
	expect := func(want ...int) {
		t.Helper()
		missing := make(map[int]bool)
		for _, id := range want {
			missing[id] = true
		}
		for range want {
			if id := <-entered; !missing[id] {
				t.Errorf("%d came, not one of %v", id, want)
			}
		}
	}
	expect(0)
	for id := 1; id <= 6; id++ {
		start(id)
		awaitYielded(ctx.Context, id)
	}
	leave <- true
	expect(1)
	leave <- true
	expect(2)
	ctx.SetMaxBlocking(3)
	expect(3, 4)
	ctx.SetMaxBlocking(0) // is 1
	leave <- true
	leave <- true
	leave <- true
	expect(5)
	leave <- true
	expect(6)
	leave <- true
	wg.Wait()
}

// Who waits does not keep a writer of the graph out.
func TestBlockingWaitsWithoutGuard(t *testing.T) {
	t.Parallel()
	ctx := newWorld(t, "-*")
	ctx.SetMaxBlocking(1)
	inside, leave, done := make(chan bool), make(chan bool), make(chan bool)
	go ctx.Enter("first", func(co *aio.Co) {
		co.BeginBlocking()
		close(inside)
		co.Yield(func() { <-leave }) // else the writer would wait for this one
		co.EndBlocking()
	})
	<-inside
	go func() {
		defer close(done)
		ctx.Enter("second", func(co *aio.Co) {
			co.BeginBlocking()
			co.EndBlocking()
		})
	}()
	awaitYielded(ctx.Context, 2)
	ctx.guard.Lock()
	close(leave)
	ctx.guard.Unlock()
	<-done
}

func BenchmarkBlocking(b *testing.B) {
	ctx := aio.NewContext("bench", new(guard), nil, nil)
	defer ctx.Close()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx.Enter("bench", func(co *aio.Co) {
			for pb.Next() {
				co.BeginBlocking()
				co.EndBlocking()
			}
		})
	})
}
