package qcow2_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// fields are those of the header: where they are, how long they are, and
// values that are of interest.
var fields = []struct {
	name           string
	offset, length int
	values         []uint64
}{
	{"magic", 0, 4, []uint64{0}},
	{"version", 4, 4, []uint64{0, 1, 2, 3, 4}},
	{"backing_file_offset", 8, 8, []uint64{0, 1, 104, 112, 0x200, 0xfffe, 0x10000, 0x10001, 1 << 63}},
	{"backing_file_size", 16, 4, []uint64{0, 2, 3, 1023, 1024, 1<<32 - 1}},
	{"cluster_bits", 20, 4, []uint64{0, 8, 9, 13, 14, 16, 21, 22, 64}},
	{"size", 24, 8, []uint64{0, 511, 513, 1 << 20, 1 << 40, 1 << 62, 1 << 63, 1<<64 - 512, 1<<63 - 512}},
	{"crypt_method", 32, 4, []uint64{0, 2, 3, 1<<32 - 1}},
	{"l1_size", 36, 4, []uint64{0, 1, 2, 0x400000, 0x400001, 1<<32 - 1}},
	{"l1_table_offset", 40, 8, []uint64{0, 1, 512, 0x30200, 0x1000000, 0x7fffffffffff0000, 0xffffffffffff0000}},
	{"refcount_table_offset", 48, 8, []uint64{0, 1, 512, 0x1000000, 0x7fffffffffff0000, 0xffffffffffff0000}},
	{"refcount_table_clusters", 56, 4, []uint64{0, 1, 2, 128, 129, 1<<32 - 1}},
	{"nb_snapshots", 60, 4, []uint64{0, 1, 2, 65536, 65537, 1<<32 - 1}},
	{"snapshots_offset", 64, 8, []uint64{0, 1, 512, 0x10000, 0x7fffffffffff0000, 0xffffffffffff0000}},
	{"incompatible_features", 72, 8, []uint64{0, 1, 2, 4, 8, 16, 20, 32, 64, 1 << 63, 0x21}},
	{"compatible_features", 80, 8, []uint64{0, 1, 2, 1<<64 - 1}},
	{"autoclear_features", 88, 8, []uint64{0, 1, 2, 3, 4, 1<<64 - 1}},
	{"refcount_order", 96, 4, []uint64{0, 4, 5, 6, 7, 1<<32 - 1}},
	{"header_length", 100, 4, []uint64{0, 72, 103, 104, 105, 111, 112, 113, 120, 128, 0x10000, 0x10001, 1<<32 - 1}},
	{"compression_type", 104, 1, []uint64{0, 1, 2, 255}},
}

// extensionOf makes a header extension that claims to have length bytes.
func extensionOf(kind uint32, data string, length int) []byte {
	b := binary.BigEndian.AppendUint32(nil, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&7)...)
}

func numbers(widths string, values ...uint64) string {
	var b []byte
	for i, w := range widths {
		switch w {
		case '4':
			b = binary.BigEndian.AppendUint32(b, uint32(values[i]))
		case '8':
			b = binary.BigEndian.AppendUint64(b, values[i])
		}
	}
	return string(b)
}

const (
	kindBacking  = 0xe2792aca
	kindNames    = 0x6803f857
	kindBitmaps  = 0x23852875
	kindCrypto   = 0x0537be77
	kindDataFile = 0x44415441
)

// randomExtensions fills the area of extensions.
func randomExtensions(rng *rand.Rand) (b []byte, text string) {
	for range 1 + rng.IntN(3) {
		var kind uint32
		var data string
		length := -1
		switch rng.IntN(7) {
		case 0:
			kind, data = kindBacking, []string{"", "raw", "qcow2", strings.Repeat("a", 15), strings.Repeat("a", 16)}[rng.IntN(5)]
		case 1:
			kind, data = kindNames, "\x00\x05my feature"+strings.Repeat("\x00", 36)+"\x00\x07"+strings.Repeat("x", 46)
			data = data[:[]int{50, 96}[rng.IntN(2)]]
		case 2:
			pick := func(v ...uint64) uint64 { return v[rng.IntN(len(v))] }
			kind, data = kindBitmaps, numbers("4488", pick(0, 1, 65536), pick(0, 0, 1), pick(0, 8, 32, 1<<40), pick(0, 1, 0x10000))
			data = data[:pick(16, 24, 24, 24)]
		case 3:
			kind, data = kindCrypto, numbers("88", []uint64{0x10000, 0x10001}[rng.IntN(2)], 100)
			data = data[:[]int{8, 16, 16}[rng.IntN(3)]]
		case 4:
			kind, data = kindDataFile, []string{"nope", "data", ""}[rng.IntN(3)]
		case 5:
			kind, data = 0x12345678, "abc"
		default:
			kind, data, length = 0x12345678, "abc", []int{0x10000, 1 << 31, 1<<32 - 1}[rng.IntN(3)]
		}
		if length < 0 {
			length = len(data)
		}
		b = append(b, extensionOf(kind, data, length)...)
		text += fmt.Sprintf(" ext %x %q %d", kind, data, length)
	}
	return append(b, make([]byte, 16)...), text
}

// Headers of all kinds are taken or refused with the reference's words.
func TestReferenceHeaders(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	b := bench(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/base", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var bases [][]byte
	for i, options := range []string{
		"", "compat=0.10", "backing_file=" + dir + "/base,backing_fmt=raw", "data_file=" + dir + "/data",
		"data_file=" + dir + "/data2,data_file_raw=on", "compression_type=zstd", "extended_l2=on",
	} {
		image, err := os.ReadFile(create(t, dir, fmt.Sprint("base", i), options, "1M"))
		if err != nil {
			t.Fatal(err)
		}
		bases = append(bases, image)
	}
	rng := rand.New(rand.NewPCG(max(*seedFlag, 1), 4))
	for n := range *stepsFlag * 5 {
		image := slices.Clone(bases[rng.IntN(len(bases))])
		text := fmt.Sprint("version ", image[7])
		if rng.IntN(3) == 0 && image[7] == 3 {
			ext, what := randomExtensions(rng)
			copy(image[112:], ext)
			text += what
		}
		for range rng.IntN(3) {
			f := fields[rng.IntN(len(fields))]
			v := f.values[rng.IntN(len(f.values))]
			text += fmt.Sprintf(" %s=%#x", f.name, v)
			var raw [8]byte
			binary.BigEndian.PutUint64(raw[:], v)
			copy(image[f.offset:], raw[8-f.length:])
		}
		switch rng.IntN(12) {
		case 0:
			image = image[:[]int{0, 3, 72, 100, 112, 200}[rng.IntN(6)]]
			text += fmt.Sprint(" cut to ", len(image))
		}
		more := []string{
			"", "", "", "", `,"read-only":true`, `,"read-only":true`, `,"backing":null`, `,"lazy-refcounts":true`, `,"discard-no-unref":true`,
			`,"l2-cache-entry-size":1000`, `,"encrypt":{"format":"luks","key-secret":"nope"}`, `,"overlap-check":"all"`,
			`,"cache-size":1,"l2-cache-size":2`,
		}[rng.IntN(13)]
		// The two may write to the image as they open it.
		path := fmt.Sprintf("%s/t%d", dir, n)
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		_, want := r.Ask("blockdev-add", node(path, more))
		if want == "" {
			r.Do("blockdev-del", `{"node-name":"q"}`)
		}
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		got := ""
		if _, err := b.TryAdd(node(path, more)); err != nil {
			got = err.Error()
		} else {
			b.Delete("q")
		}
		if strings.ToValidUTF8(got, "\uFFFD") != want {
			t.Errorf("%s %s:\n got %q\nwant %q", text, more, got, want)
		}
		os.Remove(path)
	}
}
