package block_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// mem adds a disk in memory and a user of it.
func mem(tb testing.TB, options string) (*drivertest.Disk, *block.Backend) {
	b := bench(tb)
	n := b.Add(`{"driver":"mem","node-name":"m","discard":"unmap"` + options + `}`)
	return drivertest.DiskOf(n), b.Use(n)
}

// What reaches a driver with certain limits, for one request each.
func TestRequestsAtDriver(t *testing.T) {
	t.Parallel()
	read := func(offset int64, n int) func(*block.Backend) error {
		return func(b *block.Backend) error { return b.Preadv(aio.Outside, offset, drivertest.Fill(0, n)) }
	}
	write := func(offset int64, n int, flags block.ReqFlags) func(*block.Backend) error {
		return func(b *block.Backend) error {
			return b.Pwritev(aio.Outside, offset, drivertest.Fill(1, n), flags)
		}
	}
	zero := func(offset, n int64, flags block.ReqFlags) func(*block.Backend) error {
		return func(b *block.Backend) error { return b.PwriteZeroes(aio.Outside, offset, n, flags) }
	}
	discard := func(offset, n int64) func(*block.Backend) error {
		return func(b *block.Backend) error { return b.Pdiscard(aio.Outside, offset, n) }
	}
	for _, c := range []struct {
		name, options string
		request       func(*block.Backend) error
		want          []string
	}{
		{"any byte", ``, write(100, 50, 0), []string{"write 100+50"}},
		{"aligned", `,"align":512`, write(512, 1024, 0), []string{"write 512+1024"}},
		{"read in a block", `,"align":512`, read(600, 10), []string{"read 512+512"}},
		{"read across blocks", `,"align":512`, read(500, 1000), []string{"read 0+1536"}},
		{"write in a block", `,"align":4096`, write(100, 50, 0), []string{"read 0+4096", "write 0+4096"}},
		{"write with a head", `,"align":512`, write(100, 924, 0), []string{"read 0+512", "write 0+1024"}},
		{"write with a tail", `,"align":512`, write(512, 600, 0), []string{"read 1024+512", "write 512+1024"}},
		{"write with both", `,"align":512`, write(100, 1000, 0), []string{"read 0+512", "read 1024+512", "write 0+1536"}},
		{"split read", `,"max-transfer":2048`, read(0, 5000), []string{"read 0+2048", "read 2048+2048", "read 4096+904"}},
		{"split write", `,"align":512,"max-transfer":1500`, write(0, 2560, 0), []string{"write 0+1024", "write 1024+1024", "write 2048+512"}},
		{"split below alignment", `,"align":1024,"max-transfer":512`, write(0, 2048, 0), []string{"write 0+1024", "write 1024+1024"}},
		{"zeroes by driver", `,"zero":true`, zero(100, 10000, block.ReqMayUnmap), []string{"zero 100+10000 unmap"}},
		{"zeroes by hand", ``, zero(100, 10000, block.ReqMayUnmap), []string{"write 100+10000"}},
		{"large zeroes by hand", ``, zero(0, 5<<19, 0), []string{"write 0+1048576", "write 1048576+1048576", "write 2097152+524288"}},
		{"zeroes, no other way", `,"zero":true`, zero(0, 4096, block.ReqNoFallback), []string{"zero 0+4096 no-fallback"}},
		{"split zeroes", `,"zero":true,"max-zero":4096`, zero(0, 10000, 0), []string{"zero 0+4096", "zero 4096+4096", "zero 8192+1808"}},
		{
			"zeroes in units", `,"zero":true,"zero-align":4096`, zero(1000, 10000, 0),
			[]string{"write 1000+3096", "zero 4096+4096", "write 8192+2808"},
		},
		{
			"zeroes across blocks", `,"zero":true,"align":512`, zero(100, 2000, 0),
			[]string{"read 0+512", "write 0+512", "zero 512+1536", "read 2048+512", "write 2048+512"},
		},
		{"zeroes in a block", `,"zero":true,"align":512`, zero(100, 50, 0), []string{"read 0+512", "write 0+512"}},
		{"discard", ``, discard(100, 5000), []string{"discard 100+5000"}},
		{
			"discard of edges", `,"align":512`, discard(100, 2000),
			[]string{"discard 100+412", "discard 512+1536", "discard 2048+52"},
		},
		{"split discard", `,"max-discard":2048`, discard(0, 5000), []string{"discard 0+2048", "discard 2048+2048", "discard 4096+904"}},
		{
			"discard in units", `,"align":512,"discard-align":2048`, discard(512, 4096),
			[]string{"discard 512+1536", "discard 2048+2048", "discard 4096+512"},
		},
		{"durable by driver", `,"fua":true`, write(0, 512, block.ReqFUA), []string{"write 0+512 fua"}},
		{"durable by flush", ``, write(0, 512, block.ReqFUA), []string{"write 0+512", "flush"}},
		{"durable zeroes", `,"zero":true,"fua":true`, zero(0, 512, block.ReqFUA), []string{"zero 0+512", "flush"}},
		{"durable zeroes by hand", `,"fua":true`, zero(0, 512, block.ReqFUA), []string{"write 0+512 fua"}},
		{"nothing", `,"align":512`, write(100, 0, 0), nil},
		{"no zeroes", ``, zero(100, 0, 0), nil},
		{"no discard", ``, discard(100, 0), nil},
		{"zeroes seen", `,"zero":true,"detect-zeroes":"on"`, func(b *block.Backend) error {
			return b.Pwritev(aio.Outside, 0, drivertest.Fill(0, 512), 0)
		}, []string{"zero 0+512"}},
		{"zeroes seen and unmapped", `,"zero":true,"detect-zeroes":"unmap"`, func(b *block.Backend) error {
			return b.Pwritev(aio.Outside, 0, drivertest.Fill(0, 512), 0)
		}, []string{"zero 0+512 unmap"}},
		{"zeroes sought", `,"zero":true,"detect-zeroes":"on"`, write(0, 512, 0), []string{"write 0+512"}},
	} {
		disk, blk := mem(t, `,"size":4194304`+c.options)
		if err := c.request(blk); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := disk.TakeCalls(); !slices.Equal(got, c.want) {
			t.Errorf("%s: the driver got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
	blk := b.Use(n)
	empty := b.Graph.NewBackend("", 0, block.PermAll)
	defer b.Main(func(l *aio.Lock) { empty.Close(l) })
	readOnly, err := b.TryUse(b.Add(`{"driver":"mem","node-name":"ro","size":4096,"read-only":true}`), block.PermConsistentRead, block.PermAll)
	must(t, err)
	v := drivertest.Fill(1, 512)
	for name, c := range map[string]struct {
		err  error
		want syscall.Errno
	}{
		"read at the end":    {blk.Preadv(aio.Outside, 4000, v), syscall.EIO},
		"write at the end":   {blk.Pwritev(aio.Outside, 4096, v, 0), syscall.EIO},
		"negative offset":    {blk.Pwritev(aio.Outside, -512, v, 0), syscall.EIO},
		"negative length":    {blk.PwriteZeroes(aio.Outside, 0, -1, 0), syscall.EIO},
		"discard at the end": {blk.Pdiscard(aio.Outside, 4095, 2), syscall.EIO},
		"far away":           {blk.PwriteZeroes(aio.Outside, 1<<63-1, 1<<40, 0), syscall.EIO},
		"no fallback":        {blk.PwriteZeroes(aio.Outside, 0, 512, block.ReqNoFallback), syscall.ENOTSUP},
		"read-only write":    {readOnly.Pwritev(aio.Outside, 0, v, 0), syscall.EPERM},
		"read-only discard":  {readOnly.Pdiscard(aio.Outside, 0, 512), syscall.EPERM},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	if err := empty.Preadv(aio.Outside, 0, v); text(err) != "No medium inserted" {
		t.Errorf("nothing inserted: %v", err)
	}
}

// Reading across the end gives zeroes behind it, to those who may.
func TestReadBeyondEnd(t *testing.T) {
	t.Parallel()
	for _, align := range []int{1, 512} {
		_, blk := mem(t, fmt.Sprintf(`,"size":4096,"align":%d`, align))
		blk.AllowWriteBeyondEOF = true
		must(t, outside{blk}.write(0, 4096, 7))
		v := drivertest.Fill(0xee, 3000)
		must(t, blk.Preadv(aio.Outside, 3000, v))
		if want := append(bytes.Repeat([]byte{7}, 1096), make([]byte, 1904)...); !bytes.Equal(v[0], want) {
			t.Errorf("align %d: got %v", align, v[0])
		}
		must(t, outside{blk}.write(8000, 100, 9))
		if length, err := blk.GetLength(aio.Outside); err != nil || length < 8100 {
			t.Errorf("align %d: the disk has grown to %d, %v", align, length, err)
		}
		if got, err := (outside{blk}).read(8050, 1); err != nil || got != 9 {
			t.Errorf("align %d: read %d, %v", align, got, err)
		}
	}
}

// Errors of the driver come back, also from the cycle of an unaligned write.
func TestDriverErrors(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":8192,"align":512,"max-transfer":1024`)
	for _, c := range []struct {
		at  string
		do  func() error
		got string
	}{
		{"write 1024+1024", func() error { return outside{blk}.write(0, 4096, 1) }, ""},
		{"read 0+512", func() error { return outside{blk}.write(10, 10, 1) }, ""},
		{"write 0+512", func() error { return outside{blk}.write(10, 10, 1) }, ""},
		{"discard 512+512", func() error { return blk.Pdiscard(aio.Outside, 512, 512) }, ""},
		{"flush", func() error { return blk.Flush(aio.Outside) }, ""},
		{"flush", func() error { return blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), block.ReqFUA) }, ""},
	} {
		disk.SetHook(func(_ *aio.Co, call drivertest.Call) error {
			if call.String() == c.at {
				return syscall.ENOSPC
			}
			return nil
		})
		if err := c.do(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", c.at, err)
		}
	}
	disk.SetHook(nil)
	must(t, outside{blk}.write(10, 10, 1))
}

// A panic in a driver fails the request, and nothing stays locked.
func TestDriverPanic(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":8192,"align":512`)
	disk.SetHook(func(_ *aio.Co, call drivertest.Call) error { panic("boom") })
	if err := (outside{blk}).write(10, 10, 1); text(err) != "Internal error in blk_pwritev: boom" {
		t.Errorf("got %v", err)
	}
	disk.SetHook(nil)
	must(t, outside{blk}.write(10, 10, 1))
	must(t, blk.Flush(aio.Outside))
}

// TestAgainstModel: whatever the alignment, limits and abilities of a driver,
// users see a plain row of bytes.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	const size = 16384
	rapid.Check(t, func(rt *rapid.T) {
		options := fmt.Sprintf(
			`,"size":%d,"align":%d,"max-transfer":%d,"zero":%v,"zero-align":%d,"max-zero":%d,"discard-align":%d,"detect-zeroes":"%s"`,
			size,
			rapid.SampledFrom([]int{1, 512, 4096}).Draw(rt, "align"),
			rapid.SampledFrom([]int{0, 512, 1000, 8192}).Draw(rt, "max-transfer"),
			rapid.Bool().Draw(rt, "zero"),
			rapid.SampledFrom([]int{0, 4096}).Draw(rt, "zero-align"),
			rapid.SampledFrom([]int{0, 4096}).Draw(rt, "max-zero"),
			rapid.SampledFrom([]int{0, 4096}).Draw(rt, "discard-align"),
			rapid.SampledFrom([]string{"off", "on", "unmap"}).Draw(rt, "detect-zeroes"))
		_, blk := mem(t, options)
		model := make([]byte, size)
		area := func(rt *rapid.T) (offset, n int64) {
			offset = rapid.Int64Range(0, size).Draw(rt, "offset")
			return offset, rapid.Int64Range(0, min(size-offset, 9000)).Draw(rt, "bytes")
		}
		check := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				offset, n := area(rt)
				value := rapid.Byte().Draw(rt, "value")
				v := drivertest.Fill(value, int(n))
				cut := rapid.Int64Range(0, n).Draw(rt, "cut")
				split := append(v.Slice(0, cut), v.Slice(cut, n-cut)...)
				check(blk.Pwritev(aio.Outside, offset, split, 0))
				copy(model[offset:], v[0])
			},
			"zero": func(rt *rapid.T) {
				offset, n := area(rt)
				check(blk.PwriteZeroes(aio.Outside, offset, n, block.ReqMayUnmap))
				clear(model[offset : offset+n])
			},
			"discard": func(rt *rapid.T) {
				offset, n := area(rt)
				check(blk.Pdiscard(aio.Outside, offset, n))
				// What is left of the area is the driver's business.
				check(blk.Preadv(aio.Outside, offset, block.Vec{model[offset : offset+n]}))
			},
			"read": func(rt *rapid.T) {
				offset, n := area(rt)
				got := drivertest.Fill(0xee, int(n))
				check(blk.Preadv(aio.Outside, offset, got))
				if !bytes.Equal(got[0], model[offset:offset+n]) {
					rt.Fatalf("%d+%d: read %x, want %x", offset, n, got[0], model[offset:offset+n])
				}
			},
		})
	})
}

// Writers of different parts of one block do not undo each other's work: each
// keeps the block to itself while it reads, changes and writes it.
func TestReadModifyWriteIsAlone(t *testing.T) {
	t.Parallel()
	const writers, rounds, part = 16, 400, 32
	disk, blk := mem(t, `,"size":8192,"align":512`)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				value := byte(i + w)
				if err := (outside{blk}).write(int64(w*part), part, value); err != nil {
					t.Error(err)
				}
				if got, err := (outside{blk}).read(int64(w*part), part); err != nil || got != value {
					t.Errorf("writer %d: read %d, wrote %d, %v", w, got, value, err)
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		if got, want := disk.Bytes()[w*part], byte(rounds-1+w); got != want {
			t.Errorf("writer %d: %d is there, want %d", w, got, want)
		}
	}
}

// The same with a writer of whole blocks, who reads nothing back himself: what
// he has written must not be undone by a cycle that began before.
func TestReadModifyWriteKeepsWholeBlocks(t *testing.T) {
	t.Parallel()
	const rounds = 5000
	_, blk := mem(t, `,"size":512,"align":512`)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := (outside{blk}).write(0, 32, 0xaa); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range rounds {
		must(t, outside{blk}.write(0, 512, byte(i)))
		if got, err := (outside{blk}).read(256, 1); err != nil || got != byte(i) {
			t.Errorf("round %d: read %d, wrote %d, %v", i, got, byte(i), err)
		}
	}
	close(done)
	wg.Wait()
}

// A request that must not overlap others waits for those under way and holds
// up those behind it; one that must not wait fails.
func TestSerialising(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":8192`)
	started, release := make(chan string, 8), make(chan struct{})
	disk.SetHook(func(co *aio.Co, call drivertest.Call) error {
		started <- call.String()
		co.Yield(func() { <-release })
		return nil
	})
	write := func(offset int64, flags block.ReqFlags) chan error {
		done := make(chan error, 1)
		go func() { done <- blk.Pwritev(aio.Outside, offset, drivertest.Fill(1, 1024), flags) }()
		return done
	}
	ended := []chan error{write(0, 0)}
	if got := <-started; got != "write 0+1024" {
		t.Errorf("%s came first", got)
	}
	// Elsewhere nobody waits, and plain writes may overlap.
	ended = append(ended, write(4096, block.ReqSerialising), write(512, 0))
	if got := []string{<-started, <-started}; !slices.Contains(got, "write 4096+1024") || !slices.Contains(got, "write 512+1024") {
		t.Errorf("got %q", got)
	}
	if err := <-write(1000, block.ReqSerialising|block.ReqNoWait); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("got %v, want EBUSY", err)
	}
	if err := <-write(5000, block.ReqNoWait); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("got %v, want EBUSY", err)
	}
	ended = append(ended, write(1000, block.ReqSerialising))
	awaitYielded(blk.Node().Context(), 4)
	if len(started) != 0 {
		t.Errorf("%s did not wait", <-started)
	}
	close(release)
	for _, done := range ended {
		must(t, <-done)
	}
	if got := <-started; got != "write 1000+1024" {
		t.Errorf("%s came last", got)
	}
}
