package nbd_test

import (
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// benchmark keeps depth requests under way in a server with a disk in memory.
// What it costs is the server's and the sockets'; of ours it shows the
// allocations.
func benchmark(b *testing.B, size int, request func(blk *block.Backend, co *aio.Co, v block.Vec) error) {
	dir := shortDir(b)
	nbdkit(b, dir, "memory", "4M")
	bench := bench(b)
	blk := bench.Use(bench.Add(node(filepath.Join(dir, "s"), "")))
	write(b, blk, 0, random(1<<20))
	for _, depth := range []int{1, 16} {
		b.Run(strconv.Itoa(depth), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range depth {
				wg.Go(func() {
					bench.Graph.Main().Enter("benchmark", func(co *aio.Co) {
						v := block.Vec{block.AlignedMemory(size)}
						for left.Add(-1) >= 0 {
							if err := request(blk, co, v); err != nil {
								b.Error(err)
								return
							}
						}
					})
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkRead4k(b *testing.B) {
	benchmark(b, 4096, func(blk *block.Backend, co *aio.Co, v block.Vec) error { return blk.CoPreadv(co, 4096, v, 0) })
}

func BenchmarkWrite4k(b *testing.B) {
	benchmark(b, 4096, func(blk *block.Backend, co *aio.Co, v block.Vec) error { return blk.CoPwritev(co, 4096, v, 0) })
}

func BenchmarkRead1M(b *testing.B) {
	benchmark(b, 1<<20, func(blk *block.Backend, co *aio.Co, v block.Vec) error { return blk.CoPreadv(co, 0, v, 0) })
}
