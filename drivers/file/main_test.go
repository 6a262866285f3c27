package file_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qjson"
)

func drivers() []*block.Driver {
	return []*block.Driver{file.Driver(), file.HostDevice(), file.HostCdrom(), raw.Driver()}
}

func bench(tb testing.TB) *drivertest.Bench { return drivertest.New(tb, drivers()...) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func expect(tb testing.TB, what string, err error, want string) {
	tb.Helper()
	if got := text(err); got != want {
		tb.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// node is JSON for a node "n0" over a file; more are further members.
func node(path, more string) string { return named("n0", path, more) }

func named(name, path, more string) string {
	options := `{"driver":"file","node-name":"` + name + `","filename":` + quoted(path)
	if more != "" {
		options += "," + more
	}
	return options + "}"
}

func quoted(s string) string { return string(qjson.AppendString(nil, s)) }

// sparse makes a file of the given length without data.
func sparse(tb testing.TB, length int64) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "a.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(path, length); err != nil {
		tb.Fatal(err)
	}
	return path
}

func stat(tb testing.TB, path string) unix.Stat_t {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		tb.Fatal(err)
	}
	return st
}

func fill(tb testing.TB, blk *block.Backend, offset int64, value byte, bytes int) {
	tb.Helper()
	if err := blk.Pwritev(aio.Outside, offset, drivertest.Fill(value, bytes), 0); err != nil {
		tb.Fatalf("writing %d bytes at %d: %v", bytes, offset, err)
	}
}

// holds reads an area and expects one value in all of it.
func holds(tb testing.TB, blk *block.Backend, offset int64, value byte, bytes int) {
	tb.Helper()
	v := drivertest.Fill(^value, bytes)
	if err := blk.Preadv(aio.Outside, offset, v); err != nil {
		tb.Fatalf("reading %d bytes at %d: %v", bytes, offset, err)
	}
	for i, c := range v[0] {
		if c != value {
			tb.Fatalf("reading %d bytes at %d: byte %d is %#x, not %#x", bytes, offset, i, c, value)
		}
	}
}

// coroutine runs f in a coroutine of the graph.
func coroutine(b *drivertest.Bench, f func(co *aio.Co)) { b.Graph.Main().Enter("test", f) }
