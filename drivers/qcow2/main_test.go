package qcow2_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "seed of the first history")
	seedsFlag = flag.Int("seeds", 0, "histories, each of the next seed (0: a few)")
	stepsFlag = flag.Int("steps", 120, "length of a history")
)

// seeds are those of the histories to run.
func seeds(few int) []uint64 {
	if testing.Short() {
		few = 1
	}
	if *seedsFlag > 0 {
		few = *seedsFlag
	}
	var list []uint64
	for n := range few {
		list = append(list, *seedFlag+uint64(n))
	}
	return list
}

func bench(tb testing.TB, more ...*block.Driver) *drivertest.Bench {
	return drivertest.New(tb, append(more, qcow2.Driver(), file.Driver(), raw.Driver(), null.Co())...)
}

// tool is a program of the reference.
func tool(tb testing.TB, name string) string {
	tb.Helper()
	return filepath.Join(filepath.Dir(daemon.Reference(tb).Storage[0]), name)
}

// run runs a program and returns its output and exit status.
func run(tb testing.TB, dir, program string, args ...string) (string, int) {
	tb.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		tb.Fatalf("%s: %v", program, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// img runs qemu-img, which must succeed.
func img(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	out, status := run(tb, dir, tool(tb, "qemu-img"), args...)
	if status != 0 {
		tb.Fatalf("qemu-img %s: status %d\n%s", strings.Join(args, " "), status, out)
	}
	return out
}

// create makes an image.
func create(tb testing.TB, dir, name, options, size string) string {
	tb.Helper()
	args := []string{"create", "-q", "-f", "qcow2"}
	if options != "" {
		args = append(args, "-o", options)
	}
	img(tb, dir, append(args, name, size)...)
	return filepath.Join(dir, name)
}

// qemu-img check's exit status when all it found are leaked clusters.
const statusLeaks = 3

// check has the reference check an image; leaks may be allowed.
func check(tb testing.TB, path string, leaks bool) {
	tb.Helper()
	out, status := run(tb, filepath.Dir(path), tool(tb, "qemu-img"), "check", "-f", "qcow2", path)
	if status != 0 && !(leaks && status == statusLeaks) {
		tb.Errorf("qemu-img check %s: status %d\n%s", path, status, out)
	}
}

// content is what the reference reads from an image.
func content(tb testing.TB, path string) []byte {
	tb.Helper()
	img(tb, filepath.Dir(path), "convert", "-f", "qcow2", "-O", "raw", path, path+".raw")
	defer os.Remove(path + ".raw")
	b, err := os.ReadFile(path + ".raw")
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// node gives the options of a qcow2 node over a file.
func node(path, more string) string {
	return fmt.Sprintf(`{"driver":"qcow2","node-name":"q","discard":"unmap","file":{"driver":"file","filename":%q}%s}`, path, more)
}

// in runs f in a coroutine of the node.
func in(n *block.Node, f func(co *aio.Co) error) error {
	_, err := aio.Mixed(aio.Outside, n.Context(), "test", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, f(co)
	})
	return err
}

func read(tb testing.TB, blk *block.Backend, offset int64, n int) []byte {
	tb.Helper()
	b := make([]byte, n)
	if err := blk.Preadv(aio.Outside, offset, block.Vec{b}); err != nil {
		tb.Fatalf("reading %d+%d: %v", offset, n, err)
	}
	return b
}

// same compares contents and tells where they begin to differ.
func same(tb testing.TB, what string, got, want []byte) {
	tb.Helper()
	if len(got) != len(want) {
		tb.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
		return
	}
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			tb.Errorf("%s: byte %#x is %#x, want %#x", what, i, got[i], want[i])
			return
		}
	}
}
