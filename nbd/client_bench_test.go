package nbd_test

import (
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
)

func socket(tb testing.TB, fd int) net.Conn {
	tb.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

// benchmark keeps depth requests of 4 KiB under way.
func benchmark(b *testing.B, request func(c *nbd.Client, v [][]byte) error) {
	for _, depth := range []int{1, 16} {
		b.Run(strconv.Itoa(depth), func(b *testing.B) {
			c, stop := minimal(b, nbd.Structured)
			defer stop()
			b.SetBytes(4096)
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for range depth {
				wg.Go(func() {
					v := [][]byte{make([]byte, 4096)}
					for left.Add(-1) >= 0 {
						if err := request(c, v); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func BenchmarkNBDRead4k(b *testing.B) {
	benchmark(b, func(c *nbd.Client, v [][]byte) error { return c.Read(4096, v) })
}

func BenchmarkNBDWrite4k(b *testing.B) {
	benchmark(b, func(c *nbd.Client, v [][]byte) error { return c.Write(4096, v, 0) })
}
