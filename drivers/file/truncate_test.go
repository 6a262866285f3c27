package file_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// Lengths and texts were observed with qemu-io's truncate.
func TestTruncate(t *testing.T) {
	t.Parallel()
	const off, metadata, falloc, full = block.PreallocOff, block.PreallocMetadata, block.PreallocFalloc, block.PreallocFull
	for _, c := range []struct {
		from, to int64
		mode     block.PreallocMode
		size     int64 // afterwards
		reserved bool  // space for all of it
		err      string
	}{
		{from: 1 << 20, to: 2 << 20, size: 2 << 20},
		{from: 1 << 20, to: 1000, size: 1000},
		{from: 1 << 20, to: 0, size: 0},
		{from: 0, to: 0, size: 0},
		{from: 0, to: 1, size: 512},
		{from: 0, to: 1000, size: 1000},
		{from: 0, to: 10000, size: 10000},
		{from: 0, to: 100_000, mode: falloc, size: 100_000, reserved: true},
		{from: 1000, to: 100_000, mode: falloc, size: 100_000},
		{from: 0, to: 200_000, mode: full, size: 200_000, reserved: true},
		{from: 1000, to: 1000, mode: falloc, size: 1000},
		{from: 1000, to: 1000, mode: full, size: 1000},
		{from: 1000, to: 2000, mode: metadata, size: 1000, err: "Unsupported preallocation mode: metadata"},
		{from: 1000, to: 500, mode: metadata, size: 1000, err: "Cannot use preallocation for shrinking files"},
		{from: 1000, to: 500, mode: falloc, size: 1000, err: "Cannot use preallocation for shrinking files"},
		{from: 1000, to: 500, mode: full, size: 1000, err: "Cannot use preallocation for shrinking files"},
		{from: 1000, to: 1 << 62, mode: off, size: 1000, err: "Could not resize file: File too large"},
		{from: 1000, to: 1 << 62, mode: falloc, size: 1000, err: "Could not preallocate new data: File too large"},
		{from: 1000, to: 1 << 62, mode: full, size: 1000, err: "Could not resize file: File too large"},
	} {
		path, b := sparse(t, c.from), bench(t)
		n := b.Add(node(path, ""))
		err := b.Use(n).Truncate(aio.Outside, c.to, true, c.mode, 0)
		expect(t, c.mode.String(), err, c.err)
		st := stat(t, path)
		if st.Size != c.size {
			t.Errorf("%d to %d, %s: %d bytes, want %d", c.from, c.to, c.mode, st.Size, c.size)
		}
		if c.reserved && st.Blocks*512 < c.size {
			t.Errorf("%d to %d, %s: %d blocks only", c.from, c.to, c.mode, st.Blocks)
		}
		rounded := (c.size + 511) &^ 511
		if got, err := n.GetLength(aio.Outside); got != rounded || err != nil {
			t.Errorf("%d to %d, %s: length %d (%v), want %d", c.from, c.to, c.mode, got, err, rounded)
		}
	}
}

// What a file grows by reads as zeroes, also where it was longer before.
func TestTruncateContent(t *testing.T) {
	t.Parallel()
	for _, mode := range []block.PreallocMode{block.PreallocOff, block.PreallocFalloc, block.PreallocFull} {
		path, content := random(t, 100_000)
		b := bench(t)
		blk := b.Use(b.Add(node(path, "")))
		for _, to := range []int64{50_000, 200_000} {
			m := mode
			if to < 100_000 {
				m = block.PreallocOff
			}
			if err := blk.Truncate(aio.Outside, to, true, m, block.ReqZeroWrite); err != nil {
				t.Fatal(err)
			}
		}
		want := append(bytes.Clone(content[:50_000]), make([]byte, 150_000)...)
		if on, err := os.ReadFile(path); err != nil || !bytes.Equal(on, want) {
			t.Errorf("%s: wrong bytes (%v)", mode, err)
		}
	}
}

// A file that was empty gets its first block, so that alignments can be
// probed on it (observed: actual-size 4096 after growing from 0).
func TestFirstBlock(t *testing.T) {
	t.Parallel()
	path, b := sparse(t, 0), bench(t)
	blk := b.Use(b.Add(node(path, `"cache":{"direct":true}`)))
	if err := blk.Truncate(aio.Outside, 1<<20, true, block.PreallocOff, 0); err != nil {
		t.Fatal(err)
	}
	if blocks := stat(t, path).Blocks; blocks == 0 {
		t.Error("no block")
	}
	holds(t, blk, 0, 0, 4096)
}
