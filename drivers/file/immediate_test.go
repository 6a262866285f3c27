package file_test

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// atOnce reads without waiting.
func atOnce(b *drivertest.Bench, blk *block.Backend, offset int64, v block.Vec) (err error) {
	coroutine(b, func(co *aio.Co) { err = blk.CoPreadv(co, offset, v, block.ReqImmediate) })
	return err
}

func TestImmediateRead(t *testing.T) {
	t.Parallel()
	path, content := random(t, 600_000)
	b := bench(t)
	blk := b.Use(b.Add(node(path, "")))
	// Reading brings the pages into memory, where writing may not have left them.
	if err := blk.Preadv(aio.Outside, 0, drivertest.Fill(0, 600_064)); err != nil {
		t.Fatal(err)
	}
	if err := atOnce(b, blk, 0, drivertest.Fill(0, 512)); errors.Is(err, syscall.EAGAIN) {
		t.Skip("this file system cannot read without waiting")
	}
	for _, c := range []struct {
		offset int64
		v      block.Vec
		ok     bool
	}{
		{100, drivertest.Fill(0xee, 5000), true},
		{0, drivertest.Fill(0xee, 256<<10), true},
		{0, drivertest.Fill(0xee, 256<<10+1), false},
		{12345, cut(make([]byte, 9999), 1, 0, 2, 3000), true},
		{12345, cut(make([]byte, 9999), many(15, 7)...), true},
		{12345, cut(make([]byte, 9999), many(16, 7)...), false},
		{599_000, drivertest.Fill(0xee, 1064), true}, // the end is at 600000
		{600_000, drivertest.Fill(0xee, 64), true},
	} {
		err := atOnce(b, blk, c.offset, c.v)
		if !c.ok {
			if !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("%d+%d: %v", c.offset, c.v.Len(), err)
			}
			continue
		}
		want := make([]byte, c.v.Len())
		copy(want, content[c.offset:])
		if err != nil || !bytes.Equal(flat(c.v), want) {
			t.Errorf("%d+%d: %v, or wrong bytes", c.offset, c.v.Len(), err)
		}
	}
}

// What is not in memory is not waited for.
func TestImmediateReadOfColdFile(t *testing.T) {
	t.Parallel()
	path, content := random(t, 1<<20)
	b := bench(t)
	blk := b.Use(b.Add(node(path, "")))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
		t.Fatal(err)
	}
	if inMemory(t, f, 1<<20) {
		t.Skip("this file system keeps its pages in memory")
	}
	v := drivertest.Fill(0, 4096)
	if err := atOnce(b, blk, 512<<10, v); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("from the disk: %v", err)
	}
	if err := blk.Preadv(aio.Outside, 512<<10, v); err != nil || !bytes.Equal(v[0], content[512<<10:512<<10+4096]) {
		t.Errorf("the ordinary way: %v, or wrong bytes", err)
	}
}

// inMemory tells whether any page of the file is.
func inMemory(t *testing.T, f *os.File, length int) bool {
	t.Helper()
	window, err := unix.Mmap(int(f.Fd()), 0, length, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(window)
	pages := make([]byte, length/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&window[0])), uintptr(length), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	return bytes.ContainsFunc(pages, func(r rune) bool { return r&1 != 0 })
}

func TestImmediateWrite(t *testing.T) {
	t.Parallel()
	path, content := random(t, 600_000)
	b := bench(t)
	blk := b.Use(b.Add(node(path, "")))
	write := func(offset int64, v block.Vec, flags block.ReqFlags) (err error) {
		coroutine(b, func(co *aio.Co) { err = blk.CoPwritev(co, offset, v, block.ReqImmediate|flags) })
		return err
	}
	v := cut(drivertest.Fill(7, 256<<10)[0], 5, 1000)
	if err := write(12345, v, 0); err != nil {
		t.Error(err)
	}
	copy(content[12345:], flat(v))
	if on, err := os.ReadFile(path); err != nil || !bytes.Equal(on, content) {
		t.Errorf("wrong bytes (%v)", err)
	}
	if err := write(0, drivertest.Fill(7, 256<<10+1), 0); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("too long: %v", err)
	}
	if err := write(0, drivertest.Fill(7, 512), block.ReqFUA); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("with a flush: %v", err)
	}
	if err := b.Reopen(node(path, `"cache":{"direct":true}`)); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"write": write(0, block.Vec{block.AlignedMemory(4096)}, 0),
		"read":  atOnce(b, blk, 0, block.Vec{block.AlignedMemory(4096)}),
	} {
		if !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("%s past the page cache: %v", name, err)
		}
	}
	if on, err := os.ReadFile(path); err != nil || !bytes.Equal(on[:600_000], content) {
		t.Errorf("something was written after all (%v)", err)
	}
}

// Where the system cannot, it is asked once.
func TestImmediateReadUnsupported(t *testing.T) {
	t.Parallel()
	var fd int
	b := drivertest.NewWith(t, block.Config{Drivers: drivers(), OpenFile: func(name string, flags int) (*os.File, error) {
		f, err := os.OpenFile(name, flags, 0)
		if err == nil {
			fd = int(f.Fd())
		}
		return f, err
	}})
	path, _ := random(t, 1<<20)
	blk := b.Use(b.Add(node(path, "")))
	other, err := os.Open("/proc/self/status") // which knows no RWF_NOWAIT
	if err != nil {
		t.Fatal(err)
	}
	restore := putInPlace(t, fd, other)
	if err := atOnce(b, blk, 0, drivertest.Fill(0, 512)); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("unsupported: %v", err)
	}
	restore()
	holds := drivertest.Fill(0, 512)
	if err := blk.Preadv(aio.Outside, 0, holds); err != nil {
		t.Fatal(err)
	}
	if err := atOnce(b, blk, 0, holds); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("asked again: %v", err)
	}
}
