package block_test

import (
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

// TestMain fails if any test left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a graph with the drivers raw, null-co and mem.
func bench(tb testing.TB) *drivertest.Bench { return drivertest.New(tb, raw.Driver(), null.Co()) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// awaitYielded waits until n coroutines of a context have yielded.
func awaitYielded(ctx *aio.Context, n int) {
	for {
		yielded := 0
		for _, co := range ctx.Coroutines() {
			if strings.HasSuffix(co, "has yielded") {
				yielded++
			}
		}
		if yielded == n {
			return
		}
		runtime.Gosched()
	}
}

// outside shortens the calls of those who are in no context.
type outside struct{ *block.Backend }

func (o outside) read(offset int64, n int) (byte, error) {
	v := drivertest.Fill(0xee, n)
	err := o.Preadv(aio.Outside, offset, v)
	return v[0][0], err
}

func (o outside) write(offset int64, n int, value byte) error {
	return o.Pwritev(aio.Outside, offset, drivertest.Fill(value, n), 0)
}
