package nbd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// need finds a program, or skips the test. QEMU's own are the reference's.
func need(t *testing.T, name string) string {
	t.Helper()
	if dir := os.Getenv(daemon.ReferenceEnv); dir != "" && strings.HasPrefix(name, "qemu-") {
		name = filepath.Join(dir, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		daemon.Missing(t, name+" is not installed")
	}
	return path
}

// tool runs a program to its end and returns what it printed.
func tool(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, need(t, name), args...)
	c.Dir = dir
	// nbdsh wants the system's Python, where its module is.
	c.Env = append(os.Environ(), "PATH=/usr/bin:"+os.Getenv("PATH"))
	out, err := c.CombinedOutput()
	return string(out), err
}

// must runs a program that must succeed.
func must(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, dir, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// URIs of exports of the server in the current folder.
const (
	uriX   = "nbd+unix:///x?socket=n.sock"
	uriRO  = "nbd+unix:///ro?socket=n.sock"
	uriD   = "nbd+unix:///d?socket=n.sock"
	uriBig = "nbd+unix:///big?socket=n.sock"
)

// toolServer runs our daemon with the standard exports and returns its folder.
func toolServer(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	standardFiles(t)(dir)
	options := make([]string, len(standardExports))
	for i, o := range standardExports {
		options[i] = strings.ReplaceAll(o, "DIR", dir)
	}
	p := storage(t, ours(t), dir, options...)
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if out := p.Output(); out != "" {
			t.Errorf("the server complains: %s", out)
		}
	})
	return dir
}

func fileBytes(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, not as expected (%d bytes)", what, len(got), len(want))
	}
}

// extentOf is an extent as nbdinfo --map --json prints it.
type extentOf struct {
	Offset, Length uint64
	Type           uint32
	Description    string
}

func TestNbdinfo(t *testing.T) {
	t.Parallel()
	need(t, "nbdinfo")
	dir := toolServer(t)
	out := must(t, dir, "nbdinfo", "--list", "--json", "nbd+unix://?socket=n.sock")
	var list struct {
		Exports []struct {
			Name      string `json:"export-name"`
			Desc      string `json:"description"`
			Size      uint64 `json:"export-size"`
			ReadOnly  bool   `json:"is_read_only"`
			Multi     bool   `json:"can_multi_conn"`
			FastZero  bool   `json:"can_fast_zero"`
			Contexts  []string
			Minimum   uint32 `json:"block_size_minimum"`
			Preferred uint32 `json:"block_size_preferred"`
			Maximum   uint32 `json:"block_size_maximum"`
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(list.Exports) != 8 {
		t.Fatalf("%d exports\n%s", len(list.Exports), out)
	}
	ro := list.Exports[1]
	if ro.Name != "ro" || ro.Desc != "not to be written to" || ro.Size != 1<<20 || !ro.ReadOnly || !ro.Multi || ro.FastZero ||
		ro.Minimum != 1 || ro.Preferred != 4096 || ro.Maximum != 32<<20 || fmt.Sprint(ro.Contexts) != "[base:allocation]" {
		t.Errorf("%+v", ro)
	}
	if big := list.Exports[4]; big.Size != 1<<40 || fmt.Sprint(big.Contexts) != "[base:allocation qemu:allocation-depth]" {
		t.Errorf("%+v", big)
	}
	for _, c := range []struct {
		uri, context string
		want         []extentOf
	}{
		{uriX, "base:allocation", []extentOf{{0, 192 << 10, 3, "hole,zero"}, {192 << 10, 128 << 10, 0, "data"}, {320 << 10, 704 << 10, 3, "hole,zero"}}},
		{uriBig, "base:allocation", []extentOf{{0, 1 << 16, 0, "data"}, {1 << 16, 5<<30 - 1<<16, 3, "hole,zero"}, {5 << 30, 1 << 16, 0, "data"},
			{5<<30 + 1<<16, 1<<40 - 5<<30 - 1<<17, 3, "hole,zero"}, {1<<40 - 1<<16, 1 << 16, 0, "data"}}},
		{uriD, "qemu:allocation-depth", []extentOf{{0, 1 << 20, 1, "local"}}},
	} {
		var got []extentOf
		out := must(t, dir, "nbdinfo", "--json", "--map="+c.context, c.uri)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s of %s (-want +got)\n%s", c.context, c.uri, diff)
		}
	}
	for _, c := range []struct {
		uri   string
		can   string
		wants bool
	}{
		{uriX, "write", true}, {uriRO, "write", false}, {uriX, "trim", true}, {uriRO, "trim", false}, {uriX, "zero", true}, {uriX, "fast-zero", true},
		{uriX, "fua", true}, {uriX, "flush", true}, {uriX, "multi-conn", true}, {uriX, "cache", true}, {uriX, "df", true}, {uriX, "connect", true},
		{uriX, "structured-reply", true},
	} {
		if out, err := tool(t, dir, "nbdinfo", "--can", c.can, c.uri); (err == nil) != c.wants {
			t.Errorf("%s can %s: %v %s", c.uri, c.can, err, out)
		}
	}
	if out, err := tool(t, dir, "nbdinfo", "--is", "read-only", uriRO); err != nil {
		t.Errorf("read-only: %v %s", err, out)
	}
	if out := must(t, dir, "nbdinfo", "--size", uriBig); out != "1099511627776\n" {
		t.Errorf("size %s", out)
	}
	if out, err := tool(t, dir, "nbdinfo", "nbd+unix:///nope?socket=n.sock"); err == nil || !strings.Contains(out, "nope") {
		t.Errorf("an export that is not there: %v %s", err, out)
	}
}

func TestNbdcopy(t *testing.T) {
	t.Parallel()
	need(t, "nbdcopy")
	dir := toolServer(t)
	before := fileBytes(t, dir, "c.raw")
	must(t, dir, "nbdcopy", uriX, "copy.raw")
	sameBytes(t, "export to file", fileBytes(t, dir, "copy.raw"), before)
	must(t, dir, "nbdcopy", uriX, uriD)
	sameBytes(t, "export to export", fileBytes(t, dir, "d.raw"), before)

	// Full of data, then with holes where there was data.
	full := pattern(77, 1<<20)
	if err := os.WriteFile(filepath.Join(dir, "full.raw"), full, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "nbdcopy", "--flush", "full.raw", uriD)
	sameBytes(t, "file to export", fileBytes(t, dir, "d.raw"), full)
	must(t, dir, "nbdcopy", "--flush", "--allocated", uriX, uriD)
	sameBytes(t, "zeroes to export", fileBytes(t, dir, "d.raw"), before)
	must(t, dir, "nbdcopy", "--flush", "--synchronous", "full.raw", uriD)
	must(t, dir, "nbdcopy", "--connections=4", "--requests=64", "--request-size=4096", "--flush", uriX, uriD)
	sameBytes(t, "small requests", fileBytes(t, dir, "d.raw"), before)
	if used := blocks(t, filepath.Join(dir, "d.raw")); used > 256<<10 {
		t.Errorf("a sparse copy takes %d bytes", used)
	}
}

// blocks is how much of a file is allocated, in bytes.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	out := must(t, ".", "stat", "-c", "%b", path)
	var n int64
	if _, err := fmt.Sscan(out, &n); err != nil {
		t.Fatal(err)
	}
	return n * 512
}

// TestNbdsh drives libnbd by script: every command, flags, errors, deadlines.
func TestNbdsh(t *testing.T) {
	t.Parallel()
	need(t, "nbdsh")
	dir := toolServer(t)
	const script = `
import errno
def fails(code, f):
    try: f()
    except nbd.Error as e:
        assert e.errno == errno.errorcode[code], (e.errno, e.string)
        return
    raise AssertionError("it works")
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.add_meta_context("qemu:allocation-depth")
h.set_export_name("d")
h.connect_unix("n.sock")
size = h.get_size()
assert size == 1 << 20
data = bytes(i * 7 % 251 + 1 for i in range(100000))
h.pwrite(data, 12345)
assert h.pread(100000, 12345) == data
h.pwrite(b"x" * 512, 512, nbd.CMD_FLAG_FUA)
h.zero(4096, 16384)
assert h.pread(4096, 16384) == bytes(4096)
h.zero(4096, 20480, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO)
h.trim(65536, 131072, nbd.CMD_FLAG_FUA)
h.cache(4096, 0)
h.flush()
fails(errno.EINVAL, lambda: h.pread(512, size))
fails(errno.EINVAL, lambda: h.pread(512, size - 256))
fails(errno.EINVAL, lambda: h.pwrite(b"y" * 512, size - 256))
fails(errno.EINVAL, lambda: h.zero(512, size))
fails(errno.EINVAL, lambda: h.trim(512, size))
fails(errno.EINVAL, lambda: h.pread(512, 0, 0x80))
seen = {}
def extents(name, offset, entries, err):
    seen[name] = (offset, entries)
h.block_status(size, 0, extents)
assert set(seen) == {"base:allocation", "qemu:allocation-depth"}, seen
assert sum(seen["base:allocation"][1][0::2]) == size
assert seen["qemu:allocation-depth"][1][1] == 1
chunks = []
def chunk(buf, offset, status, err): chunks.append((len(buf), offset, status))
h.pread_structured(200000, 0, chunk)
assert sum(c[0] for c in chunks) == 200000
assert any(c[2] == nbd.READ_HOLE for c in chunks), chunks
chunks.clear()
h.pread_structured(200000, 0, chunk, nbd.CMD_FLAG_DF)
assert len(chunks) == 1 and chunks[0][2] == nbd.READ_DATA
# Many at once, and all come back.
bufs = [nbd.Buffer.from_bytearray(bytearray([i] * 4096)) for i in range(100)]
cookies = [h.aio_pwrite(b, i * 4096) for i, b in enumerate(bufs)]
while h.aio_in_flight() > 0: h.poll(-1)
assert all(h.aio_command_completed(c) for c in cookies)
assert h.pread(409600, 0) == b"".join(bytes([i] * 4096) for i in range(100))
h.shutdown()
r = nbd.NBD()
r.set_strict_mode(0)
r.set_export_name("ro")
r.connect_unix("n.sock")
assert r.is_read_only() and r.get_export_description() is not None
fails(errno.EINVAL, lambda: r.pwrite(b"z" * 512, 0))
r.shutdown()
o = nbd.NBD()
o.set_opt_mode(True)
o.connect_unix("n.sock")
names = []
o.opt_list(lambda name, desc: names.append(name))
assert len(names) == 8 and "" in names, names
for name in names:
    o.set_export_name(name)
    o.opt_info()
    contexts = []
    o.opt_list_meta_context(contexts.append)
    assert "base:allocation" in contexts
o.set_export_name("x")
o.opt_go()
assert o.pread(128 << 10, 192 << 10) != bytes(128 << 10)
o.shutdown()
print("all well")
`
	if out := must(t, dir, "nbdsh", "-c", script); !strings.HasSuffix(out, "all well\n") {
		t.Errorf("%s", out)
	}
}

// TestNbdkit has nbdkit between the server and a client: its own NBD client,
// with filters on top.
func TestNbdkit(t *testing.T) {
	t.Parallel()
	need(t, "nbdkit")
	need(t, "nbdinfo")
	dir := toolServer(t)
	full := pattern(5, 1<<20)
	if err := os.WriteFile(filepath.Join(dir, "full.raw"), full, 0o600); err != nil {
		t.Fatal(err)
	}
	out := must(t, dir, "nbdkit", "-U", "-", "nbd", "socket=n.sock", "export=d", "shared=true", "--run",
		`nbdinfo --size "$uri" && nbdcopy full.raw "$uri" && nbdcopy "$uri" back.raw`)
	if out != "1048576\n" {
		t.Errorf("%s", out)
	}
	sameBytes(t, "written", fileBytes(t, dir, "d.raw"), full)
	sameBytes(t, "read", fileBytes(t, dir, "back.raw"), full)
	must(t, dir, "nbdkit", "-U", "-", "--filter=checkwrite", "nbd", "socket=n.sock", "export=d", "--run", `nbdcopy full.raw "$uri"`)
	must(t, dir, "nbdkit", "-U", "-", "--filter=offset", "nbd", "socket=n.sock", "export=d", "offset=4096", "range=8192", "--run",
		`test "$(nbdinfo --size "$uri")" = 8192`)
}

func TestQemuImg(t *testing.T) {
	t.Parallel()
	need(t, "qemu-img")
	need(t, "qemu-io")
	dir := toolServer(t)
	before := fileBytes(t, dir, "c.raw")
	if out := must(t, dir, "qemu-img", "info", uriX); !strings.Contains(out, "virtual size: 1 MiB (1048576 bytes)") {
		t.Errorf("info: %s", out)
	}
	if out := must(t, dir, "qemu-img", "map", "--output=json", "-f", "raw", uriX); !strings.Contains(out, `{ "start": 196608, "length": 131072, "depth": 0, "present": true, "zero": false, "data": true`) {
		t.Errorf("map: %s", out)
	}
	must(t, dir, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uriX, "c.qcow2")
	must(t, dir, "qemu-img", "check", "c.qcow2")
	must(t, dir, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", uriX, "c.qcow2")
	if err := os.WriteFile(filepath.Join(dir, "full.raw"), pattern(9, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, dir, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "full.raw", uriD)
	sameBytes(t, "convert to the export", fileBytes(t, dir, "d.raw"), pattern(9, 1<<20))
	if out, err := tool(t, dir, "qemu-img", "compare", "-f", "raw", "-F", "raw", uriX, uriD); err == nil {
		t.Errorf("compare finds no difference: %s", out)
	}
	must(t, dir, "qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", "c.qcow2", uriD)
	sameBytes(t, "convert from qcow2", fileBytes(t, dir, "d.raw"), before)
	must(t, dir, "qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=64k", "count=16", "if="+uriX, "of=dd.raw")
	sameBytes(t, "dd", fileBytes(t, dir, "dd.raw"), before)
	must(t, dir, "qemu-img", "bench", "-f", "raw", "-c", "2000", "-d", "32", "-s", "4096", uriX)
	must(t, dir, "qemu-img", "bench", "-f", "raw", "-w", "-c", "2000", "-d", "32", "-s", "4096", "--flush-interval=50", "--pattern=7", uriD)
	sameBytes(t, "bench", fileBytes(t, dir, "d.raw"), bytes.Repeat([]byte{7}, 1<<20))
	must(t, dir, "qemu-io", "-f", "raw", "-c", "write -P 0x5a 4k 64k", "-c", "read -P 0x5a 4k 64k", "-c", "write -f -P 1 100k 100", "-c", "read -P 1 100k 100",
		"-c", "write -z 200k 64k", "-c", "read -P 0 200k 64k", "-c", "write -zu 4k 4k", "-c", "read -P 0 4k 4k", "-c", "discard 300k 64k", "-c", "flush", uriD)
	want := bytes.Repeat([]byte{7}, 1<<20)
	copy(want[4<<10:], bytes.Repeat([]byte{0x5a}, 64<<10))
	copy(want[100<<10:], bytes.Repeat([]byte{1}, 100))
	clear(want[200<<10 : 264<<10])
	clear(want[4<<10 : 8<<10])
	clear(want[300<<10 : 364<<10])
	sameBytes(t, "qemu-io", fileBytes(t, dir, "d.raw"), want)
}

func TestQemuNbdLists(t *testing.T) {
	t.Parallel()
	need(t, "qemu-nbd")
	dir := toolServer(t)
	if out := must(t, dir, "qemu-nbd", "-L", "-k", filepath.Join(dir, "n.sock")); !strings.HasPrefix(out, "exports available: 8\n") ||
		!strings.Contains(out, "description: not to be written to") || !strings.Contains(out, "qemu:allocation-depth") {
		t.Errorf("qemu-nbd: %s", out)
	}
}

// TestNbdClientLists has a server of its own: this client has no room for long
// descriptions.
func TestNbdClientLists(t *testing.T) {
	t.Parallel()
	need(t, "nbd-client")
	dir := shortDir(t)
	storage(t, ours(t), dir, "--blockdev", "null-co,node-name=n", "--nbd-server", "addr.type=unix,addr.path="+dir+"/n.sock",
		"--export", "nbd,id=a,node-name=n,name=x", "--export", "nbd,id=b,node-name=n,name=y,description=of y")
	if out := must(t, dir, "nbd-client", "-l", "-u", filepath.Join(dir, "n.sock")); out != "Negotiation: ..\nx\ny: of y\n" {
		t.Errorf("%q", out)
	}
}

// TestFio writes at random with several jobs and checks what it reads.
func TestFio(t *testing.T) {
	t.Parallel()
	need(t, "fio")
	dir := toolServer(t)
	out, err := tool(t, dir, "fio", "--name=w", "--ioengine=nbd", "--uri=nbd+unix:///d?socket="+dir+"/n.sock", "--rw=randwrite", "--bs=512-32k", "--bs_unaligned",
		"--size=1m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--randseed=3", "--io_size=16m", "--loops=2")
	if err != nil {
		if strings.Contains(out, "engine nbd not loadable") || strings.Contains(out, "engine not found") {
			daemon.Missing(t, "fio has no nbd engine")
		}
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tool(t, dir, "fio", "--name=j", "--numjobs=4", "--offset_increment=256k", "--ioengine=nbd", "--uri=nbd+unix:///d?socket="+dir+"/n.sock",
		"--rw=randrw", "--bs=4k", "--size=256k", "--io_size=8m", "--iodepth=32", "--verify=crc32c", "--verify_fatal=1"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCarriers reaches the server over each kind of socket.
func TestCarriers(t *testing.T) {
	t.Parallel()
	need(t, "nbdinfo")
	exports := []string{"--blockdev", "null-co,node-name=n,size=4096,read-zeroes=on", "--export", "nbd,id=e,node-name=n,name=x"}
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		port, err := daemon.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		dir := shortDir(t)
		storage(t, ours(t), dir, append([]string{"--nbd-server", fmt.Sprintf("addr.type=inet,addr.host=127.0.0.1,addr.port=%d", port)}, exports...)...)
		if out := must(t, dir, "nbdinfo", "--size", fmt.Sprintf("nbd://127.0.0.1:%d/x", port)); out != "4096\n" {
			t.Errorf("%s", out)
		}
	})
	t.Run("fd", func(t *testing.T) {
		t.Parallel()
		dir := shortDir(t)
		args := append(ours(t).Storage[1:], append([]string{"--nbd-server", "addr.type=fd,addr.str=3", "--pidfile", "pid"}, exports...)...)
		c := exec.Command(ours(t).Storage[0], args...)
		c.ExtraFiles, c.Dir = []*os.File{listener(t, dir)}, dir
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
		}()
		// Whoever connects before it has an export finds none.
		eventually(t, "the daemon is up", func() bool {
			_, err := os.Stat(filepath.Join(dir, "pid"))
			return err == nil
		})
		if out := must(t, dir, "nbdinfo", "--size", uriX); out != "4096\n" {
			t.Errorf("%s", out)
		}
	})
	t.Run("getfd", func(t *testing.T) {
		t.Parallel()
		dir := shortDir(t)
		p, err := daemon.Start(append(ours(t).System, "-S", "-qmp", "unix:"+dir+"/m.sock,server=on,wait=off"), dir, os.Environ())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		if err := p.AwaitSocket(filepath.Join(dir, "m.sock"), patience); err != nil {
			t.Fatalf("%v\n%s", err, p.Output())
		}
		m, err := qmp.NewSocketMonitor("unix", filepath.Join(dir, "m.sock"), patience)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Connect(); err != nil {
			t.Fatal(err)
		}
		defer m.Disconnect()
		if _, err := m.RunWithFile([]byte(`{"execute": "getfd", "arguments": {"fdname": "listener"}}`), listener(t, dir)); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{
			`{"execute": "nbd-server-start", "arguments": {"addr": {"type": "fd", "data": {"str": "listener"}}}}`,
			`{"execute": "blockdev-add", "arguments": {"driver": "null-co", "node-name": "n", "size": 4096}}`,
			`{"execute": "nbd-server-add", "arguments": {"device": "n", "name": "x"}}`,
		} {
			if _, err := m.Run([]byte(command)); err != nil {
				t.Fatalf("%s: %v", command, err)
			}
		}
		if out := must(t, dir, "nbdinfo", "--size", uriX); out != "4096\n" {
			t.Errorf("%s", out)
		}
	})
}

// listener is a socket that listens in a folder, to be passed on.
func listener(t *testing.T, dir string) *os.File {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "n.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
