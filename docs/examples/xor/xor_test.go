package xor_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/docs/examples/xor"
	"github.com/qmpblock/qmpblock/drivers"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/qjson"
)

// A program can put a driver of its own beside those of the house.
func Example() {
	dir, err := os.MkdirTemp("", "xor")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1024), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	if err := writeHello(path); err != nil {
		fmt.Println(err)
		return
	}
	content, _ := os.ReadFile(path)
	fmt.Printf("% x\n", content[:5])
	// Output: 97 9a 93 93 90
}

// writeHello writes through an xor node over the file.
func writeHello(path string) error {
	g := block.New(block.Config{Drivers: append(drivers.All(), xor.Driver())})
	defer g.Close()
	options, err := qjson.Parse(fmt.Appendf(nil,
		`{"driver": "xor", "node-name": "x", "key": 255, "file": {"driver": "file", "filename": %q}}`, path))
	if err != nil {
		return err
	}
	l := g.Main().Acquire()
	defer l.Release()
	n, err := g.AddNode(l, block.OptionsFromJSON(options))
	if err != nil {
		return err
	}
	b := g.NewBackend("", block.PermWrite, block.PermAll)
	defer b.Close(l)
	if err := b.Insert(l, n); err != nil {
		return err
	}
	return b.Pwritev(l, 0, block.Vec{[]byte("hello")}, 0)
}

const overMem = `{"driver": "xor", "node-name": "x", "file": {"driver": "mem", "node-name": "m", "size": 4096}}`

func TestReadsWhatWasWritten(t *testing.T) {
	t.Parallel()
	b := drivertest.New(t, xor.Driver())
	blk := b.Use(b.Add(overMem))
	want := drivertest.Fill(0x11, 1000)
	if err := blk.Pwritev(aio.Outside, 100, want, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want[0], drivertest.Fill(0x11, 1000)[0]) {
		t.Error("the caller's buffer was changed")
	}
	got := drivertest.Fill(0, 1000)
	if err := blk.Preadv(aio.Outside, 100, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[0], want[0]) {
		t.Error("something else was read")
	}
}

func TestZeroesAreNoZeroesBelow(t *testing.T) {
	t.Parallel()
	b := drivertest.New(t, xor.Driver())
	n := b.Add(overMem)
	blk := b.Use(n)
	if err := blk.PwriteZeroes(aio.Outside, 0, 512, 0); err != nil {
		t.Fatal(err)
	}
	below, err := b.TryUse(n.File().Node(), block.PermConsistentRead, block.PermAll)
	if err != nil {
		t.Fatal(err)
	}
	got := drivertest.Fill(0, 512)
	if err := below.Preadv(aio.Outside, 0, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[0], drivertest.Fill(0x5a, 512)[0]) {
		t.Errorf("the file holds %x …", got[0][:4])
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	b := drivertest.New(t, xor.Driver())
	for json, want := range map[string]string{
		`{"driver": "xor", "node-name": "x", "key": 256, "file": {"driver": "mem", "size": 512}}`: "key must be at most 255",
		`{"driver": "xor", "node-name": "x"}`:                                                     `A block device must be specified for "file"`,
		`{"driver": "xor", "node-name": "x", "kez": 1, "file": {"driver": "mem", "size": 512}}`:   "Block format 'xor' does not support the option 'kez'",
	} {
		if _, err := b.TryAdd(json); err == nil || err.Error() != want {
			t.Errorf("%s: %v", json, err)
		}
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	b := drivertest.New(t, xor.Driver())
	blk := b.Use(b.Add(overMem))
	if err := b.Reopen(`{"driver": "xor", "node-name": "x", "key": 0, "file": "m"}`); err != nil {
		t.Fatal(err)
	}
	got := drivertest.Fill(1, 512)
	if err := blk.Preadv(aio.Outside, 0, got); err != nil {
		t.Fatal(err)
	}
	if got[0][0] != 0 {
		t.Errorf("read %x with key 0 over zeroes", got[0][0])
	}
}
