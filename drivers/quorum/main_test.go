package quorum_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/quorum"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qerr"
)

// TestMain fails if any test left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const diskSize = 64 << 10

// voters is a quorum q over the disks d0, d1 and so on, with what it reports.
type voters struct {
	*drivertest.Bench
	node *block.Node
	blk  *block.Backend

	mu      sync.Mutex
	reports []string
	notices []string
}

func newBench(tb testing.TB) *voters {
	v := &voters{}
	tell := func(list *[]string, format string, args ...any) {
		v.mu.Lock()
		defer v.mu.Unlock()
		*list = append(*list, fmt.Sprintf(format, args...))
	}
	v.Bench = drivertest.NewWith(tb, block.Config{
		Drivers: []*block.Driver{quorum.Driver(), raw.Driver(), null.Co()},
		QuorumBad: func(b block.QuorumBad) {
			op := [...]string{"read", "write", "flush"}[b.Op]
			why := ""
			if b.Errno != 0 {
				why = qerr.Strerror(b.Errno)
			}
			tell(&v.reports, "%s %s %d+%d %s", b.Node, op, b.Sector, b.Sectors, why)
		},
		QuorumFailed: func(f block.QuorumFailure) { tell(&v.reports, "%s failed %d+%d", f.Reference, f.Sector, f.Sectors) },
		Complain:     func(line string) { tell(&v.notices, "%s", line) },
	})
	return v
}

// newVoters makes n disks and a quorum over them.
func newVoters(tb testing.TB, n int, options string) *voters {
	tb.Helper()
	v := newBench(tb)
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf(`"d%d"`, i))
		v.Add(fmt.Sprintf(`{"driver":"mem","node-name":"d%d","size":%d,"zero":true,"discard":"unmap"}`, i, diskSize))
	}
	v.node = v.Add(`{"driver":"quorum","node-name":"q","discard":"unmap","children":[` + strings.Join(names, ",") + `],` + options + `}`)
	v.blk = v.Use(v.node)
	return v
}

func (v *voters) disk(i int) *drivertest.Disk {
	return drivertest.DiskOf(v.Graph.Node(fmt.Sprintf("d%d", i)))
}

// put changes what a disk holds, behind everybody's back.
func (v *voters) put(i int, offset int64, value byte, n int) {
	v.Graph.Main().Enter("put", func(co *aio.Co) {
		_ = v.disk(i).CoPwritev(co, offset, drivertest.Fill(value, n), 0)
	})
	v.disk(i).TakeCalls()
}

// take returns what was reported since the last time.
func (v *voters) take() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() { v.reports = nil }()
	return v.reports
}

// read returns the bytes at offset.
func (v *voters) read(offset int64, n int) ([]byte, error) {
	buf := make([]byte, n)
	// Parts of several lengths, as guests have them.
	vec := block.Vec{buf[: n/3 : n/3], buf[n/3 : n/2 : n/2], buf[n/2:]}
	return buf, v.blk.Preadv(aio.Outside, offset, vec)
}

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
