package qcow2_test

import (
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

func TestX(t *testing.T) {
	path := create(t, t.TempDir(), "a", "", "1M")
	b := bench(t)
	n := b.Add(node(path, ""))
	b.Main(func(l *aio.Lock) {
		d, err := n.CreateDirtyBitmap(l, "b", 0)
		if err != nil {
			t.Fatal(err)
		}
		d.SetPersistent(true)
	})
	blk := b.Use(n)
	if err := blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 65536), 0); err != nil {
		t.Fatal(err)
	}
	b.Drop(blk)
	b.Delete("q")
	check(t, path, false)
	_ = block.PermAll
}
