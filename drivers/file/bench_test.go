package file_test

import (
	"fmt"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// benchmark runs one request of the driver again and again in a coroutine, as
// the block layer does, with memory as the options want it.
func benchmark(b *testing.B, options string, buffers int, f func(i *instance, co *aio.Co, v block.Vec) error) {
	bench := bench(b)
	path, _ := random(b, 1<<20)
	n := bench.Add(node(path, options))
	bench.Use(n)
	const size = 64 << 10
	memory := block.AlignedMemory(size)
	var v block.Vec
	for at := range buffers {
		v = append(v, memory[at*size/buffers:(at+1)*size/buffers])
	}
	i := &instance{n.Instance().(block.Reader), n.Instance().(block.Writer)}
	b.SetBytes(size)
	b.ReportAllocs()
	coroutine(bench, func(co *aio.Co) {
		for b.Loop() {
			if err := f(i, co, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

type instance struct {
	block.Reader
	block.Writer
}

func BenchmarkRead(b *testing.B) {
	for name, options := range modes {
		for _, buffers := range []int{1, 8, 16} {
			b.Run(fmt.Sprintf("%s/%d", name, buffers), func(b *testing.B) {
				benchmark(b, options, buffers, func(i *instance, co *aio.Co, v block.Vec) error {
					return i.CoPreadv(co, 4096, v, 0)
				})
			})
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for name, options := range modes {
		for _, buffers := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", name, buffers), func(b *testing.B) {
				benchmark(b, options, buffers, func(i *instance, co *aio.Co, v block.Vec) error {
					return i.CoPwritev(co, 4096, v, 0)
				})
			})
		}
	}
}

// BenchmarkBackend is the whole way from a user in a coroutine to the disk.
func BenchmarkBackend(b *testing.B) {
	bench := bench(b)
	path, _ := random(b, 1<<20)
	blk := bench.Use(bench.Add(node(path, "")))
	v := block.Vec{block.AlignedMemory(4096)}
	b.ReportAllocs()
	coroutine(bench, func(co *aio.Co) {
		for b.Loop() {
			if err := blk.Preadv(co, 4096, v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkImmediate is what a server tries first: one request of a user in a
// coroutine, through raw, that is answered from memory.
func BenchmarkImmediate(b *testing.B) {
	for name, request := range map[string]func(*block.Backend, *aio.Co, block.Vec) error{
		"read": func(blk *block.Backend, co *aio.Co, v block.Vec) error {
			return blk.CoPreadv(co, 4096, v, block.ReqImmediate)
		},
		"write": func(blk *block.Backend, co *aio.Co, v block.Vec) error {
			return blk.CoPwritev(co, 4096, v, block.ReqImmediate)
		},
		"waiting read": func(blk *block.Backend, co *aio.Co, v block.Vec) error { return blk.CoPreadv(co, 4096, v, 0) },
	} {
		b.Run(name, func(b *testing.B) {
			bench := bench(b)
			path, _ := random(b, 1<<20)
			blk := bench.Use(bench.Add(`{"driver":"raw","node-name":"r","file":` + named("f", path, "") + `}`))
			v := block.Vec{block.AlignedMemory(4096)}
			b.ReportAllocs()
			coroutine(bench, func(co *aio.Co) {
				for b.Loop() {
					if err := request(blk, co, v); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkUse attaches and detaches a user: five locks and four looks.
func BenchmarkUse(b *testing.B) {
	bench := bench(b)
	path, _ := random(b, 4096)
	n := bench.Add(node(path, ""))
	bench.Main(func(l *aio.Lock) {
		for b.Loop() {
			blk := bench.Graph.NewBackend("", read|write|resize, read|writeUnchanged)
			if err := blk.Insert(l, n); err != nil {
				b.Fatal(err)
			}
			blk.Close(l)
		}
	})
}

// BenchmarkAdd opens and closes a node.
func BenchmarkAdd(b *testing.B) {
	bench := bench(b)
	path, _ := random(b, 4096)
	o := bench.Options(node(path, ""))
	bench.Main(func(l *aio.Lock) {
		for b.Loop() {
			if _, err := bench.Graph.AddNode(l, o.Clone()); err != nil {
				b.Fatal(err)
			}
			if err := bench.Graph.DeleteNode(l, "n0"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStatus asks for the status through a raw node, as a server of
// sparse reads does for each request. A miss asks the file system; the driver
// alone shows what that costs.
func BenchmarkStatus(b *testing.B) {
	path, _ := random(b, 1<<20)
	ask := func(b *testing.B, options string, ask func(co *aio.Co, n *block.Node) error) {
		bench := bench(b)
		n := bench.Add(options)
		b.ReportAllocs()
		coroutine(bench, func(co *aio.Co) {
			for b.Loop() {
				if err := ask(co, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("hit", func(b *testing.B) {
		ask(b, `{"driver":"raw","node-name":"r","file":`+named("f", path, "")+`}`, func(co *aio.Co, n *block.Node) error {
			_, _, err := n.CoBlockStatusAbove(co, nil, false, true, 4096, 65536)
			return err
		})
	})
	b.Run("miss", func(b *testing.B) {
		ask(b, `{"driver":"raw","node-name":"r","file":`+named("f", sparse(b, 1<<20), "")+`}`, func(co *aio.Co, n *block.Node) error {
			_, _, err := n.CoBlockStatusAbove(co, nil, false, true, 4096, 65536)
			return err
		})
	})
	b.Run("driver", func(b *testing.B) {
		ask(b, node(path, ""), func(co *aio.Co, n *block.Node) error {
			_, err := n.Instance().(block.StatusGetter).CoBlockStatus(co, true, 4096, 65536)
			return err
		})
	})
}
