package qcow2_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
)

// marked is what the reference says of damage that it finds.
var marked = regexp.MustCompile(`qcow2: (?:Marking image as corrupt|Image is corrupt): (.*); further`)

// damage is something wrong in an image of 1 MiB with clusters of 64 KiB:
// header, refcount table, refcount block, L1 table, L2 table (at 0x40000), and
// two clusters of data, the first at 0x50000.
var damage = []struct {
	name   string
	create string
	at     int64
	word   uint64
}{
	{"l2-unaligned", "", 0x30000, 0x8000000000040200},
	{"l2-is-header", "", 0x30000, 0x8000000000000000},
	{"data-unaligned", "", 0x40000, 0x8000000000050200},
	{"zero-unaligned", "", 0x40000, 0x8000000000050201},
	{"data-is-l2", "", 0x40000, 0x8000000000040000},
	{"data-is-l1", "", 0x40000, 0x8000000000030000},
	{"data-is-refcount-block", "", 0x40000, 0x8000000000020000},
	{"data-is-refcount-table", "", 0x40000, 0x8000000000010000},
	{"data-is-header", "", 0x40000, 0x8000000000000000},
	{"refcount-block-unaligned", "", 0x10000, 0x20200},
	{"refcount-block-elsewhere", "", 0x10000, 0x900000},
	{"refcounts-gone", "", 0x20000, 0},
	{"compressed-nonsense", "", 0x40000, 0x4000000000050000},
	{"reserved-bits", "", 0x40000, 0x8000000000050002},
	{"extended-both", "extended_l2=on", 0x40008, 0x0000000100000001},
	{"extended-unaligned", "extended_l2=on", 0x40000, 0x8000000000050200},
	{"extended-no-place", "extended_l2=on", 0x40000, 0},
	{"external-elsewhere", "data_file=data", 0x40000, 0x8000000000050000},
	{"external-compressed", "data_file=data", 0x40000, 0x4000000000050000},
}

// Damage is found when the reference finds it, told with its words, and leaves
// the same mark in the image.
func TestReferenceCorruption(t *testing.T) {
	t.Parallel()
	requests := []ioCommand{
		{"read 0 64k", func(_ *block.Node, blk *block.Backend) error {
			return blk.Preadv(aio.Outside, 0, drivertest.Fill(0, 65536))
		}},
		{"write -P 7 0 64k", func(_ *block.Node, blk *block.Backend) error {
			return blk.Pwritev(aio.Outside, 0, drivertest.Fill(7, 65536), 0)
		}},
		{"write -P 7 512k 64k", func(_ *block.Node, blk *block.Backend) error {
			return blk.Pwritev(aio.Outside, 512<<10, drivertest.Fill(7, 65536), 0)
		}},
		{"write -z 0 64k", func(_ *block.Node, blk *block.Backend) error {
			return blk.PwriteZeroes(aio.Outside, 0, 65536, 0)
		}},
		{"discard 0 64k", func(_ *block.Node, blk *block.Backend) error {
			return blk.Pdiscard(aio.Outside, 0, 65536)
		}},
	}
	for _, d := range damage {
		for _, request := range requests {
			t.Run(d.name+"/"+strings.ReplaceAll(request.text, " ", "_"), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				options := strings.ReplaceAll(d.create, "data_file=data", "data_file="+dir+"/data")
				path := create(t, dir, "image", options, "1M")
				run(t, dir, tool(t, "qemu-io"), "-f", "qcow2", "-c", "write -P 1 0 64k", "-c", "write -P 2 64k 64k", path)
				image, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				binary.BigEndian.PutUint64(image[d.at:], d.word)
				var messages []string
				b := drivertest.NewWith(t, block.Config{
					Drivers:        []*block.Driver{qcow2.Driver(), file.Driver()},
					ImageCorrupted: func(_ string, c block.Corruption) { messages = append(messages, c.Message) },
				})
				if err := os.WriteFile(path, image, 0o600); err != nil {
					t.Fatal(err)
				}
				out, _ := run(t, dir, tool(t, "qemu-io"), "-f", "qcow2", "-d", "unmap", "-c", request.text, path)
				var want []string
				for _, m := range marked.FindAllStringSubmatch(out, -1) {
					want = append(want, m[1])
				}
				theirs, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, image, 0o600); err != nil {
					t.Fatal(err)
				}
				n := b.Add(node(path, ""))
				blk := b.Use(n)
				err = request.do(n, blk)
				b.Drop(blk)
				b.Delete("q")
				if fmt.Sprint(messages) != fmt.Sprint(want) {
					t.Errorf("said %q (%v), want %q\n%s", messages, err, want, out)
				}
				ours, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if ours[79] != theirs[79] {
					t.Errorf("incompatible features %#x, want %#x", ours[79], theirs[79])
				}
			})
		}
	}
}
