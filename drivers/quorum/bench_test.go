package quorum_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// BenchmarkRead and BenchmarkWrite are about what quorum adds: the children take
// no time.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 2, 3, 5} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			blk, vec := overNothing(b, n)
			for b.Loop() {
				must(b, blk.Preadv(aio.Outside, 0, vec))
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{1, 2, 3, 5} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			blk, vec := overNothing(b, n)
			for b.Loop() {
				must(b, blk.Pwritev(aio.Outside, 0, vec, 0))
			}
		})
	}
}

func overNothing(b *testing.B, n int) (*block.Backend, block.Vec) {
	v := newBench(b)
	child := `{"driver":"null-co","size":1048576,"read-zeroes":true}`
	children := strings.TrimSuffix(strings.Repeat(child+",", n), ",")
	b.SetBytes(4096)
	b.ReportAllocs()
	return v.Use(v.Add(`{"driver":"quorum","node-name":"q","vote-threshold":1,"children":[` + children + `]}`)), block.Vec{make([]byte, 4096)}
}
