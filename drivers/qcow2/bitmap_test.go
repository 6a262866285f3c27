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
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// addBitmap begins to record in a bitmap that the image is to keep.
func addBitmap(tb testing.TB, b *drivertest.Bench, n *block.Node, name string, granularity int64) {
	tb.Helper()
	b.Main(func(l *aio.Lock) {
		if err := n.CanStoreDirtyBitmap(l, name, granularity); err != nil {
			tb.Fatal(err)
		}
		d, err := n.CreateDirtyBitmap(l, name, granularity)
		if err != nil {
			tb.Fatal(err)
		}
		d.SetPersistent(true)
	})
}

// removeBitmap takes a bitmap off the node and out of the image.
func removeBitmap(tb testing.TB, b *drivertest.Bench, n *block.Node, name string) {
	tb.Helper()
	b.Main(func(l *aio.Lock) {
		d, err := n.FindDirtyBitmap(name)
		if err == nil {
			err = d.RemoveStored(l)
		}
		if err != nil {
			tb.Fatal(err)
		}
		d.Release()
	})
}

func hash(d *block.DirtyBitmap) (sum string) {
	d.Use(func(bits *hbitmap.Bitmap) { sum = fmt.Sprintf("%x", bits.SHA256()) })
	return sum
}

// What we store the reference loads, and the other way round.
func TestReferenceBitmaps(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "data_file=data,data_file_raw=on"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			r := drivertest.StartReference(t)
			if strings.Contains(options, "data_file") {
				options = strings.Replace(options, "data_file=", "data_file="+r.Dir+"/", 1)
			}
			const size = 48 << 20
			path := create(t, r.Dir, "image", options, fmt.Sprint(size))
			granularities := []int64{512, 4096, 65536, 1 << 31}
			rng := rand.New(rand.NewPCG(7, 7))
			spot := func() int64 { return rng.Int64N(size/512-16) * 512 }
			open := fmt.Sprintf(`{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":%q}}`, path)
			ask := func(granularity int64) string {
				sum := r.Do("x-debug-block-dirty-bitmap-sha256", fmt.Sprintf(`{"node":"q","name":"b%d"}`, granularity))
				return sum.Get("sha256").Str()
			}
			want := make(map[int64]string)
			b := bench(t)
			for round := range 3 {
				n := b.Add(node(path, ""))
				for _, g := range granularities {
					if round == 0 {
						addBitmap(t, b, n, fmt.Sprint("b", g), g)
					} else if got := hash(n.DirtyBitmap(fmt.Sprint("b", g))); got != want[g] {
						t.Errorf("round %d, granularity %d: %s, the reference had %s", round, g, got, want[g])
					}
				}
				blk := b.Use(n)
				for range 40 {
					if err := blk.Pwritev(aio.Outside, spot(), drivertest.Fill(1, 4096), 0); err != nil {
						t.Fatal(err)
					}
				}
				for _, g := range granularities {
					want[g] = hash(n.DirtyBitmap(fmt.Sprint("b", g)))
				}
				b.Drop(blk)
				b.Delete("q")
				check(t, path, false)
				r.Do("blockdev-add", open)
				for _, g := range granularities {
					if got := ask(g); got != want[g] {
						t.Errorf("round %d, granularity %d: the reference has %q, we had %s", round, g, got, want[g])
					}
				}
				for range 40 {
					r.IO("q", fmt.Sprintf("write -P 2 %d 4k", spot()))
				}
				for _, g := range granularities {
					want[g] = ask(g)
				}
				r.Do("blockdev-del", `{"node-name":"q"}`)
			}
		})
	}
}

// bitmapHistory writes to an image with a bitmap, which is opened and closed
// meanwhile.
type bitmapHistory struct {
	t    *testing.T
	b    *drivertest.Bench
	rng  *rand.Rand
	tape *tape
	size int64
	node *block.Node
	// writes are the areas written to, and when that began.
	writes []written
	// stored is when the bitmap was in the image for the first time.
	stored int
}

type written struct{ offset, bytes, start int64 }

const onTape = `{"driver":"qcow2","node-name":"q","file":"f"%s}`

func (h *bitmapHistory) write() {
	blk := h.b.Use(h.node)
	defer h.b.Drop(blk)
	for range 1 + h.rng.IntN(4) {
		offset := h.rng.Int64N(h.size/512) * 512
		bytes := min(h.size-offset, 512*(1+h.rng.Int64N(64)))
		h.writes = append(h.writes, written{offset, bytes, int64(h.tape.tick())})
		if err := blk.Pwritev(aio.Outside, offset, drivertest.Fill(1, int(bytes)), 0); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *bitmapHistory) step() {
	switch h.rng.IntN(6) {
	case 0:
		h.b.Delete("q")
		h.node = h.b.Add(fmt.Sprintf(onTape, ""))
	case 1:
		for _, more := range []string{`,"read-only":true`, `,"read-only":false`} {
			if err := h.b.Reopen(fmt.Sprintf(onTape, more)); err != nil {
				h.t.Fatal(err)
			}
		}
	case 2:
		for _, active := range []bool{false, true} {
			h.b.Main(func(l *aio.Lock) {
				if err := h.node.SetActive(l, active); err != nil {
					h.t.Fatal(err)
				}
			})
		}
	case 3:
		if h.node.DirtyBitmap("other") == nil {
			addBitmap(h.t, h.b, h.node, "other", 4096)
		} else {
			removeBitmap(h.t, h.b, h.node, "other")
		}
		return
	default:
		h.write()
		return
	}
	if h.stored == 0 {
		h.stored = h.tape.tick()
	}
}

// Whenever the power fails the image is whole, and a bitmap that it takes to
// be up to date has every write.
func TestBitmapPowerFailure(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]string{
		"default": "", "small": "cluster_size=512", "lazy": "cluster_size=4k,lazy_refcounts=on",
		"backing": "cluster_size=4k,backing_fmt=raw,backing_file=",
	} {
		for _, seed := range seeds(2) {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				t.Parallel()
				bitmapPowerFailure(t, options, seed)
			})
		}
	}
}

func bitmapPowerFailure(t *testing.T, options string, seed uint64) {
	dir := t.TempDir()
	h := &bitmapHistory{t: t, rng: rand.New(rand.NewPCG(seed, 4)), tape: &tape{}, size: 1 << 20}
	if strings.HasSuffix(options, "=") {
		base := filepath.Join(dir, strings.Repeat("long", 20))
		if err := os.WriteFile(base, make([]byte, h.size), 0o600); err != nil {
			t.Fatal(err)
		}
		options += base
	}
	initial, err := os.ReadFile(create(t, dir, "image", options, fmt.Sprint(h.size)))
	if err != nil {
		t.Fatal(err)
	}
	h.b = bench(t, taped(h.tape, map[string][]byte{"image": initial}, nil))
	h.b.Add(`{"driver":"taped","node-name":"f","name":"image"}`)
	h.node = h.b.Add(fmt.Sprintf(onTape, ""))
	addBitmap(t, h.b, h.node, "b", 4096)
	for range *stepsFlag / 2 {
		h.step()
	}
	h.b.Delete("q")
	for k := range 25 {
		at := h.rng.IntN(len(h.tape.events) + 1)
		path := filepath.Join(dir, fmt.Sprint("torn", k))
		if err := os.WriteFile(path, torn(h.tape, "image", initial, at, h.rng), 0o600); err != nil {
			t.Fatal(err)
		}
		h.checkTorn(path, at, strings.Contains(options, "lazy"))
		if t.Failed() {
			t.Fatalf("power failed after %d of %d events", at, len(h.tape.events))
		}
	}
}

func (h *bitmapHistory) checkTorn(path string, at int, lazy bool) {
	n := h.b.Add(fmt.Sprintf(`{"driver":"qcow2","node-name":"q","read-only":true,"file":{"driver":"file","filename":%q}}`, path))
	d := n.DirtyBitmap("b")
	if d == nil && h.stored > 0 && at >= h.stored {
		h.t.Error("the bitmap is lost")
	}
	if d != nil && !d.Inconsistent() {
		d.Use(func(bits *hbitmap.Bitmap) {
			for _, w := range h.writes {
				if w.start <= int64(at) && bits.NextZero(w.offset, w.bytes) >= 0 {
					h.t.Errorf("%d+%d was written to and is clean", w.offset, w.bytes)
				}
			}
		})
	}
	h.b.Delete("q")
	if lazy {
		h.b.Add(node(path, ""))
		h.b.Delete("q")
	}
	check(h.t, path, true)
}

// Stored bitmaps take no more room each time, and none when they are gone.
func TestBitmapRoom(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", "cluster_size=512", "cluster_size=512,compression_type=zstd,backing_fmt=raw,backing_file=/dev/zero"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if name := filepath.Join(dir, "b"); strings.Contains(options, "/dev/zero") {
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				options = strings.Replace(options, "/dev/zero", "b", 1)
			}
			path := create(t, dir, "image", options, "8M")
			b := bench(t)
			n := b.Add(node(path, ""))
			for _, name := range []string{"one", "two", "three"} {
				addBitmap(t, b, n, name, 512)
			}
			var length int64
			for round := range 6 {
				blk := b.Use(n)
				if err := blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 1<<20), 0); err != nil {
					t.Fatal(err)
				}
				b.Drop(blk)
				b.Delete("q")
				check(t, path, false)
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if round == 2 {
					length = info.Size()
				} else if round > 2 && info.Size() > length {
					t.Errorf("the image has %d bytes after %d rounds, and had %d", info.Size(), round, length)
				}
				n = b.Add(node(path, ""))
			}
			for _, name := range []string{"one", "two", "three"} {
				removeBitmap(t, b, n, name)
			}
			b.Delete("q")
			check(t, path, false)
			if out := img(t, dir, "info", path); strings.Contains(out, "bitmaps") {
				t.Errorf("bitmaps are left:\n%s", out)
			}
		})
	}
}

// A write that fails while bitmaps are stored loses them, but not the image.
func TestBitmapFailures(t *testing.T) {
	t.Parallel()
	initial, err := os.ReadFile(create(t, t.TempDir(), "image", "", "1M"))
	if err != nil {
		t.Fatal(err)
	}
	for after := range 24 {
		var mu sync.Mutex
		left, armed := after, false
		fail := func() bool {
			mu.Lock()
			defer mu.Unlock()
			left--
			return armed && left < 0
		}
		arm := func(on bool) {
			mu.Lock()
			defer mu.Unlock()
			armed, left = on, after
		}
		tape := &tape{}
		b := bench(t, taped(tape, map[string][]byte{"image": initial}, fail))
		b.Add(`{"driver":"taped","node-name":"f","name":"image"}`)
		n := b.Add(fmt.Sprintf(onTape, ""))
		addBitmap(t, b, n, "b", 4096)
		blk := b.Use(n)
		if err := blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 8192), 0); err != nil {
			t.Fatal(err)
		}
		b.Drop(blk)
		arm(true)
		readOnly := b.Reopen(fmt.Sprintf(onTape, `,"read-only":true`))
		arm(false)
		d := n.DirtyBitmap("b")
		if d == nil || d.Count() != 8192 || d.ReadOnly() != (readOnly == nil) {
			t.Fatalf("after %d requests: bitmap %+v, reopening: %v", after, d, readOnly)
		}
		b.Delete("q")
		b.Delete("f")
		path := filepath.Join(t.TempDir(), "after")
		if err := os.WriteFile(path, tape.image(initial), 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, path, true)
		n = b.Add(node(path, ""))
		if d := n.DirtyBitmap("b"); d == nil || d.Inconsistent() || d.Count() != 8192 {
			t.Errorf("after %d requests (%v): the image has %+v", after, readOnly, d)
		}
		b.Delete("q")
	}
}

// image is what the disk holds after all events.
func (t *tape) image(initial []byte) []byte {
	return torn(&tape{events: append(t.events, event{disk: "image", flush: true})}, "image", initial, len(t.events)+1, rand.New(rand.NewPCG(0, 0)))
}
