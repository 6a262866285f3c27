package qcow2_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
)

var diskSize = regexp.MustCompile(`disk size: .*`)

// creation is an image to make; DIR in its options is the folder that it goes
// to.
type creation struct {
	name, options string
	data          bool // with a data file
	backing       bool // with a backing file, full of 0x42
	moved         bool // the refcount table grows, and goes elsewhere than in the reference
}

var creations = []creation{
	{name: "plain", options: `"size":1048576`},
	{name: "empty", options: `"size":0`},
	{name: "odd", options: `"size":1049088`},
	{name: "8T", options: `"size":8796093022208`},
	{name: "v2", options: `"size":1048576,"version":"v2"`},
	{name: "512", options: `"size":1048576,"cluster-size":512`},
	{name: "512-long-L1", options: `"size":4294967296,"cluster-size":512`},
	{name: "4k", options: `"size":1048576,"cluster-size":4096`},
	{name: "8k", options: `"size":1048576,"cluster-size":8192`},
	{name: "2M", options: `"size":1048576,"cluster-size":2097152`},
	{name: "extended", options: `"size":1048576,"extended-l2":true`},
	{name: "lazy", options: `"size":1048576,"lazy-refcounts":true`},
	{name: "zstd", options: `"size":1048576,"compression-type":"zstd"`},
	{name: "refcounts-1", options: `"size":1048576,"refcount-bits":1`},
	{name: "refcounts-64", options: `"size":1048576,"refcount-bits":64`},
	{name: "backing", options: `"size":1048576,"backing-file":"DIR/base","backing-fmt":"raw"`, backing: true},
	{name: "backing-v2", options: `"size":1048576,"version":"v2","backing-file":"base","backing-fmt":"raw"`, backing: true},
	{name: "backing-unnamed", options: `"size":1048576,"backing-file":"","backing-fmt":"raw"`},
	{name: "data", options: `"size":1048576,"data-file":"d"`, data: true},
	{name: "data-raw", options: `"size":1048576,"data-file":"d","data-file-raw":true`, data: true},
	{name: "data-odd", options: `"size":1049088,"data-file":"d","preallocation":"falloc"`, data: true},
	{name: "data-full", options: `"size":1048576,"data-file":"d","preallocation":"full"`, data: true},
	{name: "data-all", options: `"size":1048576,"data-file":"d","backing-file":"base","backing-fmt":"raw","compression-type":"zstd",
		"extended-l2":true,"lazy-refcounts":true`, data: true, backing: true},
	{name: "metadata", options: `"size":1049088,"preallocation":"metadata"`},
	{name: "metadata-lazy", options: `"size":1049088,"preallocation":"metadata","lazy-refcounts":true`},
	{name: "metadata-v2", options: `"size":1049088,"preallocation":"metadata","version":"v2"`},
	{name: "metadata-4k", options: `"size":33554432,"preallocation":"metadata","cluster-size":4096`},
	{name: "metadata-4k-64", options: `"size":8388608,"preallocation":"metadata","cluster-size":4096,"refcount-bits":64`},
	{name: "metadata-extended", options: `"size":4194304,"preallocation":"metadata","extended-l2":true`},
	{name: "metadata-extended-odd", options: `"size":1049088,"preallocation":"metadata","extended-l2":true`},
	{name: "metadata-backing", options: `"size":4194304,"preallocation":"metadata","extended-l2":true,"backing-file":"base","backing-fmt":"raw"`, backing: true},
	{name: "metadata-512", options: `"size":4194304,"preallocation":"metadata","cluster-size":512,"refcount-bits":64`, moved: true},
	{name: "falloc", options: `"size":1049088,"preallocation":"falloc"`},
	{name: "falloc-512", options: `"size":8388608,"preallocation":"falloc","cluster-size":512`},
	{name: "full-4k", options: `"size":16777216,"preallocation":"full","cluster-size":4096`},
	{name: "full-backing", options: `"size":1048576,"preallocation":"full","extended-l2":true,"backing-file":"base","backing-fmt":"raw"`, backing: true},
}

const baseSize = 500 * 1024

// prepare makes the files that an image is made of.
func (c creation) prepare(t *testing.T, dir string) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"image": nil, "data": nil, "base": bytes.Repeat([]byte{0x42}, baseSize)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// nodes are the options of the nodes over them.
func (c creation) nodes(dir string) []string {
	return []string{
		fmt.Sprintf(`{"driver":"file","node-name":"f","filename":"%s/image"}`, dir),
		fmt.Sprintf(`{"driver":"file","node-name":"d","filename":"%s/data"}`, dir),
	}
}

func (c creation) text(dir string) string {
	return `{"driver":"qcow2","file":"f",` + strings.ReplaceAll(c.options, "DIR", dir) + `}`
}

// theirs has the reference make the image.
func (c creation) theirs(r *drivertest.Reference, dir string) {
	for _, n := range c.nodes(dir) {
		r.Do("blockdev-add", n)
	}
	r.Do("blockdev-create", `{"job-id":"j","options":`+c.text(dir)+`}`)
	for done := false; !done; {
		for j := range r.Do("query-jobs", "{}").Elems() {
			done = j.Get("status").Is("concluded")
		}
	}
	r.Do("job-dismiss", `{"id":"j"}`)
	for _, n := range []string{"f", "d"} {
		r.Do("blockdev-del", `{"node-name":"`+n+`"}`)
	}
}

// ours makes it with our driver.
func (c creation) ours(t *testing.T, dir string) {
	b := bench(t)
	for _, n := range c.nodes(dir) {
		b.Add(n)
	}
	if err := makeImage(t, b, c.text(dir)); err != nil {
		t.Fatal(err)
	}
	b.Delete("f")
	b.Delete("d")
}

// makeImage makes an image with our driver.
func makeImage(tb testing.TB, b *drivertest.Bench, options string) (err error) {
	tb.Helper()
	o := b.Options(options)
	d := b.Graph.Driver(qcow2.Driver().Name)
	if p := b.Graph.Main().Enter("create", func(co *aio.Co) { err = b.Graph.CoCreate(co, d, o) }); p != nil {
		tb.Fatal(p)
	}
	return err
}

// Images are the reference's, byte for byte, and so is what its tools say of
// them. They hold what is written to them afterwards.
func TestCreate(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	for _, c := range creations {
		t.Run(c.name, func(t *testing.T) {
			theirs, ours := filepath.Join(r.Dir, "a-"+c.name), filepath.Join(r.Dir, "b-"+c.name)
			c.prepare(t, theirs)
			c.prepare(t, ours)
			c.theirs(r, theirs)
			c.ours(t, ours)
			if !c.moved {
				sameFiles(t, theirs, ours)
			}
			for _, args := range [][]string{{"info", "-U"}, {"check"}, {"map"}, {"measure", "-O", "qcow2"}} {
				args = append(args, "-f", "qcow2")
				got, want := img(t, ours, append(args, ours+"/image")...), img(t, theirs, append(args, theirs+"/image")...)
				// What a file takes on disk is the file system's affair.
				got, want = diskSize.ReplaceAllString(got, ""), diskSize.ReplaceAllString(want, "")
				if want = strings.ReplaceAll(want, theirs, ours); got != want && !c.moved {
					t.Errorf("qemu-img %s:\n%s, want\n%s", args[0], got, want)
				}
			}
			c.use(t, ours)
		})
	}
}

// sameFiles compares the images and their data files.
func sameFiles(t *testing.T, theirs, ours string) {
	t.Helper()
	for _, name := range []string{"image", "data"} {
		want, err := os.ReadFile(filepath.Join(theirs, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(ours, name))
		if err != nil {
			t.Fatal(err)
		}
		same(t, name, got, bytes.ReplaceAll(want, []byte(theirs), []byte(ours)))
	}
}

// use writes to an image that is there, and checks what it holds then.
func (c creation) use(t *testing.T, dir string) {
	path := filepath.Join(dir, "image")
	b := bench(t)
	n := b.Add(node(path, ""))
	blk := b.Use(n)
	size, err := n.GetLength(aio.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if size = min(size, 2<<20); size == 0 {
		return
	}
	want := make([]byte, size)
	if c.backing {
		copy(want, bytes.Repeat([]byte{0x42}, baseSize))
	}
	same(t, "new image", read(t, blk, 0, int(size)), want)
	rng := rand.New(rand.NewPCG(1, 5))
	for range 40 {
		offset := rng.Int64N(size)
		v := drivertest.Fill(byte(rng.IntN(256)), int(min(1+rng.Int64N(100000), size-offset)))
		if err := blk.Pwritev(aio.Outside, offset, v, 0); err != nil {
			t.Fatal(err)
		}
		copy(want[offset:], v[0])
	}
	same(t, "written", read(t, blk, 0, int(size)), want)
	b.Drop(blk)
	b.Delete("q")
	check(t, path, false)
	if c.data {
		return // the reference looks for the data file by its name, which it knows
	}
	b = bench(t)
	blk = b.Use(b.Add(node(path, "")))
	same(t, "opened anew", read(t, blk, 0, int(size)), want)
}

// What a file held before is not in the disk, though its clusters are places
// for it.
func TestCreateOverOld(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"off", "metadata", "falloc", "full"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, bytes.Repeat([]byte{0xaa}, 700<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			b := bench(t)
			err := makeImage(t, b, fmt.Sprintf(`{"driver":"qcow2","file":{"driver":"file","filename":%q},"size":1048576,"preallocation":%q}`, path, mode))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "disk", read(t, b.Use(b.Add(node(path, ""))), 0, 1<<20), make([]byte, 1<<20))
		})
	}
}

// An image whose file fails at any point is not made, and its nodes are given
// back.
func TestCreateFails(t *testing.T) {
	t.Parallel()
	for _, options := range []string{
		`"size":1048576,"backing-file":"base"`,
		`"size":4194304,"preallocation":"metadata","cluster-size":4096,"refcount-bits":64`,
		`"size":4194304,"preallocation":"falloc","cluster-size":4096,"refcount-bits":64`,
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			for failing := int64(1); ; failing++ {
				var requests atomic.Int64
				record := &tape{}
				b := bench(t, taped(record, map[string][]byte{"": nil}, func() bool { return requests.Add(1) == failing }))
				n := b.Add(`{"driver":"taped","node-name":"f"}`)
				err := makeImage(t, b, `{"driver":"qcow2","file":"f",`+options+`}`)
				if n.HasBackend() {
					t.Errorf("request %d: the node is still in use", failing)
				}
				b.Delete("f")
				if requests.Load() < failing {
					return
				}
				// A flush that fails does not matter if a later one makes up for it.
				if err == nil && !(record.flushFailed.Load() && record.endsFlushed()) {
					t.Errorf("made although request %d of %d failed", failing, requests.Load())
				}
			}
		})
	}
}

// Whenever the power fails while room is preallocated, the image is whole.
func TestPreallocateCrash(t *testing.T) {
	t.Parallel()
	for _, mode := range []block.PreallocMode{block.PreallocMetadata, block.PreallocFalloc} {
		for _, options := range []string{`"cluster-size":512,"refcount-bits":64`, `"cluster-size":4096`} {
			t.Run(fmt.Sprintf("%v/%s", mode, options), func(t *testing.T) {
				t.Parallel()
				record := &tape{}
				b := bench(t, taped(record, map[string][]byte{"": nil}, nil))
				b.Add(`{"driver":"taped","node-name":"f"}`)
				if err := makeImage(t, b, `{"driver":"qcow2","file":"f","size":65536,`+options+`}`); err != nil {
					t.Fatal(err)
				}
				begin := len(record.events)
				blk := b.Use(b.Add(`{"driver":"qcow2","node-name":"q","file":"f"}`))
				if err := blk.Truncate(aio.Outside, 1<<20, false, mode, 0); err != nil {
					t.Fatal(err)
				}
				b.Drop(blk)
				b.Delete("q")
				rng := rand.New(rand.NewPCG(1, 6))
				path := filepath.Join(t.TempDir(), "image")
				cuts := rng.Perm(len(record.events) - begin)
				for _, cut := range cuts[:min(25, len(cuts))] {
					if err := os.WriteFile(path, torn(record, "", nil, begin+cut, rng), 0o600); err != nil {
						t.Fatal(err)
					}
					check(t, path, true)
				}
			})
		}
	}
}

// New images can be encrypted: the reference reads what is written to them, and
// finds nothing wrong with them.
func TestCreateEncrypted(t *testing.T) {
	t.Parallel()
	tool(t, "qemu-img")
	for format, options := range map[string]string{
		"luks": `{"format":"luks","key-secret":"s0","iter-time":10}`,
		"aes":  `{"format":"qcow","key-secret":"s0"}`,
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			b := cryptBench(t, false)
			err := makeImage(t, b, fmt.Sprintf(`{"driver":"qcow2","file":{"driver":"file","filename":%q},"size":%d,"encrypt":%s}`, path, cryptSize, options))
			if err != nil {
				t.Fatal(err)
			}
			model := make([]byte, cryptSize)
			blk := b.Use(b.Add(cryptNode(path, format, "s0")))
			scribble(t, blk, model, 8)
			b.Drop(blk)
			b.Delete("q")
			checkEncrypted(t, path, model)
		})
	}
}

// Without its secret nothing is encrypted.
func TestCreateEncryptedErrors(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		`{"format":"luks"}`:                                              "Parameter 'encrypt.key-secret' is required for cipher",
		`{"format":"qcow"}`:                                              "Parameter 'encrypt.key-secret' is required for cipher",
		`{"format":"luks","key-secret":"none"}`:                          "No secret with id 'none'",
		`{"format":"qcow","key-secret":"none"}`:                          "No secret with id 'none'",
		`{"format":"luks","key-secret":"s0"},"size":1152921504606846976`: "Could not resize image: Failed to grow the L1 table: File too large",
	} {
		b := drivertest.NewWith(t, block.Config{
			Drivers: []*block.Driver{qcow2.Driver(), taped(&tape{}, map[string][]byte{"": nil}, nil)}, Secret: cryptSecret,
		})
		b.Add(`{"driver":"taped","node-name":"f"}`)
		err := makeImage(t, b, `{"driver":"qcow2","file":"f","encrypt":`+options+`}`)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", options, err, want)
		}
		b.Delete("f")
	}
}
