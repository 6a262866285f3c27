package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// Requests fail when the disk does; the image is whole all the same, and what
// succeeded is there.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for _, options := range []string{
		"", "cluster_size=512", "cluster_size=4k,refcount_bits=1", "extended_l2=on,cluster_size=16k",
		"cluster_size=512,refcount_bits=64", "cluster_size=4k,lazy_refcounts=on",
	} {
		for _, seed := range seeds(3) {
			t.Run(fmt.Sprintf("%s/%d", options, seed), func(t *testing.T) {
				t.Parallel()
				failingDisk(t, options, seed)
			})
		}
	}
}

func failingDisk(t *testing.T, options string, seed uint64) {
	dir := t.TempDir()
	const size = 1 << 19
	path := create(t, dir, "image", options, fmt.Sprint(size))
	initial, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	var countdown atomic.Int64 // requests until one fails; none if negative
	fail := func() bool { return countdown.Add(-1) == 0 }
	b := bench(t, taped(&tape{}, map[string][]byte{"": initial}, fail))
	n := b.Add(`{"driver":"qcow2","node-name":"q","discard":"unmap","l2-cache-size":1024,"l2-cache-entry-size":512,
		"file":{"driver":"taped"}}`)
	blk := b.Use(n)
	info, err := n.GetInfo(aio.Outside)
	if err != nil {
		t.Fatal(err)
	}
	may := make([][]byte, size/512) // what each sector may hold
	for i := range may {
		may[i] = []byte{0}
	}
	var log []string
	for range *stepsFlag {
		unit := []int64{512, 4096, info.ClusterSize}[rng.IntN(3)]
		offset := rng.Int64N(size) / unit * unit
		bytes := min(size-offset, unit*(1+rng.Int64N(4)))
		value := byte(1 + rng.IntN(255))
		countdown.Store(int64(1 + rng.IntN(12)))
		var err error
		what := "write"
		switch k := rng.IntN(10); {
		case k < 5:
			err = blk.Pwritev(aio.Outside, offset, drivertest.Fill(value, int(bytes)), 0)
		case k < 6 && offset%info.ClusterSize == 0 && bytes%info.ClusterSize == 0:
			what = "compress"
			err = in(n, func(co *aio.Co) error {
				return n.CoPwritev(co, offset, drivertest.Fill(value, int(bytes)), block.ReqCompressed)
			})
		case k < 8:
			what, value = "zero", 0
			err = blk.PwriteZeroes(aio.Outside, offset, bytes, block.ReqMayUnmap)
		case k < 9:
			what, value, bytes = "flush", 0, 0
			err = blk.Flush(aio.Outside)
		default:
			what, value = "discard", 0
			if err = blk.Pdiscard(aio.Outside, offset, bytes); err == nil {
				err = fmt.Errorf("maybe")
			}
		}
		countdown.Store(-1)
		log = append(log, fmt.Sprintf("%s %d+%d %#x: %v", what, offset, bytes, value, err))
		for s := offset / 512; s < (offset+bytes)/512; s++ {
			if err == nil {
				may[s] = []byte{value}
			} else {
				may[s] = append(may[s], value)
			}
		}
	}
	verify := func(what string, got []byte) {
		for i, v := range got {
			if !slices.Contains(may[i/512], v) {
				t.Errorf("%s: byte %#x is %#x, may be %x\nseed %d\n%s", what, i, v, may[i/512], seed, strings.Join(log, "\n"))
				return
			}
		}
	}
	verify("read", read(t, blk, 0, size))
	disk := n.File().Node().Instance().(*tapedDisk)
	b.Drop(blk)
	b.Delete("q")
	path = filepath.Join(dir, "after")
	if err := os.WriteFile(path, disk.bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, path, true)
	verify("the reference", content(t, path))
	if t.Failed() {
		t.Logf("seed %d\n%s", seed, strings.Join(log, "\n"))
	}
}
