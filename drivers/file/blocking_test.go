package file_test

import (
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// Every kind of request gets through when only one may block at a time, also
// while the graph changes and the file is reopened; after each the next one
// finds its place free.
func TestOneRequestBlocks(t *testing.T) {
	t.Parallel()
	path, _ := random(t, 1<<20)
	b := bench(t)
	b.Graph.Main().SetMaxBlocking(1)
	options := `"discard":"unmap","auto-read-only":true`
	n := b.Add(node(path, options))
	b.Add(`{"driver":"raw","node-name":"r","discard":"unmap","file":"n0"}`)
	blk := b.Use(b.Graph.Node("r"))
	var wg sync.WaitGroup
	for worker := range int64(8) {
		wg.Go(func() {
			at := worker << 16
			for range 20 {
				for name, f := range map[string]func() error{
					"read":     func() error { return blk.Preadv(aio.Outside, at, drivertest.Fill(0, 4096)) },
					"write":    func() error { return blk.Pwritev(aio.Outside, at, drivertest.Fill(1, 4096), block.ReqFUA) },
					"zeroes":   func() error { return blk.PwriteZeroes(aio.Outside, at, 8192, block.ReqMayUnmap) },
					"discard":  func() error { return blk.Pdiscard(aio.Outside, at, 8192) },
					"flush":    func() error { return blk.Flush(aio.Outside) },
					"truncate": func() error { return blk.Truncate(aio.Outside, 1<<20, true, block.PreallocOff, 0) },
					"status": func() error {
						_, err := n.BlockStatus(aio.Outside, true, at, 4096)
						return err
					},
				} {
					if err := f(); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
		})
	}
	for _, more := range []string{"", `,"cache":{"direct":true}`, `,"x-check-cache-dropped":false`, ""} {
		if err := b.Reopen(node(path, options+more)); err != nil {
			t.Error(err)
		}
		if _, err := b.TryAdd(named("other", path, `"read-only":true,"locking":"off"`)); err != nil {
			t.Error(err)
		}
		b.Delete("other")
	}
	wg.Wait()
}
