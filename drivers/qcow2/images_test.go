package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// texture is data that can be compressed, most of it, and is not all the same.
func texture(seed uint64, size int) []byte {
	rng := rand.New(rand.NewPCG(seed, 6))
	b := make([]byte, size)
	for at := 0; at < size; at += 4096 {
		if rng.IntN(3) == 0 {
			continue
		}
		kinds := []int{1, 2, 16, 256}[rng.IntN(4)]
		for i := range min(4096, size-at) {
			b[at+i] = byte(rng.IntN(kinds) + at>>12)
		}
	}
	return b
}

// Images that the reference has filled are read and written to, and what it
// compressed as well.
func TestConvertedImages(t *testing.T) {
	t.Parallel()
	base := t.TempDir() // without a comma
	for n, options := range []string{
		"", "compat=0.10", "cluster_size=512", "cluster_size=2M", "compression_type=zstd", "compression_type=zstd,cluster_size=512",
		"extended_l2=on", "refcount_bits=1,cluster_size=4k", "refcount_bits=64", "preallocation=full", "lazy_refcounts=on",
		"data_file=data", "data_file=data,data_file_raw=on",
	} {
		for _, compressed := range []bool{false, true} {
			if compressed && (strings.Contains(options, "data_file") || strings.Contains(options, "prealloc")) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%v", options, compressed), func(t *testing.T) {
				t.Parallel()
				dir := fmt.Sprintf("%s/%d%v", base, n, compressed)
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				want := texture(1, 3<<20+512)
				if err := os.WriteFile(dir+"/raw", want, 0o600); err != nil {
					t.Fatal(err)
				}
				args := []string{"convert", "-f", "raw", "-O", "qcow2"}
				if options != "" {
					args = append(args, "-o", strings.Replace(options, "=data", "="+dir+"/data", 1))
				}
				if compressed {
					args = append(args, "-c")
				}
				img(t, dir, append(args, "raw", "image")...)
				path := filepath.Join(dir, "image")
				b := bench(t)
				n := b.Add(node(path, ""))
				blk := b.Use(n)
				same(t, "as converted", read(t, blk, 0, len(want)), want)
				for i, at := range []int{0, 5000, 1 << 20, 2<<20 - 7, len(want) - 1000} {
					v := drivertest.Fill(byte(i+1), 1000)
					if err := blk.Pwritev(aio.Outside, int64(at), v, 0); err != nil {
						t.Fatal(err)
					}
					copy(want[at:], v[0])
				}
				if !strings.Contains(options, "data_file") && !strings.Contains(options, "2M") {
					again := texture(2, 1<<20)
					if err := in(n, func(co *aio.Co) error { return packAnew(co, n, 2<<20, again) }); err != nil {
						t.Fatal(err)
					}
					copy(want[2<<20:], again)
				}
				b.Drop(blk)
				b.Delete("q")
				check(t, path, false)
				same(t, "the reference", content(t, path), want)
			})
		}
	}
}

// packAnew writes packed clusters where others may have been.
func packAnew(co *aio.Co, n *block.Node, offset int64, data []byte) error {
	if err := n.CoPwriteZeroes(co, offset, int64(len(data)), block.ReqMayUnmap); err != nil {
		return err
	}
	return n.CoPwritev(co, offset, block.Vec{data}, block.ReqCompressed)
}

// What internal snapshots hold stays as it was.
func TestSnapshotsStay(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", "compat=0.10", "cluster_size=512", "extended_l2=on,cluster_size=16k", "lazy_refcounts=on", "refcount_bits=2,cluster_size=4k"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			const size = 1 << 20
			path := create(t, dir, "image", options, fmt.Sprint(size))
			b := bench(t)
			rng := rand.New(rand.NewPCG(1, 7))
			want := make([]byte, size)
			var kept [][]byte
			for round := range 3 {
				n := b.Add(node(path, ""))
				blk := b.Use(n)
				same(t, "before", read(t, blk, 0, size), want)
				for range 30 {
					offset := rng.Int64N(size)
					bytes := min(size-offset, 1+rng.Int64N(70000))
					value := byte(rng.IntN(256))
					switch rng.IntN(4) {
					case 0:
						value = 0
						if err := blk.PwriteZeroes(aio.Outside, offset, bytes, block.ReqMayUnmap); err != nil {
							t.Fatal(err)
						}
					default:
						if err := blk.Pwritev(aio.Outside, offset, drivertest.Fill(value, int(bytes)), 0); err != nil {
							t.Fatal(err)
						}
					}
					copy(want[offset:], drivertest.Fill(value, int(bytes))[0])
				}
				same(t, "after", read(t, blk, 0, size), want)
				b.Drop(blk)
				b.Delete("q")
				check(t, path, false)
				if round < 2 {
					img(t, dir, "snapshot", "-c", fmt.Sprint("s", round), "image")
					kept = append(kept, append([]byte(nil), want...))
				}
			}
			same(t, "the reference", content(t, path), want)
			for round, old := range kept {
				img(t, dir, "convert", "-f", "qcow2", "-l", fmt.Sprint("s", round), "-O", "raw", "image", "old")
				got, err := os.ReadFile(dir + "/old")
				if err != nil {
					t.Fatal(err)
				}
				same(t, fmt.Sprint("snapshot ", round), got, old)
			}
			img(t, dir, "snapshot", "-d", "s0", "image")
			img(t, dir, "snapshot", "-a", "s1", "image")
			n := b.Add(node(path, ""))
			same(t, "gone back", read(t, b.Use(n), 0, size), kept[1])
		})
	}
}

// Refcounts of an image that was not closed are counted anew, whatever has
// become of them.
func TestRepair(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", "cluster_size=512", "cluster_size=512,refcount_bits=64", "refcount_bits=1,cluster_size=4k", "extended_l2=on"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			const size = 4 << 20
			path := create(t, dir, "image", options, fmt.Sprint(size))
			b := bench(t)
			n := b.Add(node(path, ""))
			blk := b.Use(n)
			want := texture(3, size)
			if err := blk.Pwritev(aio.Outside, 0, block.Vec{want}, 0); err != nil {
				t.Fatal(err)
			}
			info, err := n.GetInfo(aio.Outside)
			if err != nil {
				t.Fatal(err)
			}
			b.Drop(blk)
			b.Delete("q")
			if !strings.Contains(options, "refcount_bits=1") {
				img(t, dir, "snapshot", "-c", "s", "image")
			}
			image, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			image[79] |= 1
			// The first refcount block forgets all but itself and what is
			// before it, or counts too much.
			cluster := info.ClusterSize
			for i := cluster*2 + cluster/2; i < cluster*3; i++ {
				image[i] = byte(i) & 1
			}
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			n = b.Add(node(path, ""))
			blk = b.Use(n)
			same(t, "repaired", read(t, blk, 0, size), want)
			if err := blk.Pwritev(aio.Outside, 1<<20, drivertest.Fill(7, 1<<20), 0); err != nil {
				t.Fatal(err)
			}
			copy(want[1<<20:], drivertest.Fill(7, 1<<20)[0])
			b.Drop(blk)
			b.Delete("q")
			check(t, path, false)
			same(t, "the reference", content(t, path), want)
		})
	}
}

// The refcount table moves when it is full.
func TestManyRefcountBlocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 16 << 20
	path := create(t, dir, "image", "cluster_size=512,refcount_bits=64", fmt.Sprint(size))
	b := bench(t)
	n := b.Add(node(path, ""))
	blk := b.Use(n)
	want := texture(4, size)
	for at := 0; at < size; at += 1 << 18 {
		if err := blk.Pwritev(aio.Outside, int64(at), block.Vec{want[at : at+1<<18]}, 0); err != nil {
			t.Fatal(err)
		}
		if at%(1<<20) == 0 {
			if err := blk.Flush(aio.Outside); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.Drop(blk)
	b.Delete("q")
	check(t, path, true)
	same(t, "the reference", content(t, path), want)
}

// Snapshots that the driver takes are those that the reference finds.
func TestTakeSnapshots(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", "compat=0.10", "cluster_size=512", "extended_l2=on,cluster_size=16k", "lazy_refcounts=on", "refcount_bits=2,cluster_size=4k", "refcount_bits=1"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			const size = 1 << 20
			path := create(t, dir, "image", options, fmt.Sprint(size))
			b := bench(t)
			n := b.Add(node(path, ""))
			blk := b.Use(n)
			s := n.Instance().(block.Snapshotter)
			rng := rand.New(rand.NewPCG(2, 7))
			want := make([]byte, size)
			kept := map[string][]byte{}
			scribble := func() {
				for range 20 {
					offset := rng.Int64N(size)
					bytes := min(size-offset, 1+rng.Int64N(70000))
					value := byte(rng.IntN(256))
					if err := blk.Pwritev(aio.Outside, offset, drivertest.Fill(value, int(bytes)), 0); err != nil {
						t.Fatal(err)
					}
					copy(want[offset:], drivertest.Fill(value, int(bytes))[0])
				}
				if strings.Contains(options, "refcount_bits=2") {
					return // what is packed into one cluster is counted too often
				}
				packed := texture(rng.Uint64(), 1<<16)
				if err := in(n, func(co *aio.Co) error { return packAnew(co, n, 1<<18, packed) }); err != nil {
					t.Fatal(err)
				}
				copy(want[1<<18:], packed)
			}
			for round := range 2 {
				scribble()
				name := fmt.Sprint("s", round)
				err := in(n, func(co *aio.Co) error {
					return s.CoSnapshotCreate(co, block.SnapshotInfo{Name: name, DateSec: 1, Icount: 1<<64 - 1})
				})
				if strings.Contains(options, "refcount_bits=1") {
					if err == nil {
						t.Error("a cluster was counted twice in one bit")
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				kept[name] = append([]byte(nil), want...)
			}
			scribble()
			same(t, "read", read(t, blk, 0, size), want)
			if len(kept) > 0 {
				if err := in(n, func(co *aio.Co) error { return s.CoSnapshotDelete(co, "1") }); err != nil {
					t.Fatal(err)
				}
				delete(kept, "s0")
			}
			scribble()
			same(t, "read", read(t, blk, 0, size), want)
			b.Drop(blk)
			b.Delete("q")
			check(t, path, false)
			same(t, "the reference", content(t, path), want)
			for name, old := range kept {
				img(t, dir, "convert", "-f", "qcow2", "-l", name, "-O", "raw", "image", "old")
				got, err := os.ReadFile(dir + "/old")
				if err != nil {
					t.Fatal(err)
				}
				same(t, name, got, old)
			}
		})
	}
}
