package nbd_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// tool finds a program of the reference, or one along PATH.
func tool(tb testing.TB, name string) string {
	tb.Helper()
	if p, err := daemon.FindReference(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(p.Storage[0]), name)); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		daemon.Missing(tb, "there is no "+name)
	}
	return path
}

// run runs a program to its end.
func run(tb testing.TB, dir, name string, args ...string) {
	tb.Helper()
	cmd := exec.Command(tool(tb, name), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func shortDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "q") // a socket's path must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// server starts a server that makes a socket "s" in dir.
func server(tb testing.TB, dir, name string, args ...string) *daemon.Process {
	tb.Helper()
	p, err := daemon.Start(append([]string{tool(tb, name)}, args...), dir, os.Environ())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Kill)
	if err := p.AwaitSocket(filepath.Join(dir, "s"), 30*time.Second); err != nil {
		tb.Fatalf("%v\n%s", err, p.Output())
	}
	return p
}

func qemuNBD(tb testing.TB, dir string, args ...string) *daemon.Process {
	tb.Helper()
	return server(tb, dir, "qemu-nbd", append([]string{"-t", "-e", "8", "-k", filepath.Join(dir, "s")}, args...)...)
}

func nbdkit(tb testing.TB, dir string, args ...string) *daemon.Process {
	tb.Helper()
	return server(tb, dir, "nbdkit", append([]string{"-f", "-U", filepath.Join(dir, "s")}, args...)...)
}

func rawFile(tb testing.TB, dir string, size int64) string {
	tb.Helper()
	path := filepath.Join(dir, "a.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		tb.Fatal(err)
	}
	return path
}

// exercise does a bit of everything, and returns what the disk then holds.
func exercise(tb testing.TB, blk *block.Backend, size int) []byte {
	tb.Helper()
	want := make([]byte, size)
	for _, c := range []struct{ offset, bytes int }{{0, 512}, {1000, 5}, {65536, 300_000}, {size - 1000, 1000}} {
		data := random(c.bytes)
		write(tb, blk, c.offset, data)
		copy(want[c.offset:], data)
	}
	for _, line := range []string{"zero 70000 10000", "zero-u 131072 65536", "write-f 4096 512", "flush"} {
		if err := request(blk, line); err != nil {
			tb.Fatalf("%s: %v", line, err)
		}
	}
	clear(want[70000:80000])
	clear(want[131072:196608])
	holds(tb, blk, 0, want)
	holds(tb, blk, 65537, want[65537:100_000])
	return want
}

func TestQemuNBD(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	dir := shortDir(t)
	path := rawFile(t, dir, size)
	qemuNBD(t, dir, "-f", "raw", "-x", "exp", "-D", "a disk", "--discard=unmap", path)
	b := bench(t)
	blk := b.Use(b.Add(node(filepath.Join(dir, "s"), `"export":"exp","discard":"unmap"`)))
	want := exercise(t, blk, size)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Error("the file has other bytes", err)
	}
	if err := request(blk, "discard 65536 65536"); err != nil {
		t.Error(err)
	}
	// The size of holes is the file system's.
	if extents := statuses(t, blk.Node()); !strings.HasPrefix(extents, "0+") || !strings.Contains(extents, " zero,") || !strings.HasSuffix(extents, " data") {
		t.Error(extents)
	}
}

type extent struct {
	offset, bytes int64
	kind          string
}

func (e extent) String() string { return fmt.Sprintf("%d+%d%s", e.offset, e.bytes, e.kind) }

// statuses is the whole map of a node.
func statuses(tb testing.TB, n *block.Node) string {
	tb.Helper()
	length, err := n.GetLength(aio.Outside)
	if err != nil {
		tb.Fatal(err)
	}
	var all []extent
	for at := int64(0); at < length; {
		st, err := n.BlockStatus(aio.Outside, true, at, length-at)
		if err != nil || st.Bytes <= 0 {
			tb.Fatalf("status at %d: %+v %v", at, st, err)
		}
		kind := ""
		if st.Flags&block.StatusData != 0 {
			kind += " data"
		}
		if st.Flags&block.StatusZero != 0 {
			kind += " zero"
		}
		if last := len(all) - 1; last >= 0 && all[last].kind == kind {
			all[last].bytes += st.Bytes
		} else {
			all = append(all, extent{at, st.Bytes, kind})
		}
		at += st.Bytes
	}
	var out []string
	for _, e := range all {
		out = append(out, e.String())
	}
	return strings.Join(out, ",")
}

func TestQemuNBDReadOnly(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	qemuNBD(t, dir, "-f", "raw", "-r", rawFile(t, dir, 1<<20))
	b := bench(t)
	_, err := b.TryAdd(node(filepath.Join(dir, "s"), ""))
	expect(t, "writable", err, "Could not open image: Permission denied")
	blk, err := b.TryUse(b.Add(node(filepath.Join(dir, "s"), `"auto-read-only":true`)), block.PermConsistentRead, block.PermAll)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, blk, 0, make([]byte, 1<<20))
}

// TestContexts are those of an image with a backing file and a bitmap.
func TestContexts(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	run(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "1M")
	run(t, dir, "qemu-io", "-c", "write 0 128k", "base.qcow2")
	run(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2")
	run(t, dir, "qemu-img", "bitmap", "--add", "a.qcow2", "b0")
	run(t, dir, "qemu-io", "-c", "write -P 1 64k 64k", "-c", "write -z 512k 64k", "a.qcow2")
	qemuNBD(t, dir, "-f", "qcow2", "-A", "-B", "b0", "a.qcow2")
	b := bench(t)
	for _, c := range []struct{ context, want string }{
		{"base:allocation", "0+131072 data,131072+917504 zero"},
		{"qemu:dirty-bitmap:b0", "0+65536 data,65536+65536,131072+393216 data,524288+65536,589824+458752 data"},
		// Depth 0, 1 or 2, shown as if its bits were those of base:allocation.
		{"qemu:allocation-depth", "0+65536 data zero,65536+65536,131072+393216 data,524288+65536,589824+458752 data"},
	} {
		n := b.Add(node(filepath.Join(dir, "s"), `"x-dirty-bitmap":`+quoted(c.context)))
		if got := statuses(t, n); got != c.want {
			t.Errorf("%s: %s, want %s", c.context, got, c.want)
		}
		b.Delete("n0")
	}
	_, err := b.TryAdd(node(filepath.Join(dir, "s"), `"x-dirty-bitmap":"qemu:dirty-bitmap:b1"`))
	expect(t, "no such bitmap", err, "Could not open image: Invalid argument")
}

// TestKilled kills a server, and starts another one on the same file.
func TestKilled(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	dir := shortDir(t)
	path := rawFile(t, dir, size)
	b := bench(t)
	for _, waits := range []bool{true, false} {
		delay := `"reconnect-delay":0`
		if waits {
			delay = `"reconnect-delay":30`
		}
		p := qemuNBD(t, dir, "-f", "raw", path)
		blk := b.Use(b.Add(node(filepath.Join(dir, "s"), delay)))
		data := random(100_000)
		write(t, blk, 0, data)
		p.Kill()
		if err := os.Remove(filepath.Join(dir, "s")); err != nil {
			t.Fatal(err)
		}
		if !waits {
			expect(t, "reading", read(blk, 0, 512), lostText)
			p = qemuNBD(t, dir, "-f", "raw", path)
			await(t, blk)
			holds(t, blk, 0, data)
		} else {
			// The request may begin before the server is back or after it.
			got := make([]byte, len(data))
			read := make(chan error)
			go func() { read <- blk.Preadv(aio.Outside, 0, block.Vec{got}) }()
			p = qemuNBD(t, dir, "-f", "raw", path)
			if err := <-read; err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: other bytes, %v", delay, err)
			}
		}
		b.Drop(blk)
		b.Delete("n0")
		p.Kill()
		if err := os.Remove(filepath.Join(dir, "s")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNbdkit(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for name, args := range map[string][]string{
		"memory":    {"memory", "4M"},
		"blocks":    {"--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=4096", "blocksize-preferred=64k", "blocksize-maximum=128k", "blocksize-error-policy=error"},
		"delay":     {"--filter=delay", "memory", "4M", "rdelay=20ms", "wdelay=10ms"},
		"no zeroes": {"--filter=nozero", "memory", "4M"},
		"no fua":    {"--filter=fua", "memory", "4M"},
		"simple":    {"--no-sr", "memory", "4M"},
		"newstyle":  {"--mask-handshake=0", "memory", "4M"},
		"serial":    {"--filter=noparallel", "memory", "4M"},
		"retry":     {"--filter=retry", "memory", "4M"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			nbdkit(t, dir, args...)
			b := bench(t)
			exercise(t, b.Use(b.Add(node(filepath.Join(dir, "s"), `"discard":"unmap"`))), size)
		})
	}
}

func TestNbdkitFile(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	dir := shortDir(t)
	path := rawFile(t, dir, size)
	nbdkit(t, dir, "file", path)
	b := bench(t)
	want := exercise(t, b.Use(b.Add(node(filepath.Join(dir, "s"), ""))), size)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Error("the file has other bytes", err)
	}
}

// TestNbdkitOldstyle only reads: to such clients nbdkit offers more than it then
// wants to do.
func TestNbdkitOldstyle(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	nbdkit(t, dir, "-o", "pattern", "1M")
	b := bench(t)
	blk, err := b.TryUse(b.Add(node(filepath.Join(dir, "s"), `"auto-read-only":true`)), block.PermConsistentRead, block.PermAll)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, blk, 65536, []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8})
}

func TestNbdkitErrors(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	nbdkit(t, dir, "--filter=error", "memory", "4M", "error-pread-rate=100%", "error-pread=ENOSPC", "error-pwrite-rate=100%", "error-pwrite=EPERM")
	b := bench(t)
	blk := b.Use(b.Add(node(filepath.Join(dir, "s"), "")))
	for range 2 { // the connection stays
		expect(t, "reading", request(blk, "read 0 512"), "No space left on device")
		expect(t, "writing", request(blk, "write 0 512"), "Operation not permitted")
		expect(t, "flushing", request(blk, "flush"), "")
	}
}

// TestReferenceExport uses an export of the reference's daemon.
func TestReferenceExport(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	r := drivertest.StartReference(t)
	path := rawFile(t, r.Dir, size)
	r.Do("blockdev-add", `{"driver":"file","node-name":"f0","filename":`+quoted(path)+`,"discard":"unmap"}`)
	r.Do("nbd-server-start", `{"addr":{"type":"unix","data":{"path":`+quoted(filepath.Join(r.Dir, "s"))+`}}}`)
	r.Do("block-export-add", `{"type":"nbd","id":"e0","node-name":"f0","name":"exp","writable":true}`)
	b := bench(t)
	blk := b.Use(b.Add(node(filepath.Join(r.Dir, "s"), `"export":"exp","discard":"unmap"`)))
	want := exercise(t, blk, size)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Error("the file has other bytes", err)
	}
	// The export is taken away: connections end, and there is no way back.
	r.Do("block-export-del", `{"id":"e0","mode":"hard"}`)
	expect(t, "reading", read(blk, 0, 512), lostText)
	expect(t, "reading", read(blk, 0, 512), lostText)
}
