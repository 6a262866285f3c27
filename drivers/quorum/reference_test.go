package quorum_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/quorum"
)

// files writes the children's images: each sector has one of three values.
func files(t *testing.T, r *rand.Rand, dir string, n int) (images [][]byte) {
	t.Helper()
	for i := range n {
		image := make([]byte, diskSize)
		for at := range image {
			if at%512 == 0 {
				image[at] = byte(r.IntN(3))
			} else {
				image[at] = image[at-1]
			}
		}
		images = append(images, image)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), image, 0o666))
	}
	return images
}

func nodeOverFiles(dir string, n int, options string) string {
	var children []string
	for i := range n {
		children = append(children, fmt.Sprintf(`{"driver":"file","filename":"%s/%d"}`, dir, i))
	}
	return `{"driver":"quorum","node-name":"q","children":[` + strings.Join(children, ",") + `],` + options + `}`
}

// TestLikeReference does the same reads and writes with us and with the reference,
// where children differ: what is in them afterwards shows who has won each vote.
func TestLikeReference(t *testing.T) {
	t.Parallel()
	ref := drivertest.StartReference(t)
	b := drivertest.New(t, quorum.Driver(), file.Driver())
	for seed, c := range []struct {
		children int
		options  string
	}{
		{2, `"vote-threshold":1,"rewrite-corrupted":true`},
		{3, `"vote-threshold":2,"rewrite-corrupted":true`},
		{4, `"vote-threshold":2,"rewrite-corrupted":true`},
		{5, `"vote-threshold":2,"rewrite-corrupted":true`},
		{5, `"vote-threshold":3,"rewrite-corrupted":true`},
		{7, `"vote-threshold":2,"rewrite-corrupted":true`},
		{3, `"vote-threshold":1`},
		{3, `"vote-threshold":3,"read-pattern":"fifo","rewrite-corrupted":true`},
	} {
		r := rand.New(rand.NewPCG(2, uint64(seed)))
		theirs, ours := t.TempDir(), t.TempDir()
		for i, image := range files(t, r, theirs, c.children) {
			must(t, os.WriteFile(filepath.Join(ours, fmt.Sprint(i)), image, 0o666))
		}
		ref.Do("blockdev-add", nodeOverFiles(theirs, c.children, c.options))
		blk := b.Use(b.Add(nodeOverFiles(ours, c.children, c.options)))
		for i := range 120 {
			offset := r.Int64N(diskSize - 1)
			bytes := 1 + r.Int64N(min(diskSize-offset, 1400))
			switch i % 6 {
			case 0:
				ref.IO("q", fmt.Sprintf("write -P %d %d %d", i, offset, bytes))
				must(t, blk.Pwritev(aio.Outside, offset, drivertest.Fill(byte(i), int(bytes)), 0))
			case 1:
				ref.IO("q", fmt.Sprintf("write -z %d %d", offset, bytes))
				must(t, blk.PwriteZeroes(aio.Outside, offset, bytes, 0))
			default:
				ref.IO("q", fmt.Sprintf("read %d %d", offset, bytes))
				// It may fail with us as well: nobody has won then.
				_ = blk.Preadv(aio.Outside, offset, block.Vec{make([]byte, bytes)})
			}
		}
		ref.Do("blockdev-del", `{"node-name":"q"}`)
		b.Drop(blk)
		b.Delete("q")
		for i := range c.children {
			want, err := os.ReadFile(filepath.Join(theirs, fmt.Sprint(i)))
			must(t, err)
			got, err := os.ReadFile(filepath.Join(ours, fmt.Sprint(i)))
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("%d children, %s: child %d is another one than the reference's", c.children, c.options, i)
			}
		}
	}
}
