package block_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/qerr"
)

// bitmapOn adds a bitmap to a node.
func bitmapOn(tb testing.TB, b *drivertest.Bench, n *block.Node, name string, granularity int64) (d *block.DirtyBitmap) {
	tb.Helper()
	b.Main(func(l *aio.Lock) {
		var err error
		d, err = n.CreateDirtyBitmap(l, name, granularity)
		must(tb, err)
	})
	return d
}

// dirty lists the dirty areas: "512+1024".
func dirty(d *block.DirtyBitmap) string {
	var areas []string
	d.Use(func(bits *hbitmap.Bitmap) {
		for at := int64(0); ; {
			start, length, ok := bits.NextArea(at, bits.Size()-at, bits.Size())
			if !ok {
				return
			}
			areas = append(areas, fmt.Sprintf("%d+%d", start, length))
			at = start + length
		}
	})
	return strings.Join(areas, " ")
}

// Every request that may change what can be read is recorded, and no other.
func TestDirtyBitmapRequests(t *testing.T) {
	t.Parallel()
	co := func(blk *block.Backend, f func(co *aio.Co) error) error {
		n := blk.Node()
		_, err := aio.Mixed(aio.Outside, n.Context(), "test", func(co *aio.Co) (struct{}, error) { return struct{}{}, f(co) })
		return err
	}
	for _, c := range []struct {
		name, options, want string
		do                  func(blk *block.Backend) error
	}{
		{"read", "", "", func(blk *block.Backend) error { return blk.Preadv(aio.Outside, 0, drivertest.Fill(0, 4096)) }},
		{"flush", "", "", func(blk *block.Backend) error { return blk.Flush(aio.Outside) }},
		{"write", "", "1024+512", func(blk *block.Backend) error { return blk.Pwritev(aio.Outside, 1024, drivertest.Fill(1, 512), 0) }},
		{"part of a unit", "", "1024+1024", func(blk *block.Backend) error { return blk.Pwritev(aio.Outside, 1530, drivertest.Fill(1, 10), 0) }},
		{"unaligned", `,"align":4096`, "4096+4096", func(blk *block.Backend) error { return blk.Pwritev(aio.Outside, 4100, drivertest.Fill(1, 10), 0) }},
		{"nothing", "", "", func(blk *block.Backend) error { return blk.Pwritev(aio.Outside, 1024, block.Vec{}, 0) }},
		{"the end", "", "65024+512", func(blk *block.Backend) error { return blk.Pwritev(aio.Outside, 65535, drivertest.Fill(1, 1), 0) }},
		{"durable", "", "0+512", func(blk *block.Backend) error {
			return blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), block.ReqFUA)
		}},
		{"pieces", `,"max-transfer":1024`, "512+8192", func(blk *block.Backend) error { return blk.Pwritev(aio.Outside, 512, drivertest.Fill(1, 8192), 0) }},
		{"zeroes", `,"zero":true`, "2048+4096", func(blk *block.Backend) error { return blk.PwriteZeroes(aio.Outside, 2048, 4096, 0) }},
		{"zeroes by hand", "", "2048+4096", func(blk *block.Backend) error { return blk.PwriteZeroes(aio.Outside, 2048, 4096, 0) }},
		{"zeroes, unmapped", `,"zero":true`, "2048+4096", func(blk *block.Backend) error {
			return blk.PwriteZeroes(aio.Outside, 2048, 4096, block.ReqMayUnmap)
		}},
		{"discard", "", "2048+4096", func(blk *block.Backend) error { return blk.Pdiscard(aio.Outside, 2048, 4096) }},
		{"write of what is there", "", "512+512", func(blk *block.Backend) error {
			return co(blk, func(co *aio.Co) error {
				return blk.Node().CoPwritev(co, 512, drivertest.Fill(0, 512), block.ReqWriteUnchanged)
			})
		}},
		{"beyond the end", "", "", func(blk *block.Backend) error {
			if err := blk.Pwritev(aio.Outside, 65536, drivertest.Fill(1, 512), 0); err == nil {
				return qerr.New("it was let through")
			}
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := bench(t)
			n := b.Add(`{"driver":"mem","node-name":"m","discard":"unmap","size":65536` + c.options + `}`)
			d := bitmapOn(t, b, n, "b", 512)
			off := bitmapOn(t, b, n, "off", 512)
			off.SetEnabled(false)
			own := bitmapOn(t, b, n, "", 512)
			must(t, c.do(b.Use(n)))
			if got := dirty(d); got != c.want {
				t.Errorf("dirty: %q, want %q", got, c.want)
			}
			if got := dirty(own); got != c.want {
				t.Errorf("in a bitmap without a name: %q, want %q", got, c.want)
			}
			if got := dirty(off); got != "" {
				t.Errorf("in a bitmap that is off: %q", got)
			}
		})
	}
}

// A request that fails may have written some of it.
func TestDirtyBitmapFailingRequests(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"mem","node-name":"m","discard":"unmap","size":65536,"zero":true}`)
	drivertest.DiskOf(n).SetHook(func(*aio.Co, drivertest.Call) error { return qerr.From(syscall.EIO) })
	d := bitmapOn(t, b, n, "b", 512)
	blk := b.Use(n)
	for _, c := range []struct {
		do   func() error
		want string
	}{
		{func() error { return blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), 0) }, "0+512"},
		{func() error { return blk.PwriteZeroes(aio.Outside, 1024, 512, 0) }, "0+512 1024+512"},
		{func() error { return blk.Pdiscard(aio.Outside, 2048, 512) }, "0+512 1024+512 2048+512"},
	} {
		if err := c.do(); err == nil {
			t.Error("the request did not fail")
		}
		if got := dirty(d); got != c.want {
			t.Errorf("dirty: %q, want %q", got, c.want)
		}
	}
	drivertest.DiskOf(n).SetHook(nil)
}

// Writers in other goroutines leave nothing out while bitmaps come, go, are
// cleared and read.
func TestDirtyBitmapConcurrently(t *testing.T) {
	t.Parallel()
	b := bench(t)
	const size, writers, each = 1 << 20, 4, 200
	n := b.Add(fmt.Sprintf(`{"driver":"mem","node-name":"m","size":%d}`, size))
	all := bitmapOn(t, b, n, "all", 512)
	cleared := bitmapOn(t, b, n, "cleared", 4096)
	sum := hbitmap.New(size, 4096)
	blk := b.Use(n)
	model := hbitmap.New(size, 512)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range writers {
		rng := rand.New(rand.NewPCG(uint64(w), 1))
		wg.Go(func() {
			for range each {
				at, length := rng.Int64N(size/512-8)*512, 512*(1+rng.Int64N(8))
				if err := blk.Pwritev(aio.Outside, at, drivertest.Fill(1, int(length)), 0); err != nil {
					t.Error(err)
				}
				mu.Lock()
				model.Set(at, length)
				mu.Unlock()
			}
		})
	}
	for k := range 100 {
		other := bitmapOn(t, b, n, fmt.Sprint("other", k), 65536)
		b.Main(func(l *aio.Lock) {
			sum.Merge(cleared.Clear())
			_ = all.Count()
			other.SetEnabled(k%2 == 0)
			_, err := other.Merge(all)
			must(t, err)
			other.Release()
		})
	}
	wg.Wait()
	sum.Merge(cleared.Clear())
	want := hbitmap.New(size, 4096)
	want.Merge(model)
	if sum.SHA256() != want.SHA256() {
		t.Error("what was cleared is not what was written")
	}
	all.Use(func(bits *hbitmap.Bitmap) {
		if bits.SHA256() != model.SHA256() {
			t.Error("what is dirty is not what was written")
		}
	})
	if got := len(n.DirtyBitmaps()); got != 2 {
		t.Errorf("%d bitmaps are left, want 2", got)
	}
}

// A bitmap is as long as its node; what is added is clean, and stays so when
// something was cut there.
func TestDirtyBitmapTruncate(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","file":{"driver":"mem","size":65536}}`)
	d := bitmapOn(t, b, n, "b", 4096)
	off := bitmapOn(t, b, n, "off", 4096)
	blk := b.Use(n)
	must(t, blk.Pwritev(aio.Outside, 60000, drivertest.Fill(1, 100), 0))
	off.SetEnabled(false)
	for _, c := range []struct {
		length int64
		want   string
	}{{131072, "57344+4096"}, {57856, "57344+512"}, {131072, "57344+4096"}, {57344, ""}, {65536, ""}} {
		must(t, blk.Truncate(aio.Outside, c.length, true, block.PreallocOff, 0))
		if got := dirty(d); got != c.want || d.Size() != c.length {
			t.Errorf("at a length of %d: %q, %d bytes; want %q", c.length, got, d.Size(), c.want)
		}
		if got := dirty(off); got != c.want || off.Size() != c.length {
			t.Errorf("at a length of %d, off: %q, %d bytes; want %q", c.length, got, off.Size(), c.want)
		}
	}
	must(t, blk.Pwritev(aio.Outside, 65000, drivertest.Fill(1, 100), 0))
	if got := dirty(d); got != "61440+4096" {
		t.Errorf("dirty: %q", got)
	}
}

// A bitmap survives when its node is reopened or handed over.
func TestDirtyBitmapStays(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","file":{"driver":"mem","node-name":"m","size":65536}}`)
	d := bitmapOn(t, b, n, "b", 4096)
	write := func(at int64) {
		blk := b.Use(n)
		must(t, blk.Pwritev(aio.Outside, at, drivertest.Fill(1, 100), 0))
		b.Drop(blk)
	}
	write(0)
	for _, more := range []string{`,"read-only":true`, `,"read-only":false`} {
		must(t, b.Reopen(`{"driver":"raw","node-name":"r","file":"m"`+more+`}`))
	}
	write(8192)
	b.Main(func(l *aio.Lock) {
		must(t, n.SetActive(l, false))
		_, err := n.CreateDirtyBitmap(l, "late", 0)
		must(t, err)
		must(t, n.SetActive(l, true))
	})
	write(16384)
	if got, want := dirty(d), "0+4096 8192+4096 16384+4096"; got != want {
		t.Errorf("dirty: %q, want %q", got, want)
	}
	if late, err := n.FindDirtyBitmap("late"); err != nil || dirty(late) != "0+65536" {
		t.Errorf("the late one: %v", err)
	}
}

// What cannot be used says why.
func TestDirtyBitmapCheck(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"mem","node-name":"m","size":65536}`)
	d := bitmapOn(t, b, n, "b", 512)
	for _, c := range []struct {
		set   func()
		allow block.BitmapFlags
		want  string
	}{
		{func() {}, 0, ""},
		{func() { d.SetReadOnly(true) }, 0, "Bitmap 'b' is readonly and cannot be modified"},
		{func() {}, block.BitmapAllowReadOnly, ""},
		{func() { d.SetInconsistent() }, block.BitmapAllowReadOnly, "Bitmap 'b' is inconsistent and cannot be used"},
		{func() {}, block.BitmapAllowReadOnly | block.BitmapAllowInconsistent, ""},
		{func() { d.SetBusy(true) }, block.BitmapAllowReadOnly | block.BitmapAllowInconsistent,
			"Bitmap 'b' is currently in use by another operation and cannot be used"},
	} {
		c.set()
		if got := text(d.Check(c.allow)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if d.Enabled() {
		t.Error("an inconsistent bitmap records")
	}
	b.Main(func(l *aio.Lock) {
		_, err := n.CreateDirtyBitmap(l, "b", 512)
		if got, want := text(err), "Bitmap already exists: b"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
	huge := b.Add(`{"driver":"null-co","node-name":"huge","size":72057594037927936}`)
	b.Main(func(l *aio.Lock) {
		if _, err := huge.CreateDirtyBitmap(l, "b", 512); err == nil {
			t.Error("a bitmap of 16 TiB was made")
		}
		if _, err := huge.CreateDirtyBitmap(l, "b", 1<<31); err != nil {
			t.Error(err)
		}
	})
}
