package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

func zero(tb testing.TB, blk *block.Backend, offset, bytes int64, flags block.ReqFlags) {
	tb.Helper()
	if err := blk.PwriteZeroes(aio.Outside, offset, bytes, flags); err != nil {
		tb.Fatalf("zeroing %d bytes at %d: %v", bytes, offset, err)
	}
}

func TestZeroes(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, options string) {
		path, content := random(t, 1<<20)
		b := bench(t)
		if options != "" {
			options = "," + options
		}
		blk := b.Use(b.Add(node(path, `"discard":"unmap"`+options)))
		before := stat(t, path).Blocks
		check := func(what string) {
			t.Helper()
			if on, err := os.ReadFile(path); err != nil || !bytes.Equal(on, content) {
				t.Errorf("%s: wrong bytes (%v)", what, err)
			}
		}

		zero(t, blk, 0, 64<<10, 0)
		clear(content[:64<<10])
		check("allocated")
		if now := stat(t, path).Blocks; now != before {
			t.Errorf("allocated zeroes took %d blocks, %d before", now, before)
		}
		zero(t, blk, 64<<10, 64<<10, block.ReqMayUnmap|block.ReqNoFallback)
		clear(content[64<<10 : 128<<10])
		check("unmapped")
		if now := stat(t, path).Blocks; now != before-128 {
			t.Errorf("after a hole of 64 KiB %d blocks, %d before", now, before)
		}
		zero(t, blk, 200_001, 10_001, block.ReqMayUnmap)
		clear(content[200_001:210_002])
		check("unaligned")
		if err := blk.Pdiscard(aio.Outside, 512<<10, 64<<10); err != nil {
			t.Error(err)
		}
		clear(content[512<<10 : 576<<10])
		check("discarded")
	})
}

// Without discard=unmap zeroes stay allocated and discards are not passed on.
func TestZeroesWithoutUnmap(t *testing.T) {
	t.Parallel()
	path, content := random(t, 1<<20)
	b := bench(t)
	blk := b.Use(b.Add(node(path, "")))
	before := stat(t, path).Blocks
	zero(t, blk, 0, 64<<10, block.ReqMayUnmap)
	if err := blk.Pdiscard(aio.Outside, 512<<10, 64<<10); err != nil {
		t.Error(err)
	}
	if now := stat(t, path).Blocks; now != before {
		t.Errorf("%d blocks, %d before", now, before)
	}
	clear(content[:64<<10])
	if on, err := os.ReadFile(path); err != nil || !bytes.Equal(on, content) {
		t.Errorf("wrong bytes (%v)", err)
	}
}

// Zeroes at the end of a file whose last sector is short make it whole.
func TestZeroesAtEnd(t *testing.T) {
	t.Parallel()
	path, _ := random(t, 1001)
	b := bench(t)
	blk := b.Use(b.Add(node(path, "")))
	zero(t, blk, 512, 512, 0)
	if size := stat(t, path).Size; size != 1024 {
		t.Errorf("%d bytes", size)
	}
	holds(t, blk, 512, 0, 512)
}

// A file system without zeroing (tmpfs has none) makes holes and fills them
// again; behind the end it just allocates.
func TestZeroesWithoutSupport(t *testing.T) {
	t.Parallel()
	fd, err := unix.MemfdCreate("zeroes", unix.MFD_CLOEXEC)
	if err != nil {
		t.Skip(err)
	}
	memory := os.NewFile(uintptr(fd), "memory")
	defer memory.Close()
	if err := unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 4096); err == nil {
		t.Skip("this tmpfs zeroes ranges")
	}
	if _, err := memory.WriteAt(drivertest.Fill(1, 1000)[0], 0); err != nil {
		t.Fatal(err)
	}
	b := bench(t)
	blk := b.Use(b.Add(node(fmt.Sprintf("/proc/self/fd/%d", fd), "")))
	zero(t, blk, 100, 100, block.ReqNoFallback)
	holds(t, blk, 0, 1, 100)
	holds(t, blk, 100, 0, 100)
	holds(t, blk, 200, 1, 800)
	zero(t, blk, 1000, 24, block.ReqNoFallback)
	if info, err := memory.Stat(); err != nil || info.Size() != 1024 {
		t.Errorf("%d bytes (%v)", info.Size(), err)
	}
}

func TestDiscardStats(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path, _ := random(t, 1<<20)
	n := b.Add(node(path, `"discard":"unmap"`))
	blk := b.Use(n)
	for _, area := range [][2]int64{{0, 64 << 10}, {100, 1000}} {
		if err := blk.Pdiscard(aio.Outside, area[0], area[1]); err != nil {
			t.Error(err)
		}
	}
	got := *n.Instance().(block.StatsGetter).DriverStats()
	if want := (block.DriverStats{Driver: "file", DiscardsOK: 2, DiscardBytes: 66536}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// extents lists what CoBlockStatus tells of a node: 'd' for data and 'z' for
// zeroes, with the length.
func extents(b *drivertest.Bench, n *block.Node, wantZero bool, length int64) (list []string, err error) {
	coroutine(b, func(co *aio.Co) {
		for at := int64(0); at < length && err == nil; {
			var st block.Status
			st, err = n.CoBlockStatus(co, wantZero, at, length-at)
			kind := "d"
			if st.Flags&block.StatusZero != 0 {
				kind = "z"
			}
			if st.Bytes == 0 || st.Flags&block.StatusOffsetValid == 0 || st.Map != at || st.File != n {
				err = fmt.Errorf("status at %d: %+v", at, st)
			}
			list = append(list, fmt.Sprintf("%s%d", kind, st.Bytes))
			at += st.Bytes
		}
	})
	return list, err
}

func TestBlockStatus(t *testing.T) {
	t.Parallel()
	path := sparse(t, 1<<20)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt(drivertest.Fill(1, 64<<10)[0], 128<<10)
	_, err2 := f.WriteAt([]byte("x"), 1<<20-1)
	if err := errors.Join(err1, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
	b := bench(t)
	n := b.Add(node(path, ""))
	got, err := extents(b, n, true, 1<<20)
	block := stat(t, path).Blksize
	want := []string{"z131072", "d65536", fmt.Sprintf("z%d", 1<<20-196608-block), fmt.Sprintf("d%d", block)}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
	if got, err := extents(b, n, false, 1<<20); err != nil || !slices.Equal(got, []string{"d1048576"}) {
		t.Errorf("without asking for zeroes: %v (%v)", got, err)
	}
}

// Data may end before the last sector does (observed with qemu-img map); past
// the page cache, in whole units only.
func TestBlockStatusAtEnd(t *testing.T) {
	t.Parallel()
	path, _ := random(t, 1000)
	b := bench(t)
	for more, want := range map[string][]string{"": {"d1000", "z24"}, `"cache":{"direct":true}`: {"d1024"}} {
		n := b.Add(node(path, more))
		if got, err := extents(b, n, true, 1024); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v (%v), want %v", more, got, err, want)
		}
		b.Delete("n0")
	}
}

func TestCopyRange(t *testing.T) {
	t.Parallel()
	b := bench(t)
	from, content := random(t, 1<<20)
	to := sparse(t, 1<<20)
	source, target := b.Add(named("source", from, "")), b.Add(named("target", to, ""))
	device := b.Add(`{"driver":"host_device","node-name":"device","filename":"/dev/null"}`)
	ranger := target.Instance().(block.CopyRanger)
	coroutine(b, func(co *aio.Co) {
		err := ranger.CoCopyRange(co, source, 12345, 54321, 500_000)
		if errors.Is(err, syscall.ENOTSUP) {
			t.Skip("this file system does not copy ranges")
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := ranger.CoCopyRange(co, source, 1<<20, 0, 512); err == nil {
			t.Error("copied what is behind the end")
		}
		if err := ranger.CoCopyRange(co, device, 0, 0, 512); !errors.Is(err, syscall.ENOTSUP) {
			t.Errorf("from a device: %v", err)
		}
	})
	want := make([]byte, 1<<20)
	copy(want[54321:], content[12345:512345])
	if on, err := os.ReadFile(to); err != nil || !bytes.Equal(on, want) {
		t.Errorf("wrong bytes (%v)", err)
	}
}
