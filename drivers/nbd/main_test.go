package nbd_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/nbd"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qjson"
)

// TestMain fails if any test left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func bench(tb testing.TB) *drivertest.Bench { return drivertest.New(tb, nbd.Driver(), raw.Driver()) }

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

func quoted(s string) string { return string(qjson.AppendString(nil, s)) }

// node is JSON for a node "n0" of the server at a path; more are further
// members.
func node(path, more string) string {
	options := `{"driver":"nbd","node-name":"n0","server":{"type":"unix","path":` + quoted(path) + `}`
	if more != "" {
		options += "," + more
	}
	return options + "}"
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// holds reads an area and compares it.
func holds(tb testing.TB, blk *block.Backend, offset int, want []byte) {
	tb.Helper()
	got := bytes.Repeat([]byte{0xee}, len(want))
	if err := blk.Preadv(aio.Outside, int64(offset), block.Vec{got}); err != nil {
		tb.Fatalf("reading %d bytes at %d: %v", len(want), offset, err)
	}
	if !bytes.Equal(got, want) {
		tb.Fatalf("other bytes than expected in %d at %d", len(want), offset)
	}
}

func write(tb testing.TB, blk *block.Backend, offset int, data []byte) {
	tb.Helper()
	if err := blk.Pwritev(aio.Outside, int64(offset), block.Vec{data}, 0); err != nil {
		tb.Fatalf("writing %d bytes at %d: %v", len(data), offset, err)
	}
}

func read(blk *block.Backend, offset, n int) error {
	return blk.Preadv(aio.Outside, int64(offset), block.Vec{make([]byte, n)})
}
