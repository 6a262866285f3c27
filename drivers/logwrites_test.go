package drivers_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites/dmlog"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// Writes to a real disk with a real log: at every flush a replay of the log
// gives what was on the disk then, and at the end what is there now.
func TestLogAndReplay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, size := range map[string]int64{"disk": 1 << 20, "log": 0, "image": 0} {
		if err := os.WriteFile(path(name), make([]byte, size), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	b := drivertest.New(t, drivers.All()...)
	n := b.Add(fmt.Sprintf(`{"driver":"blklogwrites","node-name":"b","discard":"unmap","file":{"driver":"file","filename":%q},
		"log":{"driver":"file","filename":%q}}`, path("disk"), path("log")))
	blk := b.Use(n)
	var states [][]byte // of the disk, at each flush
	for i := range 40 {
		offset := int64(i) * 7919 % (1 << 19)
		var err error
		switch i % 8 {
		case 3:
			err = blk.PwriteZeroes(aio.Outside, offset, 20000, block.ReqMayUnmap)
		case 5:
			err = blk.Pdiscard(aio.Outside, offset&^511, 8192)
		case 7:
			if err = blk.Flush(aio.Outside); err == nil {
				states = append(states, read(t, path("disk")))
			}
		default:
			err = blk.Pwritev(aio.Outside, offset, drivertest.Fill(byte(i+1), 10000), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.Drop(blk)
	b.Delete("b")

	for i, want := range states {
		if err := os.WriteFile(path(fmt.Sprint("state", i)), want, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// The image grows with the writes; what is missing at its end is zero.
	check := `i=$(cat count 2>/dev/null || echo 0); echo $((i + 1)) >count
		cp "$1" whole && truncate -s 1M whole && test "$(cksum <whole)" = "$(cksum <"state$i")"`
	p, err := dmlog.ReplayChecking(context.Background(), path("log"), path("image"), "",
		"cd '"+dir+"' && "+check, io.Discard)
	if err != nil || p.Checks != uint64(len(states)) {
		t.Errorf("%+v of %d states, %v", p, len(states), err)
	}
	image := read(t, path("image"))
	if disk := read(t, path("disk")); !bytes.Equal(image, disk[:len(image)]) || len(bytes.Trim(disk[len(image):], "\x00")) > 0 {
		t.Error("the image is not what is on the disk")
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
