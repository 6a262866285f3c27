package blklogwrites_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites/dmlog"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

func bench(tb testing.TB) *drivertest.Bench {
	return drivertest.New(tb, blklogwrites.Driver(), null.Co(), raw.Driver())
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// logged is a bench with a node under test over disks in memory.
type logged struct {
	*drivertest.Bench
	node      *block.Node
	blk       *block.Backend
	file, log *drivertest.Disk
}

func newLogged(t *testing.T, options string) *logged {
	b := bench(t)
	b.Add(`{"driver":"mem","node-name":"f","zero":true,"size":1048576,"discard":"unmap"}`)
	b.Add(`{"driver":"mem","node-name":"l","zero":true,"size":0}`)
	l := &logged{Bench: b, file: drivertest.DiskOf(b.Graph.Node("f")), log: drivertest.DiskOf(b.Graph.Node("l"))}
	l.add(`,"discard":"unmap"` + options)
	return l
}

func (l *logged) add(options string) {
	l.node = l.Add(`{"driver":"blklogwrites","node-name":"b","file":"f","log":"l"` + options + `}`)
	l.blk = l.Use(l.node)
}

func (l *logged) remove() {
	l.Drop(l.blk)
	l.Delete("b")
}

// overwrite changes the log behind the filter's back.
func (l *logged) overwrite(t *testing.T, log []byte) {
	blk := l.Use(l.Graph.Node("l"))
	must(t, blk.Pwritev(aio.Outside, 0, block.Vec{log}, 0))
	l.Drop(blk)
}

// entries lists what the log counts.
func (l *logged) entries(t *testing.T) []string {
	t.Helper()
	return strings.Split(strings.TrimSpace(listing(t, l.log.Bytes())), "\n")[1:]
}

// listing prints a log, or says why not.
func listing(t *testing.T, log []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, log, 0o666); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := dmlog.List(&out, path); err != nil {
		return err.Error()
	}
	return strings.Join(slices.Collect(func(yield func(string) bool) {
		for line := range strings.Lines(out.String()) {
			if !yield(strings.Join(strings.Fields(line), " ")) {
				return
			}
		}
	}), "\n") + "\n"
}

func TestRefusedOptions(t *testing.T) {
	t.Parallel()
	b := bench(t)
	for _, c := range refused {
		if _, err := b.TryAdd(logwritesNode(c.options)); text(err) != c.err {
			t.Errorf("%s: %q, want %q", c.options, text(err), c.err)
		}
	}
	if b.Graph.Len() != 0 {
		t.Errorf("%d nodes were left behind", b.Graph.Len())
	}
}

const (
	filename = `json:{"log": {"read-zeroes": true, "driver": "null-co"}, "log-sector-size": 512, "driver": "blklogwrites", ` +
		`"log-append": false, "file": {"driver": "null-co", "size": 1048576}}`
	noReopen = "Block format 'blklogwrites' used by node 'b' does not support reopening files"
)

func TestNode(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(logwritesNode(`,"log-append":false,"log-sector-size":512,"log-super-update-interval":4096`))
	if n.Filename() != filename {
		t.Errorf("its name is %s", n.Filename())
	}
	if length, err := n.GetLength(aio.Outside); err != nil || length != 1<<20 {
		t.Errorf("%d bytes, %v", length, err)
	}
	if size, err := n.GetAllocatedFileSize(aio.Outside); err != nil || size != 0 {
		t.Errorf("%d bytes allocated, %v", size, err)
	}
	if err := b.Reopen(`{"driver":"blklogwrites","node-name":"b","file":"l","log":"l"}`); text(err) != noReopen {
		t.Errorf("reopening: %v", err)
	}
}

// The length callback runs in a coroutine: spawned for those outside, direct
// for those who are in one.
func TestLengthInCoroutine(t *testing.T) {
	t.Parallel()
	l := newLogged(t, "")
	ctx := l.Graph.Main()
	direct, spawned := ctx.Counts()
	if err := l.node.RefreshTotalSectors(aio.Outside, 0); err != nil {
		t.Fatal(err)
	}
	ctx.Enter("test", func(co *aio.Co) {
		if err := l.node.RefreshTotalSectors(co, 0); err != nil {
			t.Error(err)
		}
	})
	if d, s := ctx.Counts(); d != direct+1 || s != spawned+1 {
		t.Errorf("%d direct and %d spawned, want 1 and 1", d-direct, s-spawned)
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	b := bench(t)
	const (
		read   = block.PermConsistentRead
		write  = block.PermWrite
		resize = block.PermResize
	)
	for _, c := range []struct {
		options            string
		perm, shared       block.Perm // of the user
		filePerm, fileLets block.Perm
		logPerm, logLets   block.Perm
	}{
		{"", 0, block.PermAll, 0, block.PermAll, read | write | resize, read | block.PermWriteUnchanged},
		{"", read | write, read, read | write, read, read | write | resize, read},
		{`,"read-only":true`, read, block.PermAll, read, block.PermAll, read, read | block.PermWriteUnchanged},
	} {
		n := b.Add(`{"driver":"blklogwrites","node-name":"b"` + c.options + `,"file":{"driver":"mem"},"log":{"driver":"mem"}}`)
		blk, err := b.TryUse(n, c.perm, c.shared)
		if err != nil {
			t.Fatal(err)
		}
		file, log := n.Child("file"), n.Child("log")
		if file.Perm() != c.filePerm || file.Shared() != c.fileLets {
			t.Errorf("%+v: the file: %v, shared %v", c, file.Perm(), file.Shared())
		}
		if log.Perm() != c.logPerm || log.Shared() != c.logLets {
			t.Errorf("%+v: the log: %v, shared %v", c, log.Perm(), log.Shared())
		}
		b.Drop(blk)
		b.Delete("b")
	}
	l := newLogged(t, "")
	const conflict = "Permission conflict on node 'l': permissions 'write, resize' are both required by node 'b' (uses node 'l' " +
		"as 'log' child) and unshared by node 'c' (uses node 'l' as 'log' child)."
	if _, err := l.TryAdd(`{"driver":"blklogwrites","node-name":"c","file":"f","log":"l"}`); text(err) != conflict {
		t.Errorf("two filters with one log: %v", err)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	l := newLogged(t, "")
	if err := l.blk.Truncate(aio.Outside, 4096, true, block.PreallocOff, 0); err != nil {
		t.Fatal(err)
	}
	if length, _ := l.node.GetLength(aio.Outside); length != 4096 || len(l.file.Bytes()) != 4096 {
		t.Errorf("%d bytes, and %d in the file", length, len(l.file.Bytes()))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Where the file makes writes durable by itself, they are logged as such.
func TestFUA(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"blklogwrites","node-name":"b","file":{"driver":"mem","size":4096,"fua":true},
		"log":{"driver":"mem","node-name":"l"},"log-super-update-interval":1}`)
	blk := b.Use(n)
	must(t, blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), block.ReqFUA))
	l := logged{log: drivertest.DiskOf(b.Graph.Node("l"))}
	if got := l.entries(t); !slices.Equal(got, []string{"0 0 512 write,fua"}) {
		t.Errorf("the log has %q", got)
	}
	if got := drivertest.DiskOf(n.File().Node()).TakeCalls(); !slices.Equal(got, []string{"write 0+512 fua"}) {
		t.Errorf("the file got %q", got)
	}
	// Elsewhere a flush follows, even if it is the only thing to flush.
	m := newLogged(t, "")
	must(t, m.blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), block.ReqFUA))
	if got := m.entries(t); !slices.Equal(got, []string{"0 0 512 write", "1 - - flush"}) {
		t.Errorf("the log has %q", got)
	}
}

// Discards that the log cannot tell exactly are rounded; the reference aborts.
func TestUnalignedDiscards(t *testing.T) {
	t.Parallel()
	l := newLogged(t, `,"log-sector-size":4096`)
	must(t, l.blk.Pdiscard(aio.Outside, 0, 100))
	must(t, l.blk.Pdiscard(aio.Outside, 512, 8192))
	must(t, l.blk.Pdiscard(aio.Outside, 4096, 10240))
	must(t, l.blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 4096), 0))
	must(t, l.blk.Flush(aio.Outside))
	want := []string{"0 4096 4096 discard", "1 4096 8192 discard", "2 0 4096 write", "3 - - flush"}
	if got := l.entries(t); !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

// A sparse log: zeroes take no room in it, and no memory on the way.
func TestZeroes(t *testing.T) {
	t.Parallel()
	l := newLogged(t, "")
	must(t, l.blk.PwriteZeroes(aio.Outside, 0, 1<<20, block.ReqMayUnmap))
	if got := l.log.TakeCalls(); !slices.Equal(got, []string{"write 512+512", "zero 1024+1048576"}) {
		t.Errorf("the log got %q", got)
	}
	if got := l.file.TakeCalls(); !slices.Equal(got, []string{"zero 0+1048576 unmap"}) {
		t.Errorf("the file got %q", got)
	}
}

// The superblock is kept up to date every so many entries and at each flush,
// and what it counts is whole: a copy of the log taken at any time, as a kill
// would leave it, can be read and appended to.
func TestKilled(t *testing.T) {
	t.Parallel()
	l := newLogged(t, `,"log-super-update-interval":3`)
	var states [][]byte
	for i := range 8 {
		must(t, l.blk.Pwritev(aio.Outside, int64(i)*512, drivertest.Fill(byte(i+1), 512), 0))
		if i == 3 {
			must(t, l.blk.Flush(aio.Outside))
		}
		states = append(states, l.log.Bytes())
	}
	var counts []int
	for i, state := range states {
		if i < 2 {
			if got := listing(t, state); !strings.HasSuffix(got, "Invalid log superblock magic") {
				t.Errorf("after %d writes: %s", i+1, got)
			}
			continue
		}
		counts = append(counts, strings.Count(listing(t, state), "\n")-1)
	}
	if want := []int{3, 5, 6, 6, 6, 9}; !slices.Equal(counts, want) {
		t.Errorf("the states count %d entries, want %d", counts, want)
	}
	l.remove()

	// Go on with the state after the seventh write: its last one is lost.
	l.overwrite(t, states[6])
	l.add(`,"log-append":true`)
	must(t, l.blk.Pwritev(aio.Outside, 1024, drivertest.Fill(9, 512), 0))
	l.remove()
	got := l.entries(t)
	want := []string{
		"0 0 512 write", "1 512 512 write", "2 1024 512 write", "3 1536 512 write", "4 - - flush", "5 2048 512 write",
		"6 1024 512 write", "7 - - flush",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log has %q, want %q", got, want)
	}
}

// Without flushes the superblock counts everything at the end still.
func TestClosedWithoutFlush(t *testing.T) {
	t.Parallel()
	l := newLogged(t, `,"cache":{"no-flush":true}`)
	must(t, l.blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), 0))
	must(t, l.blk.Flush(aio.Outside))
	l.remove()
	if got := l.entries(t); !slices.Equal(got, []string{"0 0 512 write"}) {
		t.Errorf("the log has %q", got)
	}
}

func failing(op string, offset int64) func(*aio.Co, drivertest.Call) error {
	var done atomic.Bool
	return func(_ *aio.Co, c drivertest.Call) error {
		if c.Op == op && c.Offset == offset && done.CompareAndSwap(false, true) {
			return syscall.ENOSPC
		}
		return nil
	}
}

// A request that cannot be logged fails, and the log goes on as if it had
// never been.
func TestLogFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		op     string
		offset int64
	}{{drivertest.Write, 1536}, {drivertest.Zero, 2048}, {drivertest.Write, 0}} {
		l := newLogged(t, `,"log-super-update-interval":2`)
		must(t, l.blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), 0))
		l.log.SetHook(failing(c.op, c.offset))
		if err := l.blk.PwriteZeroes(aio.Outside, 512, 1024, 0); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%+v: %v, want ENOSPC", c, err)
		}
		must(t, l.blk.Pwritev(aio.Outside, 4096, drivertest.Fill(2, 512), 0))
		must(t, l.blk.Flush(aio.Outside))
		got := l.entries(t)
		want := []string{"0 0 512 write", "1 4096 512 write", "2 - - flush"}
		if c.offset == 0 {
			// The entry is there; only the superblock was not to be had.
			want = []string{"0 0 512 write", "1 512 1024 write", "2 4096 512 write", "3 - - flush"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: the log has %q, want %q", c, got, want)
		}
	}
}

// What failed on the disk may have been done in part, and is logged.
func TestFileFails(t *testing.T) {
	t.Parallel()
	l := newLogged(t, "")
	l.file.SetHook(failing(drivertest.Write, 512))
	if err := l.blk.Pwritev(aio.Outside, 512, drivertest.Fill(1, 512), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
	must(t, l.blk.Flush(aio.Outside))
	if got := l.entries(t); !slices.Equal(got, []string{"0 512 512 write", "1 - - flush"}) {
		t.Errorf("the log has %q", got)
	}
}

// Many writers at once, some in each other's way: replayed, the log gives what
// is on the disk, and so does it up to each flush for what was written before.
func TestWriters(t *testing.T) {
	t.Parallel()
	l := newLogged(t, `,"log-super-update-interval":7`)
	const writers, rounds, places, size = 16, 30, 8, 4096
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				offset := int64((w*7+i*3)%places) * size / 2
				v := drivertest.Fill(byte(w*rounds+i), size)
				binary.LittleEndian.PutUint32(v[0], uint32(w*rounds+i))
				var err error
				switch i % 5 {
				case 3:
					err = l.blk.PwriteZeroes(aio.Outside, offset, size, 0)
				case 4:
					err = l.blk.Flush(aio.Outside)
				default:
					err = l.blk.Pwritev(aio.Outside, offset, v, 0)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	var killer sync.WaitGroup
	killer.Go(func() { l.kill(t, done) })
	wg.Wait()
	close(done)
	killer.Wait()
	l.remove()
	log := l.log.Bytes()
	r, err := dmlog.NewReader(bytes.NewReader(log), int64(len(log)))
	must(t, err)
	disk := make([]byte, 1<<20)
	for {
		rec, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		_, err = io.ReadFull(r.Data(rec), disk[rec.Offset:rec.Offset+rec.Length])
		must(t, err)
	}
	if !bytes.Equal(disk, l.file.Bytes()) {
		t.Error("the log does not give what is on the disk")
	}
	if writes := l.entries(t); len(writes) < writers*rounds*4/5 {
		t.Errorf("the log has only %d entries", len(writes))
	}
}

// kill looks at the log again and again as a kill would leave it: whatever it
// counts is whole.
func (l *logged) kill(t *testing.T, done chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		log := l.log.Bytes()
		r, err := dmlog.NewReader(bytes.NewReader(log), int64(len(log)))
		if err != nil {
			continue // nothing has been counted yet
		}
		for {
			rec, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Error(err)
				return
			}
			data, err := io.ReadAll(r.Data(rec))
			if err != nil || rec.Length > 0 && !bytes.Equal(data[4:], bytes.Repeat(data[4:5], len(data)-4)) {
				t.Errorf("entry %d is torn, %v", rec.Number, err)
				return
			}
		}
	}
}

// damaged are logs that cannot be appended to. Those which the reference
// refuses as well, it does so in the same words.
var damaged = []struct {
	name      string
	log       []byte
	err       string
	reference bool
}{
	{"zeroes", make([]byte, 512), "Invalid log superblock magic", true},
	{"version", super(2, 0, 512), "Unsupported log version 2", true},
	{"sector size", super(1, 0, 1000), "Invalid log sector size 1000", true},
	{"flags", super(1, 1, 512, entry(0, 0, 16)), "Invalid flags 0x10 in log entry 0", true},
	{"flags of the second", super(1, 2, 512, entry(0, 3, 4), entry(0, 0, 16)), "Invalid flags 0x10 in log entry 1", true},
	{"no entries", super(1, 1, 512), "Log entry 0 of 1 at byte 512 goes beyond the end of the log (512 bytes)", false},
	{
		"data missing", super(1, 2, 512, entry(0, 0, 1), entry(0, 2, 0), make([]byte, 512)),
		"Log entry 1 of 2 at byte 1024 goes beyond the end of the log (2048 bytes)", false,
	},
	{
		"many entries", super(1, 1<<63, 512, entry(0, 0, 1)),
		"Log entry 1 of 9223372036854775808 at byte 1024 goes beyond the end of the log (1024 bytes)", false,
	},
	{"place", super(1, 1, 512, entry(1<<62, 1, 4)), "Log entry 0 is about sectors 4611686018427387904+1, which no disk has", false},
	{"length", super(1, 1, 512, entry(0, 1<<62, 0)), "Log entry 0 is about sectors 0+4611686018427387904, which no disk has", false},
}

func super(version, entries uint64, sectorSize uint32, rest ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, 0x6a736677736872)
	b = binary.LittleEndian.AppendUint64(b, version)
	b = binary.LittleEndian.AppendUint64(b, entries)
	b = binary.LittleEndian.AppendUint32(b, sectorSize)
	return append(append(b, make([]byte, 512-len(b))...), bytes.Join(rest, nil)...)
}

func entry(sector, sectors, flags uint64) []byte {
	var b []byte
	for _, n := range []uint64{sector, sectors, flags, 0} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return append(b, make([]byte, 512-len(b))...)
}

func TestDamagedLogs(t *testing.T) {
	t.Parallel()
	for _, c := range damaged {
		b := bench(t)
		log := b.Add(fmt.Sprintf(`{"driver":"mem","node-name":"l","size":%d}`, len(c.log)))
		blk := b.Use(log)
		must(t, blk.Pwritev(aio.Outside, 0, block.Vec{c.log}, 0))
		b.Drop(blk)
		if _, err := b.TryAdd(logwritesNode(`,"log-append":true,"log":"l"`)); text(err) != c.err {
			t.Errorf("%s: %q, want %q", c.name, text(err), c.err)
		}
		b.Delete("l")
	}
}

func TestLogCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		offset int64
		err    string
	}{
		{0, "Could not read log superblock: No space left on device"},
		{1024, "Failed to read log entry 1: No space left on device"},
	} {
		b := bench(t)
		log := super(1, 2, 512, entry(0, 0, 1), entry(0, 0, 1))
		n := b.Add(fmt.Sprintf(`{"driver":"mem","node-name":"l","size":%d}`, len(log)))
		blk := b.Use(n)
		must(t, blk.Pwritev(aio.Outside, 0, block.Vec{log}, 0))
		b.Drop(blk)
		drivertest.DiskOf(n).SetHook(failing(drivertest.Read, c.offset))
		if _, err := b.TryAdd(logwritesNode(`,"log-append":true,"log":"l"`)); text(err) != c.err {
			t.Errorf("at %d: %q, want %q", c.offset, text(err), c.err)
		}
	}
}
