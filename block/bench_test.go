package block_test

import (
	"fmt"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// populate adds n nodes, half of them parents of the others.
func populate(b *drivertest.Bench, n int) {
	for i := range n / 2 {
		b.Add(fmt.Sprintf(`{"driver":"raw","node-name":"r%d","file":{"driver":"null-co","node-name":"n%d"}}`, i, i))
	}
}

// sizes are the graphs in which an operation must cost the same.
var sizes = []int{10, 10_000}

func forSizes(bm *testing.B, run func(bm *testing.B, b *drivertest.Bench)) {
	for _, size := range sizes {
		bm.Run(fmt.Sprint(size), func(bm *testing.B) {
			b := bench(bm)
			populate(b, size)
			bm.ReportAllocs()
			bm.ResetTimer()
			run(bm, b)
		})
	}
}

func BenchmarkAddDelete(bm *testing.B) {
	forSizes(bm, func(bm *testing.B, b *drivertest.Bench) {
		options := b.Options(`{"driver":"null-co","node-name":"x"}`)
		b.Main(func(l *aio.Lock) {
			for range bm.N {
				if _, err := b.Graph.AddNode(l, options.Clone()); err != nil {
					bm.Fatal(err)
				}
				if err := b.Graph.DeleteNode(l, "x"); err != nil {
					bm.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkAddDeleteParent adds to a node that all others use as well.
func BenchmarkAddDeleteParent(bm *testing.B) {
	for _, size := range sizes {
		bm.Run(fmt.Sprint(size), func(bm *testing.B) {
			b := bench(bm)
			b.Add(`{"driver":"null-co","node-name":"n"}`)
			for i := range size {
				b.Add(fmt.Sprintf(`{"driver":"raw","node-name":"r%d","file":"n"}`, i))
			}
			options := b.Options(`{"driver":"raw","node-name":"x","file":"n"}`)
			bm.ReportAllocs()
			bm.ResetTimer()
			b.Main(func(l *aio.Lock) {
				for range bm.N {
					if _, err := b.Graph.AddNode(l, options.Clone()); err != nil {
						bm.Fatal(err)
					}
					if err := b.Graph.DeleteNode(l, "x"); err != nil {
						bm.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkInsertRemove(bm *testing.B) {
	forSizes(bm, func(bm *testing.B, b *drivertest.Bench) {
		blk := b.Graph.NewBackend("", block.PermConsistentRead, block.PermAll)
		n := b.Graph.Node("r1")
		b.Main(func(l *aio.Lock) {
			for range bm.N {
				if err := blk.Insert(l, n); err != nil {
					bm.Fatal(err)
				}
				blk.Remove(l)
			}
			blk.Close(l)
		})
	})
}

func BenchmarkReopen(bm *testing.B) {
	forSizes(bm, func(bm *testing.B, b *drivertest.Bench) {
		options := b.Options(`{"driver":"raw","node-name":"r1","file":"n1"}`)
		b.Main(func(l *aio.Lock) {
			for range bm.N {
				if err := b.Graph.Reopen(l, []*block.Options{options.Clone()}); err != nil {
					bm.Fatal(err)
				}
			}
		})
	})
}

func BenchmarkLookup(bm *testing.B) {
	forSizes(bm, func(bm *testing.B, b *drivertest.Bench) {
		for range bm.N {
			if _, err := b.Graph.Lookup("n3", "n3"); err != nil {
				bm.Fatal(err)
			}
		}
	})
}

// BenchmarkLength is the operation that the program began with, by every way.
func BenchmarkLength(bm *testing.B) {
	b := bench(bm)
	n := b.Add(`{"driver":"raw","node-name":"r","file":{"driver":"null-co"}}`)
	run := func(c aio.Caller) func(*testing.B) {
		return func(bm *testing.B) {
			bm.ReportAllocs()
			for range bm.N {
				if err := n.RefreshTotalSectors(c, 0); err != nil {
					bm.Fatal(err)
				}
			}
		}
	}
	b.Graph.Main().Enter("bench", func(co *aio.Co) { bm.Run("coroutine", run(co)) })
	b.Main(func(l *aio.Lock) { bm.Run("lock", run(l)) })
	bm.Run("outside", run(aio.Outside))
}

// BenchmarkWrite is an aligned and an unaligned write in memory.
func BenchmarkWrite(bm *testing.B) {
	for _, n := range []int{4096, 100} {
		bm.Run(fmt.Sprint(n), func(bm *testing.B) {
			disk, blk := mem(bm, `,"size":65536,"align":512`)
			v := drivertest.Fill(1, n)
			bm.ReportAllocs()
			blk.Node().Context().Enter("bench", func(co *aio.Co) {
				for i := range bm.N {
					if err := blk.CoPwritev(co, 0, v, 0); err != nil {
						bm.Fatal(err)
					}
					if i%1000 == 0 {
						disk.TakeCalls()
					}
				}
			})
		})
	}
}
