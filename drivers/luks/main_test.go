package luks_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/luks"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qerr"
)

// known are the secrets of the tests.
var known = map[string]string{"s0": "hunter2", "s1": "second", "nul": "a\x00b"}

func secret(id string) ([]byte, error) {
	if s, ok := known[id]; ok {
		return []byte(s), nil
	}
	return nil, qerr.New("No secret with id '%s'", id)
}

func bench(tb testing.TB) *drivertest.Bench {
	return drivertest.NewWith(tb, block.Config{
		Drivers: []*block.Driver{luks.Driver(), file.Driver(), raw.Driver(), null.Co()},
		Secret:  secret,
	})
}

// memory is where package crypto puts a header.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error)  { return copy(p, m[off:]), nil }
func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

// header is what is before the data of a new volume.
func header(tb testing.TB, o crypto.CreateOptions) []byte {
	tb.Helper()
	var m memory
	o.KeySecret, o.IterTime = "s0", new(int64(0))
	_, _, err := crypto.CreateLUKS(o, secret, func(size int64) (crypto.Storage, error) {
		m = make([]byte, size)
		return m, nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func write(tb testing.TB, path string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// image makes a file with a volume.
func image(tb testing.TB, dir string, o crypto.CreateOptions, size int) string {
	tb.Helper()
	path := filepath.Join(dir, "volume")
	write(tb, path, append(header(tb, o), make([]byte, size)...))
	return path
}

func node(path string) string {
	return fmt.Sprintf(`{"driver":"luks","node-name":"l","key-secret":"s0","file":{"driver":"file","filename":%q,"node-name":"f"}}`, path)
}

// pattern is data of which no two sectors are alike.
func pattern(size int) []byte {
	b := make([]byte, size)
	for n := range b {
		b[n] = byte(n*7 + n/crypto.SectorSize*13)
	}
	return b
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// read reads a node's area, whose length is known.
func read(tb testing.TB, blk *block.Backend, offset int64, size int) []byte {
	tb.Helper()
	b := make([]byte, size)
	if err := blk.Preadv(aio.Outside, offset, block.Vec{b}); err != nil {
		tb.Fatal(err)
	}
	return b
}

// same tells where two buffers begin to differ.
func same(tb testing.TB, what string, got, want []byte) {
	tb.Helper()
	if bytes.Equal(got, want) {
		return
	}
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	tb.Errorf("%s: other data from %d on", what, n)
}
