package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// variants are images to run histories on: options of qemu-img create and of
// the node.
var variants = []struct {
	name, create, node string
	size               int64
	backing            bool
}{
	{name: "default", size: 4 << 20},
	{name: "backing", size: 2 << 20, backing: true},
	{name: "v2", create: "compat=0.10", size: 2 << 20},
	{name: "v2-backing", create: "compat=0.10,cluster_size=4k", size: 1 << 20, backing: true},
	{name: "512", create: "cluster_size=512", size: 1 << 20},
	{name: "512-backing", create: "cluster_size=512", size: 1 << 19, backing: true},
	{name: "512-refcount64", create: "cluster_size=512,refcount_bits=64", size: 1 << 20},
	{name: "4k-refcount1", create: "cluster_size=4k,refcount_bits=1", size: 1 << 20},
	{name: "refcount2", create: "cluster_size=1k,refcount_bits=2", size: 1 << 20},
	{name: "refcount4", create: "cluster_size=8k,refcount_bits=4", size: 1 << 20},
	{name: "refcount8", create: "cluster_size=2k,refcount_bits=8", size: 1 << 20},
	{name: "refcount32", create: "cluster_size=16k,refcount_bits=32", size: 1 << 20},
	{name: "2M", create: "cluster_size=2M", size: 8 << 20},
	{name: "extended", create: "extended_l2=on,cluster_size=16k", size: 1 << 20},
	{name: "extended-backing", create: "extended_l2=on,cluster_size=32k", size: 1 << 20, backing: true},
	{name: "extended-128k", create: "extended_l2=on,cluster_size=128k", size: 2 << 20},
	{name: "zstd", create: "compression_type=zstd,cluster_size=8k", size: 1 << 20},
	{name: "lazy", create: "lazy_refcounts=on,cluster_size=4k", size: 1 << 20},
	{name: "data-file", create: "data_file=data", size: 1 << 20},
	{name: "data-file-raw", create: "data_file=data,data_file_raw=on,cluster_size=4k", size: 1 << 20},
	{name: "data-file-extended", create: "data_file=data,extended_l2=on,cluster_size=16k", size: 1 << 20},
	{name: "tiny-caches", create: "cluster_size=4k", node: `,"l2-cache-entry-size":512,"l2-cache-size":1024,"refcount-cache-size":4096`, size: 4 << 20},
	{name: "no-unref", create: "cluster_size=4k", node: `,"discard-no-unref":true`, size: 1 << 20},
	{name: "overlap-all", create: "cluster_size=4k", node: `,"overlap-check":"all"`, size: 1 << 20},
	{name: "preallocated", create: "preallocation=metadata,cluster_size=4k", size: 1 << 20},
}

// history runs random requests on an image and keeps what it should hold.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	b     *drivertest.Bench
	path  string
	more  string
	node  *block.Node
	blk   *block.Backend
	want  []byte
	log   []string
	align int64
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *history) open() {
	h.node = h.b.Add(node(h.path, h.more))
	h.blk = h.b.Use(h.node)
}

func (h *history) close() {
	h.b.Drop(h.blk)
	h.b.Delete("q")
}

// area is a random part of [0, limit), aligned by chance.
func (h *history) area(limit int64) (offset, bytes int64) {
	unit := []int64{1, 512, 4096, h.align, h.align}[h.rng.IntN(5)]
	most := []int64{1, 3, 16}[h.rng.IntN(3)]
	offset = h.rng.Int64N(limit) / unit * unit
	bytes = min(limit-offset, (1+h.rng.Int64N(most))*unit)
	return offset, bytes
}

// request is a change of the content, and what can be read afterwards.
type request struct {
	text          string
	offset, bytes int64
	do            func() error
	value         byte
	// either: the old content may remain.
	either bool
}

func (h *history) request(offset, bytes int64) request {
	r := request{offset: offset, bytes: bytes, value: byte(1 + h.rng.IntN(255))}
	switch k := h.rng.IntN(10); {
	case k < 6:
		r.text = fmt.Sprintf("write %d+%d %#x", offset, bytes, r.value)
		v := drivertest.Fill(r.value, int(bytes))
		r.do = func() error { return h.blk.Pwritev(aio.Outside, offset, v, 0) }
	case k < 8:
		flags := []block.ReqFlags{0, block.ReqMayUnmap}[h.rng.IntN(2)]
		r.text, r.value = fmt.Sprintf("zero %d+%d %d", offset, bytes, flags), 0
		r.do = func() error { return h.blk.PwriteZeroes(aio.Outside, offset, bytes, flags) }
	default:
		r.text, r.value, r.either = fmt.Sprintf("discard %d+%d", offset, bytes), 0, true
		r.do = func() error { return h.blk.Pdiscard(aio.Outside, offset, bytes) }
	}
	return r
}

func (h *history) apply(r request) {
	area := h.want[r.offset : r.offset+r.bytes]
	if !r.either {
		for i := range area {
			area[i] = r.value
		}
		return
	}
	got := read(h.t, h.blk, r.offset, int(r.bytes))
	for i := range got {
		if got[i] != 0 && got[i] != area[i] {
			h.t.Fatalf("%s: byte %#x is %#x, was %#x", r.text, r.offset+int64(i), got[i], area[i])
		}
	}
	copy(area, got)
}

func (h *history) step() {
	switch k := h.rng.IntN(24); {
	case k < 10:
		r := h.request(h.area(int64(len(h.want))))
		h.note("%s", r.text)
		h.must(r.do())
		h.apply(r)
	case k < 14:
		h.parallel()
	case k < 17:
		offset, bytes := h.area(int64(len(h.want)))
		h.note("read %d+%d", offset, bytes)
		same(h.t, fmt.Sprintf("reading from %#x", offset), read(h.t, h.blk, offset, int(bytes)), h.want[offset:offset+bytes])
	case k < 19:
		h.note("flush")
		h.must(h.blk.Flush(aio.Outside))
	case k < 20:
		h.note("close and open")
		h.close()
		h.open()
	case k < 22:
		h.resize()
	default:
		h.compress()
	}
}

func (h *history) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%s: %v", h.log[len(h.log)-1], err)
	}
}

// parallel runs requests side by side that touch different bytes, often of
// the same clusters.
func (h *history) parallel() {
	var all []request
	at := h.rng.Int64N(int64(len(h.want)))
	for range 2 + h.rng.IntN(6) {
		bytes := 1 + h.rng.Int64N(h.align*2)
		if h.rng.IntN(2) == 0 {
			at, bytes = at/h.align*h.align+h.align, h.align
		}
		if at+bytes > int64(len(h.want)) {
			break
		}
		r := h.request(at, bytes)
		h.note("  side by side: %s", r.text)
		all = append(all, r)
		at += bytes + []int64{0, 0, 1, h.align}[h.rng.IntN(4)]
	}
	flush := h.rng.IntN(3) == 0
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() { errs[i] = r.do() })
	}
	if flush {
		wg.Go(func() { h.must(h.blk.Flush(aio.Outside)) })
	}
	wg.Wait()
	for i, r := range all {
		h.must(errs[i])
		h.apply(r)
	}
}

func (h *history) resize() {
	size := max(512, (int64(len(h.want))/2+h.rng.Int64N(int64(len(h.want))))/512*512)
	mode := block.PreallocOff
	if size > int64(len(h.want)) {
		mode = block.PreallocMode(h.rng.IntN(4))
	}
	if size > 16<<20 {
		return
	}
	h.note("resize to %d, %v", size, mode)
	err := h.blk.Truncate(aio.Outside, size, false, mode, 0)
	if err != nil && strings.Contains(h.path, "v2-backing") && err.Error() == "Failed to zero out new clusters: Operation not supported" {
		return // the format cannot hide the backing file
	}
	h.must(err)
	if old := int64(len(h.want)); size <= old {
		h.want = h.want[:size]
	} else {
		h.want = append(h.want[:old:old], make([]byte, size-old)...)
	}
}

func (h *history) compress() {
	if strings.Contains(h.path, "data-file") {
		return
	}
	offset := h.rng.Int64N(int64(len(h.want))) / h.align * h.align
	bytes := min(h.align*(1+h.rng.Int64N(3)), int64(len(h.want))-offset)
	data := make([]byte, bytes)
	for i := range data {
		if i%1000 < 300 {
			data[i] = byte(h.rng.IntN(1 + h.rng.IntN(255)))
		}
	}
	h.note("compress %d+%d", offset, bytes)
	h.must(in(h.node, func(co *aio.Co) error {
		return h.node.CoPwritev(co, offset, block.Vec{data}, block.ReqCompressed)
	}))
	copy(h.want[offset:], data)
}

// An image holds what was written to it, whatever is done, and the reference
// finds nothing wrong with it.
func TestHistory(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		for _, seed := range seeds(3) {
			t.Run(fmt.Sprintf("%s/%d", v.name, seed), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), v.name)
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 1)), b: bench(t), more: v.node, want: make([]byte, v.size)}
				options := v.create
				if v.backing {
					size := v.size / 4 * 3
					for i := range size {
						h.want[i] = byte(i/4096 + 1)
					}
					if err := os.WriteFile(dir+"/base", h.want[:size], 0o600); err != nil {
						t.Fatal(err)
					}
					options = strings.TrimPrefix(options+",backing_file="+dir+"/base,backing_fmt=raw", ",")
				}
				options = strings.ReplaceAll(options, "data_file=data", "data_file="+dir+"/data")
				h.path = create(t, dir, "image", options, fmt.Sprint(v.size))
				defer func() {
					if t.Failed() {
						t.Logf("seed %d:\n%s", seed, strings.Join(h.log, "\n"))
					}
				}()
				h.open()
				info, err := h.node.GetInfo(aio.Outside)
				if err != nil {
					t.Fatal(err)
				}
				h.align = info.ClusterSize
				for range *stepsFlag {
					h.step()
				}
				same(t, "all of it", read(t, h.blk, 0, len(h.want)), h.want)
				h.close()
				check(t, h.path, false)
				same(t, "the reference", content(t, h.path), h.want)
			})
		}
	}
}
