package file_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// modes are the ways to open a file: through the page cache and past it.
var modes = map[string]string{"cached": "", "direct": `"cache":{"direct":true}`}

func eachMode(t *testing.T, f func(t *testing.T, options string)) {
	for name, options := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, options)
		})
	}
}

// random makes a file of random bytes.
func random(t testing.TB, length int) (path string, content []byte) {
	t.Helper()
	path, content = sparse(t, 0), make([]byte, length)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(content) // never fails
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// cut makes a vector of b whose buffers have the given lengths, the last one
// the rest. The first buffer begins at an odd address.
func cut(b []byte, lengths ...int) block.Vec {
	memory := append(make([]byte, 1, len(b)+1), b...)[1:]
	var v block.Vec
	for _, n := range lengths {
		v = append(v, memory[:n])
		memory = memory[n:]
	}
	return append(v, memory)
}

func flat(v block.Vec) []byte { return bytes.Join(v, nil) }

func TestVectors(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, options string) {
		path, content := random(t, 1<<20)
		b := bench(t)
		blk := b.Use(b.Add(node(path, options)))
		for _, lengths := range [][]int{{}, {1}, {0, 3, 0}, {512, 1024}, {4096, 1, 4095}, many(3000, 7)} {
			v := cut(make([]byte, 300_000), lengths...)
			if err := blk.Preadv(aio.Outside, 12345, v); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(flat(v), content[12345:312345]) {
				t.Errorf("%d buffers: wrong bytes", len(v))
			}
			for _, part := range v {
				for i := range part {
					part[i] ^= 0xff
				}
			}
			if err := blk.Pwritev(aio.Outside, 12345, v, 0); err != nil {
				t.Fatal(err)
			}
			copy(content[12345:], flat(v))
			if on, err := os.ReadFile(path); err != nil || !bytes.Equal(on, content) {
				t.Errorf("%d buffers: wrong bytes in the file (%v)", len(v), err)
			}
		}
	})
}

// many is n times length.
func many(n, length int) []int {
	lengths := make([]int, n)
	for i := range lengths {
		lengths[i] = length
	}
	return lengths
}

// What lies behind the end of the file, but within its last sector, reads as
// zeroes; a write there makes the file longer.
func TestEndOfFile(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, options string) {
		path, content := random(t, 1000)
		b := bench(t)
		n := b.Add(node(path, options))
		blk, err := b.TryUse(n, read, all)
		if err != nil {
			t.Fatal(err)
		}
		v := drivertest.Fill(0xee, 1024)
		if err := blk.Preadv(aio.Outside, 0, v); err != nil {
			t.Fatal(err)
		}
		if want := append(bytes.Clone(content), make([]byte, 24)...); !bytes.Equal(v[0], want) {
			t.Error("wrong bytes")
		}
		holds(t, blk, 1000, 0, 24)
		if err := blk.Preadv(aio.Outside, 1000, drivertest.Fill(0, 512)); !errors.Is(err, syscall.EIO) {
			t.Errorf("behind the end: %v", err)
		}
		blk = b.Use(n)
		fill(t, blk, 1000, 5, 24)
		holds(t, blk, 1000, 5, 24)
		if size := stat(t, path).Size; size < 1024 {
			t.Errorf("%d bytes after a write to 1024", size)
		}
	})
}

func TestSparseStaysSparse(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<40)
	blk := b.Use(b.Add(node(path, "")))
	fill(t, blk, 1<<39, 1, 4096)
	holds(t, blk, 1<<39-4096, 0, 4096)
	holds(t, blk, 1<<39, 1, 4096)
	if blocks := stat(t, path).Blocks; blocks > 1024 {
		t.Errorf("%d blocks", blocks)
	}
}

// Requests of one node run at the same time, also while the node is reopened.
func TestParallelRequests(t *testing.T) {
	t.Parallel()
	path := sparse(t, 1<<20)
	b := bench(t)
	blk := b.Use(b.Add(node(path, "")))
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			at, value := int64(worker)<<16, byte(worker+1)
			for range 50 {
				fill(t, blk, at, value, 1<<16)
				holds(t, blk, at, value, 1<<16)
				value += 8
			}
		})
	}
	for _, more := range []string{`"cache":{"direct":true}`, "", `"auto-read-only":true`, `"x-check-cache-dropped":true`, ""} {
		expect(t, more, b.Reopen(node(path, more)), "")
	}
	wg.Wait()
}

// A failed flush is remembered: the kernel would call the next one a success.
// The descriptor is made to fail by putting a pipe in its place for a while.
func TestFailedFlush(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, options string) {
		var fd int
		b := drivertest.NewWith(t, block.Config{Drivers: drivers(), OpenFile: func(name string, flags int) (*os.File, error) {
			f, err := os.OpenFile(name, flags, 0)
			if err == nil {
				fd = int(f.Fd())
			}
			return f, err
		}})
		path := sparse(t, 1<<20)
		blk := b.Use(b.Add(node(path, options)))
		fill(t, blk, 0, 1, 4096)
		restore := breakDescriptor(t, fd)
		expect(t, "broken", blk.Flush(aio.Outside), "Invalid argument")
		restore()
		fill(t, blk, 0, 1, 4096)
		sticky := ""
		if options == "" {
			sticky = "Invalid argument"
			expect(t, "reopen", b.Reopen(node(path, `"read-only":true`)), "Error flushing drive: Invalid argument")
		}
		expect(t, "mended", blk.Flush(aio.Outside), sticky)
		expect(t, "FUA", blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 4096), block.ReqFUA), sticky)
	})
}

func breakDescriptor(t *testing.T, fd int) (restore func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return putInPlace(t, fd, w)
}

// putInPlace makes a descriptor stand for another file, which it closes, until
// restore is called.
func putInPlace(t *testing.T, fd int, f *os.File) (restore func()) {
	t.Helper()
	saved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Dup3(int(f.Fd()), fd, unix.O_CLOEXEC), f.Close()); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(unix.Dup3(saved, fd, unix.O_CLOEXEC), unix.Close(saved)); err != nil {
			t.Fatal(err)
		}
	}
}
