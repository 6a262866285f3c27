package block_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

func chainBench(tb testing.TB) *drivertest.Bench {
	return drivertest.New(tb, raw.Driver(), null.Co(), blklogwrites.Driver(), drivertest.OverlayDriver())
}

// above lists what a reader of n finds: the depth, d for data, z for zeroes or
// - for neither, and the length of each extent in units of 4096 bytes.
func above(n, base *block.Node, includeBase, wantZero bool) (list []string, err error) {
	length, err := n.GetLength(aio.Outside)
	for at := int64(0); at < length && err == nil; {
		var st block.Status
		var depth int
		st, depth, err = n.BlockStatusAbove(aio.Outside, base, includeBase, wantZero, at, length-at)
		kind := "-"
		switch {
		case st.Flags&block.StatusZero != 0:
			kind = "z"
		case st.Flags&block.StatusData != 0:
			kind = "d"
		}
		if allocated := st.Flags&block.StatusAllocated != 0; allocated != (depth > 0) {
			err = fmt.Errorf("depth %d with %+v", depth, st)
		}
		if eof := st.Flags&block.StatusEOF != 0; eof != (at+st.Bytes == length) || st.Bytes == 0 {
			err = fmt.Errorf("at %d: %+v", at, st)
		}
		list = append(list, fmt.Sprintf("%d%s%d", depth, kind, st.Bytes/4096))
		at += st.Bytes
	}
	return list, err
}

// The chain that the reference was asked about with nbdinfo (qemu:
// allocation-depth and base:allocation): a raw file of 16 units below two
// overlays of 32 and 48, and what a filter in between does to it.
func TestStatusAbove(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, top, backing      string
		depths, zeroes, partial []string
	}{
		{
			name: "chain", top: "top", backing: "mid",
			depths:  []string{"3d1", "2d1", "3d1", "1d1", "2z1", "3d11", "3z13", "2d2", "3z1", "2z8", "1d1", "2z7"},
			zeroes:  []string{"3d1", "2d1", "3d1", "1d1", "2z1", "3d11", "3z13", "2d2", "3z1", "2z8", "1d1", "2z7"},
			partial: []string{"0-3", "1d1", "0-36", "1d1", "0z7"},
		},
		{
			name: "filter on top", top: "filter", backing: "mid",
			depths:  []string{"4d1", "3d1", "4d1", "1d1", "3z1", "4d11", "4z13", "3d2", "4z1", "3z8", "1d1", "3z7"},
			zeroes:  []string{"4d1", "3d1", "4d1", "1d1", "3z1", "4d11", "4z13", "3d2", "4z1", "3z8", "1d1", "3z7"},
			partial: []string{"0-3", "1d1", "0-36", "1d1", "0z7"},
		},
		{
			name: "filter inside", top: "top", backing: "filter",
			depths:  []string{"4d1", "2d1", "4d1", "1d1", "2z1", "4d11", "4z13", "2d2", "4z1", "2z8", "1d1", "2z7"},
			zeroes:  []string{"4d1", "2d1", "4d1", "1d1", "2z1", "4d11", "4z13", "2d2", "4z1", "2z8", "1d1", "2z7"},
			partial: []string{"0-1", "2d1", "0-1", "1d1", "2z1", "0-24", "2d2", "0z1", "2z8", "1d1", "2z7"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := chainBench(t)
			b.Add(`{"driver":"mem","node-name":"base","size":65536}`)
			mid := b.Add(`{"driver":"overlay","node-name":"mid","size":131072,"backing":"base"}`)
			filter := `{"driver":"blklogwrites","node-name":"filter","file":%q,"log":{"driver":"mem","size":0}}`
			if c.top == "top" {
				b.Add(fmt.Sprintf(filter, "mid"))
			}
			top := b.Add(fmt.Sprintf(`{"driver":"overlay","node-name":"top","size":196608,"backing":%q}`, c.backing))
			if c.top == "filter" {
				b.Add(fmt.Sprintf(filter, "top"))
			}
			write := func(n *block.Node, unit, units int64, zero bool) {
				blk := b.Use(n)
				defer b.Drop(blk)
				var err error
				if zero {
					err = blk.PwriteZeroes(aio.Outside, unit<<12, units<<12, 0)
				} else {
					err = blk.Pwritev(aio.Outside, unit<<12, drivertest.Fill(1, int(units<<12)), 0)
				}
				must(t, err)
			}
			write(top, 3, 1, false)
			write(top, 40, 1, false)
			// The backing file was written to before it became one.
			writeBelow(t, mid, 1, 1, false)
			writeBelow(t, mid, 4, 1, true)
			writeBelow(t, mid, 29, 2, false)
			n := b.Graph.Node(c.top)
			if got, err := above(n, nil, false, false); err != nil || !slices.Equal(got, c.depths) {
				t.Errorf("depths: %v (%v), want %v", got, err, c.depths)
			}
			if got, err := above(n, nil, false, true); err != nil || !slices.Equal(got, c.zeroes) {
				t.Errorf("zeroes: %v (%v), want %v", got, err, c.zeroes)
			}
			base := mid
			if c.name == "filter inside" {
				base = b.Graph.Node("base")
			}
			if got, err := above(n, base, false, true); err != nil || !slices.Equal(got, c.partial) {
				t.Errorf("above %s: %v (%v), want %v", base.Name(), got, err, c.partial)
			}
			if got, err := above(n, b.Graph.Node("base"), true, true); err != nil || !slices.Equal(got, c.zeroes) {
				t.Errorf("with base: %v (%v), want %v", got, err, c.zeroes)
			}
			st, depth, err := n.BlockStatusAbove(aio.Outside, n, false, true, 0, 4096)
			if err != nil || depth != 0 || st != (block.Status{Bytes: 4096}) {
				t.Errorf("above itself: %+v, %d, %v", st, depth, err)
			}
		})
	}
}

// writeBelow writes to a node past the permissions of those who have it as a
// backing file.
func writeBelow(t *testing.T, n *block.Node, unit, units int64, zero bool) {
	t.Helper()
	n.Context().Enter("test", func(co *aio.Co) {
		if zero {
			must(t, n.CoPwriteZeroes(co, unit<<12, units<<12, 0))
			return
		}
		must(t, n.CoPwritev(co, unit<<12, drivertest.Fill(1, int(units<<12)), 0))
	})
}

// What is said about random chains holds for what is read from them, and for
// all that is said about each layer.
func TestStatusAboveModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		const units = 12
		b := chainBench(t)
		var nodes []*block.Node
		below := ""
		for i := range rapid.IntRange(1, 4).Draw(r, "layers") {
			size := rapid.Int64Range(0, units).Draw(r, "size") << 12
			name := fmt.Sprint("n", i)
			nodes = append(nodes, b.Add(fmt.Sprintf(`{"driver":"overlay","node-name":%q,"size":%d%s}`, name, size, below)))
			below = fmt.Sprintf(`,"backing":%q`, name)
			for unit := range size >> 12 {
				switch rapid.IntRange(0, 3).Draw(r, "unit") {
				case 0:
					writeBelow(t, nodes[i], unit, 1, false)
				case 1:
					writeBelow(t, nodes[i], unit, 1, true)
				}
			}
		}
		top := nodes[len(nodes)-1]
		length, err := top.GetLength(aio.Outside)
		must(t, err)
		top.Context().Enter("test", func(co *aio.Co) {
			for at := int64(0); at < length; at += 4096 {
				v := drivertest.Fill(0xee, 4096)
				must(t, top.CoPreadv(co, at, v, 0))
				depth, _, err := top.CoIsAllocatedAbove(co, nil, false, at, 4096)
				must(t, err)
				if want := decides(t, co, nodes, at); depth != want {
					r.Errorf("at %d: depth %d, want %d", at, depth, want)
				}
				zero, err := top.CoIsZero(co, at, 4096)
				if err != nil || zero != v.IsZero() {
					r.Errorf("at %d: zero %v (%v), read %#x", at, zero, err, v[0][0])
				}
			}
		})
		for i := len(nodes) - 1; i >= 0; i-- {
			b.Delete(fmt.Sprint("n", i))
		}
	})
}

// decides is the depth of the first layer that is allocated or too short.
func decides(t *testing.T, co *aio.Co, nodes []*block.Node, at int64) int {
	t.Helper()
	for i := len(nodes) - 1; i >= 0; i-- {
		length, err := nodes[i].CoGetLength(co)
		must(t, err)
		allocated, _, err := nodes[i].CoIsAllocated(co, at, 4096)
		must(t, err)
		if allocated || at >= length {
			return len(nodes) - i
		}
	}
	return 0
}

// What an overlay has not and no backing file has is known to be zero; holes
// of a file are not, without asking for them.
func TestIsZero(t *testing.T) {
	t.Parallel()
	b := chainBench(t)
	disk := b.Add(`{"driver":"mem","node-name":"m","size":4096,"sparse":true}`)
	disk.Context().Enter("test", func(co *aio.Co) {
		zero, err1 := disk.CoIsZero(co, 0, 4096)
		fast, err2 := disk.CoIsZeroFast(co, 0, 4096)
		if err := errors.Join(err1, err2); err != nil || !zero || fast {
			t.Errorf("a hole: %v, %v (%v)", zero, fast, err)
		}
	})
	n := b.Add(`{"driver":"overlay","node-name":"n","size":65536}`)
	writeBelow(t, n, 2, 1, true)
	writeBelow(t, n, 8, 1, false)
	n.Context().Enter("test", func(co *aio.Co) {
		for _, c := range []struct {
			offset, bytes int64
			zero, fast    bool
		}{
			{0, 32768, true, true}, {0, 32769, false, false}, {8192, 4096, true, true}, {100, 0, true, true},
			{36864, 1 << 20, true, true}, {65536, 512, true, true}, {1 << 40, 512, true, true}, {32768, 4096, false, false},
		} {
			zero, err1 := n.CoIsZero(co, c.offset, c.bytes)
			fast, err2 := n.CoIsZeroFast(co, c.offset, c.bytes)
			if err := errors.Join(err1, err2); err != nil || zero != c.zero || fast != c.fast {
				t.Errorf("%d+%d: %v, %v (%v)", c.offset, c.bytes, zero, fast, err)
			}
		}
	})
}

// A node whose length was rounded up to a sector goes on with zeroes behind
// the end of its file, where the reference asks for ever.
func TestStatusInLastSector(t *testing.T) {
	t.Parallel()
	b := chainBench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","offset":100,"file":{"driver":"null-co","size":1024}}`)
	if st, err := n.BlockStatus(aio.Outside, true, 924, 100); err != nil || st.Bytes != 0 {
		t.Errorf("the file: %+v, %v", st, err)
	}
	for at, want := range map[int64]block.Status{
		924:  {Flags: block.StatusZero | block.StatusAllocated | block.StatusEOF, Bytes: 100, File: n},
		1000: {Flags: block.StatusZero | block.StatusAllocated | block.StatusEOF, Bytes: 24, File: n},
		1024: {Flags: block.StatusEOF},
	} {
		if st, _, err := n.BlockStatusAbove(aio.Outside, nil, false, true, at, 4096); err != nil || st != want {
			t.Errorf("at %d: %+v, %v", at, st, err)
		}
	}
	if st, _, err := n.BlockStatusAbove(aio.Outside, nil, false, true, 924, 10); err != nil || st.Bytes != 10 || st.Flags&block.StatusEOF != 0 {
		t.Errorf("a part: %+v, %v", st, err)
	}
}
