package nbd_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// rss is the memory of a process that is resident, in bytes.
func rss(tb testing.TB, pid int) int64 {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	tb.Fatalf("no VmRSS in %s", status)
	return 0
}

// TestIdleConnections measures what a hundred clients take that have worked
// and now do nothing.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	if daemon.Race {
		t.Skip("the race detector takes memory of its own")
	}
	const connections, bound = 100, 10 << 20
	dir := shortDir(t)
	standardFiles(t)(dir)
	options := make([]string, len(standardExports))
	for i, o := range standardExports {
		options[i] = strings.ReplaceAll(o, "DIR", dir)
	}
	p := storage(t, ours(t), dir, options...)
	before := rss(t, p.Pid())
	clients := make([]*wire, connections)
	for k := range clients {
		clients[k] = client(t, "unix", dir+"/n.sock", modes[k%3], "x")
	}
	idle := rss(t, p.Pid()) - before
	for k, w := range clients {
		if _, err := w.read(uint64(k)<<12, 4096); err != nil {
			t.Fatal(err)
		}
		if err := w.write(uint64(k)<<12, pattern(0, 4096), 0); err != nil {
			t.Fatal(err)
		}
	}
	worked := rss(t, p.Pid()) - before
	t.Logf("%d connections take %d KiB, and %d KiB when each has read and written 4 KiB", connections, idle>>10, worked>>10)
	if max(idle, worked) > bound {
		t.Errorf("%d connections take %d KiB", connections, max(idle, worked)>>10)
	}
	for _, w := range clients {
		if _, err := w.do(nbd.Request{Command: nbd.CmdFlush}, nil); err != nil {
			t.Error(err)
		}
	}
}
