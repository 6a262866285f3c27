package qcow2_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// mapEntry is a line of qemu-img map.
type mapEntry struct {
	Start, Length                   int64
	Depth                           int
	Present, Zero, Data, Compressed bool
	Offset                          *int64
}

// mapOf is what qemu-img map says of an image, without the places: they
// differ where clusters are used anew.
func mapOf(tb testing.TB, path string) []string {
	tb.Helper()
	var entries []mapEntry
	out := img(tb, filepath.Dir(path), "map", "-f", "qcow2", "--output=json", path)
	if err := json.Unmarshal([]byte(out), &entries); err != nil {
		tb.Fatal(err)
	}
	var lines []string
	var last mapEntry
	for _, e := range entries {
		placed := e.Offset != nil && e.Depth == 0
		e.Offset = nil
		same := last
		same.Start, same.Length = e.Start, e.Length
		text := fmt.Sprintf("%+v placed %v", e, placed)
		if n := len(lines); n > 0 && same == e && strings.HasSuffix(lines[n-1], fmt.Sprintf("placed %v", placed)) {
			e.Start, e.Length = last.Start, last.Length+e.Length
			text = fmt.Sprintf("%+v placed %v", e, placed)
			lines = lines[:n-1]
		}
		lines = append(lines, text)
		last = e
	}
	return lines
}

// ioCommand is a request in our terms and in those of qemu-io.
type ioCommand struct {
	text string
	do   func(n *block.Node, blk *block.Backend) error
}

func randomCommand(rng *rand.Rand, size, cluster int64, compress bool) ioCommand {
	unit := []int64{512, 512, cluster / 4, cluster, cluster}[rng.IntN(5)]
	offset := rng.Int64N(size) / unit * unit
	bytes := min(size-offset, unit*(1+rng.Int64N(4)))
	value := 1 + rng.IntN(255)
	where := fmt.Sprintf("%d %d", offset, bytes)
	v := drivertest.Fill(byte(value), int(bytes))
	switch k := rng.IntN(10); {
	case k < 5:
		return ioCommand{fmt.Sprintf("write -P %d %s", value, where), func(_ *block.Node, blk *block.Backend) error {
			return blk.Pwritev(aio.Outside, offset, v, 0)
		}}
	case k < 6 && compress && offset%cluster == 0 && bytes%cluster == 0:
		return ioCommand{fmt.Sprintf("write -c -P %d %s", value, where), func(n *block.Node, _ *block.Backend) error {
			return in(n, func(co *aio.Co) error { return n.CoPwritev(co, offset, v, block.ReqCompressed) })
		}}
	case k < 7:
		return ioCommand{"write -z " + where, func(_ *block.Node, blk *block.Backend) error {
			return blk.PwriteZeroes(aio.Outside, offset, bytes, 0)
		}}
	case k < 8:
		return ioCommand{"write -zu " + where, func(_ *block.Node, blk *block.Backend) error {
			return blk.PwriteZeroes(aio.Outside, offset, bytes, block.ReqMayUnmap)
		}}
	}
	return ioCommand{"discard " + where, func(_ *block.Node, blk *block.Backend) error {
		return blk.Pdiscard(aio.Outside, offset, bytes)
	}}
}

// The same requests give the same allocation and the same content as with the
// reference.
func TestReferenceMap(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		if v.external() || v.encrypt != "" {
			continue
		}
		for _, seed := range seeds(2) {
			t.Run(fmt.Sprintf("%s/%d", v.name, seed), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				options := v.create
				if v.backing {
					if err := os.WriteFile(dir+"/base", slices.Concat(make([]byte, v.size/4), drivertest.Fill(9, int(v.size/4))[0]), 0o600); err != nil {
						t.Fatal(err)
					}
					options = strings.TrimPrefix(options+",backing_file="+dir+"/base,backing_fmt=raw", ",")
				}
				theirs := create(t, dir, "theirs", options, fmt.Sprint(v.size))
				ours := create(t, dir, "ours", options, fmt.Sprint(v.size))
				b := bench(t)
				n := b.Add(node(ours, v.node))
				blk := b.Use(n)
				info, err := n.GetInfo(aio.Outside)
				if err != nil {
					t.Fatal(err)
				}
				rng := rand.New(rand.NewPCG(seed, 3))
				opts := "driver=qcow2,discard=unmap,file.driver=file,file.filename=" + theirs
				if strings.Contains(v.node, "no-unref") {
					opts += ",discard-no-unref=on"
				}
				args := []string{"--image-opts", opts}
				var log []string
				for range 40 {
					c := randomCommand(rng, v.size, info.ClusterSize, false)
					log = append(log, c.text)
					args = append(args, "-c", c.text)
					if err := c.do(n, blk); err != nil {
						t.Fatalf("%s: %v", c.text, err)
					}
				}
				b.Drop(blk)
				b.Delete("q")
				if out, status := run(t, dir, tool(t, "qemu-io"), args...); status != 0 {
					t.Fatalf("qemu-io: status %d\n%s", status, out)
				}
				same(t, "content", content(t, ours), content(t, theirs))
				if got, want := mapOf(t, ours), mapOf(t, theirs); !slices.Equal(got, want) {
					for i := range min(len(got), len(want)) {
						if got[i] != want[i] {
							t.Errorf("entry %d of the map:\n%s, want\n%s", i, got[i], want[i])
							break
						}
					}
					t.Logf("after\n%s", strings.Join(log, "\n"))
				}
			})
		}
	}
}
