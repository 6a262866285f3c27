package blkdebug_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blkdebug"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qerr"
)

// over is a bench with a node "d" that has the given options, over a disk in
// memory.
func over(t *testing.T, options string) (*drivertest.Bench, *block.Backend, *drivertest.Disk) {
	t.Helper()
	b := drivertest.New(t, blkdebug.Driver(), raw.Driver())
	b.Add(`{"driver":"mem","node-name":"m","zero":true,"size":1048576,"discard":"unmap"}`)
	n := b.Add(`{"driver":"blkdebug","node-name":"d","image":"m","discard":"unmap"` + options + `}`)
	return b, b.Use(n), drivertest.DiskOf(b.Graph.Node("m"))
}

func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return qerr.ErrnoOf(err, syscall.EINVAL)
}

// TestFlush: the transcripts cannot see what becomes of a flush.
func TestFlush(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		rule string
		want syscall.Errno
	}{
		{`{"event":"none"}`, syscall.EIO},
		{`{"event":"none","iotype":"flush","errno":28}`, syscall.ENOSPC},
		{`{"event":"none","iotype":"write"}`, 0},
		{`{"event":"none","sector":0}`, 0},
	} {
		b, blk, disk := over(t, `,"inject-error":[`+test.rule+`]`)
		// The node is flushed once something was written; that the write fails
		// does not matter.
		_ = blk.Pwritev(aio.Outside, 4096, drivertest.Fill(1, 512), 0)
		disk.TakeCalls()
		if got := errno(blk.Flush(aio.Outside)); got != test.want {
			t.Errorf("%s: a flush gave %v, want %v", test.rule, got, test.want)
		}
		if calls := disk.TakeCalls(); (test.want == 0) != slices.Contains(calls, "flush") && len(calls) > 0 {
			t.Errorf("%s: the disk got %q", test.rule, calls)
		}
		b.Drop(blk)
	}
}

// TestLimits: requests arrive as the options demand.
func TestLimits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		options string
		want    []string
	}{
		{``, []string{"write 100+20000", "zero 0+20480 unmap", "discard 4096+12288"}},
		{`,"align":4096`, []string{"read 0+4096", "read 16384+4096", "write 0+20480", "zero 0+20480 unmap", "discard 4096+12288"}},
		{`,"align":512,"max-transfer":8192`, []string{"read 0+512", "read 19968+512", "write 0+8192", "write 8192+8192", "write 16384+4096", "zero 0+20480 unmap", "discard 4096+12288"}},
		{`,"opt-write-zero":16384`, []string{"write 100+20000", "zero 0+16384 unmap", "write 16384+4096", "discard 4096+12288"}},
		{`,"max-write-zero":8192`, []string{"write 100+20000", "zero 0+8192 unmap", "zero 8192+8192 unmap", "zero 16384+4096 unmap", "discard 4096+12288"}},
		{`,"opt-discard":8192,"max-discard":8192`, []string{"write 100+20000", "zero 0+20480 unmap", "discard 4096+4096", "discard 8192+8192"}},
	} {
		_, blk, disk := over(t, test.options)
		for _, err := range []error{
			blk.Pwritev(aio.Outside, 100, drivertest.Fill(1, 20000), 0),
			blk.PwriteZeroes(aio.Outside, 0, 20480, block.ReqMayUnmap),
			blk.Pdiscard(aio.Outside, 4096, 12288),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		if got := disk.TakeCalls(); !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %q\nwant %q", test.options, got, test.want)
		}
	}
}

// TestUnalignedDiscard: the reference would die of it.
func TestUnalignedDiscard(t *testing.T) {
	t.Parallel()
	_, blk, disk := over(t, `,"align":4096`)
	if err := blk.Pdiscard(aio.Outside, 1024, 8192); err != nil {
		t.Error(err)
	}
	if got := disk.TakeCalls(); !slices.Equal(got, []string{"discard 4096+4096"}) {
		t.Errorf("got %q", got)
	}
}

// TestUnreadableEdge: a write that covers a block in part fails if the rest
// cannot be read, and leaves the block alone.
func TestUnreadableEdge(t *testing.T) {
	t.Parallel()
	_, blk, disk := over(t, `,"align":4096,"inject-error":[{"event":"pwritev_rmw_head","iotype":"read","once":true}]`)
	if got := errno(blk.Pwritev(aio.Outside, 100, drivertest.Fill(1, 100), 0)); got != syscall.EIO {
		t.Errorf("the write gave %v", got)
	}
	if got := disk.TakeCalls(); len(got) > 0 {
		t.Errorf("the disk got %q", got)
	}
}

// TestOnce: however many requests there are at a time, one of them fails.
func TestOnce(t *testing.T) {
	t.Parallel()
	_, blk, _ := over(t, `,"inject-error":[{"event":"pwritev","once":true},{"event":"write_aio","iotype":"read","once":true}]`)
	var failed atomic.Int32
	var all sync.WaitGroup
	for i := range int64(64) {
		all.Go(func() {
			if blk.Pwritev(aio.Outside, i*4096, drivertest.Fill(1, 4096), 0) != nil {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	if n := failed.Load(); n != 1 {
		t.Errorf("%d requests failed", n)
	}
}

// TestNestedEvents: only a node that is asked directly hears of events.
func TestNestedEvents(t *testing.T) {
	t.Parallel()
	b, _, _ := over(t, `,"inject-error":[{"event":"read_aio"}]`)
	b.Add(`{"driver":"raw","node-name":"r","file":"d"}`)
	b.Add(`{"driver":"mem","node-name":"x","size":512}`)
	other := b.Use(b.Add(`{"driver":"blkdebug","node-name":"o","image":"x","inject-error":[{"event":"read_aio"}]}`))
	if err := other.Preadv(aio.Outside, 0, drivertest.Fill(0, 512)); err != nil {
		t.Error(err)
	}
	if err := b.Use(b.Graph.Node("r")).Preadv(aio.Outside, 0, drivertest.Fill(0, 512)); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}

// FuzzConfig: no file does harm, and a node either opens or says why not.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		"[inject-error]\nevent = \"none\"\n", "[set-state \"a\"]\nevent = \"none\"\nnew_state = \"2\"", "# x\n[", "[inject-error]\nonce\n", "\x00\n[ \"",
	} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "rules")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		b := drivertest.New(t, blkdebug.Driver())
		n, err := b.TryAdd(fmt.Sprintf(`{"driver":"blkdebug","node-name":"d","config":%q,"image":{"driver":"mem","size":512}}`, path))
		if (n == nil) != (err != nil) {
			t.Errorf("%v, %v", n, err)
		}
	})
}
