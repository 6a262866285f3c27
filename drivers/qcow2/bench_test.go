package qcow2_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

const (
	benchSize  = 256 << 20
	benchBlock = 4096
)

// benchImage is an image in a file, made by hand. What is allocated is
// allocated in order.
func benchImage(b *testing.B, clusterBits uint, allocated bool, child string) *block.Node {
	b.Helper()
	path := b.TempDir() + "/image"
	if err := os.WriteFile(path, blank(3, clusterBits, benchSize, 0), 0o600); err != nil {
		b.Fatal(err)
	}
	n := bench(b).Add(fmt.Sprintf(`{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":%q%s}}`, path, child))
	if !allocated {
		return n
	}
	err := in(n, func(co *aio.Co) error {
		v := block.Vec{block.AlignedMemory(1 << 20)}
		for at := int64(0); at < benchSize; at += 1 << 20 {
			if err := n.CoPwritev(co, at, v, 0); err != nil {
				return err
			}
		}
		return n.CoFlush(co)
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// measure runs requests of the given length in one coroutine.
func measure(b *testing.B, n *block.Node, bytes int64, f func(co *aio.Co, i int, v block.Vec) error) {
	v := block.Vec{block.AlignedMemory(int(bytes))}
	b.SetBytes(bytes)
	b.ReportAllocs()
	err := in(n, func(co *aio.Co) error {
		i := 0
		for b.Loop() {
			if err := f(co, i, v); err != nil {
				return err
			}
			i++
		}
		return nil
	})
	if errors.Is(err, syscall.EAGAIN) {
		b.Skip("this file system does nothing at once")
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkInPlace is for clusters that are there: no metadata changes.
func BenchmarkInPlace(b *testing.B) {
	for _, read := range []bool{true, false} {
		name := map[bool]string{true: "read", false: "write"}[read]
		do := func(n *block.Node, co *aio.Co, at int64, v block.Vec, flags block.ReqFlags) error {
			if read {
				return n.CoPreadv(co, at, v, flags)
			}
			return n.CoPwritev(co, at, v, flags)
		}
		random := func(flags block.ReqFlags) func(*testing.B) {
			return func(b *testing.B) {
				n := benchImage(b, 16, true, "")
				rng := rand.New(rand.NewPCG(1, 1))
				measure(b, n, benchBlock, func(co *aio.Co, _ int, v block.Vec) error {
					return do(n, co, rng.Int64N(benchSize/benchBlock)*benchBlock, v, flags)
				})
			}
		}
		b.Run("random-4k-"+name, random(0))
		b.Run("random-4k-"+name+"-immediate", random(block.ReqImmediate))
		b.Run("sequential-1M-"+name, func(b *testing.B) {
			n := benchImage(b, 16, true, "")
			measure(b, n, 1<<20, func(co *aio.Co, i int, v block.Vec) error {
				return do(n, co, int64(i)%(benchSize>>20)<<20, v, 0)
			})
		})
	}
}

// BenchmarkAllocate is for clusters that are not there yet. The image is made
// anew when it is full.
func BenchmarkAllocate(b *testing.B) {
	for _, c := range []struct {
		name        string
		clusterBits uint
		bytes       int64
	}{
		{"4k-of-64k", 16, 4096},
		{"64k-of-64k", 16, 65536},
		{"4k-of-2M", 21, 4096},
		{"1M-of-64k", 16, 1 << 20},
	} {
		b.Run(c.name, func(b *testing.B) {
			cluster := max(int64(1)<<c.clusterBits, c.bytes)
			n := benchImage(b, c.clusterBits, false, `,"discard":"unmap"`)
			measure(b, n, c.bytes, func(co *aio.Co, i int, v block.Vec) error {
				at := int64(i) * cluster % benchSize
				if at == 0 && i > 0 {
					b.StopTimer()
					if err := n.Instance().(block.Truncater).CoTruncate(co, 0, false, block.PreallocOff, 0); err != nil {
						return err
					}
					if err := n.Instance().(block.Truncater).CoTruncate(co, benchSize, false, block.PreallocOff, 0); err != nil {
						return err
					}
					b.StartTimer()
				}
				return n.CoPwritev(co, at, v, 0)
			})
		})
	}
}

// BenchmarkCompressed reads compressed clusters.
func BenchmarkCompressed(b *testing.B) {
	n := benchImage(b, 16, false, "")
	rng := rand.New(rand.NewPCG(1, 1))
	err := in(n, func(co *aio.Co) error {
		data := make([]byte, 65536)
		for at := int64(0); at < 16<<20; at += 65536 {
			for i := range data {
				data[i] = byte(rng.IntN(4))
			}
			if err := n.CoPwritev(co, at, block.Vec{data}, block.ReqCompressed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	measure(b, n, 65536, func(co *aio.Co, _ int, v block.Vec) error {
		return n.CoPreadv(co, rng.Int64N(256)*65536, v, 0)
	})
}

// BenchmarkOpen opens and closes an image. Its L1 table grows with the disk.
func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name string
		size uint64
	}{
		{"1G", 1 << 30},
		{"64T", 64 << 40},
	} {
		b.Run(c.name, func(b *testing.B) {
			path := b.TempDir() + "/image"
			err := errors.Join(os.WriteFile(path, blank(3, 16, c.size, 0), 0o600), os.Truncate(path, 2<<20))
			if err != nil {
				b.Fatal(err)
			}
			bench := bench(b)
			options := fmt.Sprintf(`{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":%q}}`, path)
			b.ReportAllocs()
			for b.Loop() {
				bench.Add(options)
				bench.Delete("q")
			}
		})
	}
}
