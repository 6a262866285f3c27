package file_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// loop makes a block device of 4 MiB over a file, or skips the test.
func loop(t *testing.T, args ...string) string {
	t.Helper()
	path := sparse(t, 4<<20)
	out, err := exec.Command("losetup", append(args, "-f", "--show", path)...).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return device
}

func device(driver, path, more string) string {
	return strings.Replace(node(path, more), `"file"`, `"`+driver+`"`, 1)
}

func TestHostDevice(t *testing.T) {
	t.Parallel()
	path := loop(t)
	eachMode(t, func(t *testing.T, options string) {
		b := bench(t)
		if options != "" {
			options = "," + options
		}
		n := b.Add(device("host_device", path, `"locking":"off","discard":"unmap"`+options))
		blk := b.Use(n)
		if length, err := n.GetLength(aio.Outside); length != 4<<20 || err != nil {
			t.Errorf("length %d, %v", length, err)
		}
		if size, err := n.GetAllocatedFileSize(aio.Outside); size != 0 || err != nil {
			t.Errorf("allocated %d, %v", size, err)
		}
		base := int64(0) // each mode has a half of its own
		if options != "" {
			base = 2 << 20
		}
		fill(t, blk, base+1000, 1, 100_000)
		zero(t, blk, base+10_000, 10_000, 0)
		zero(t, blk, base+20_480, 4096, block.ReqMayUnmap)
		if err := blk.Pdiscard(aio.Outside, base+32768, 4096); err != nil {
			t.Error(err)
		}
		holds(t, blk, base+1000, 1, 9000)
		holds(t, blk, base+10_000, 0, 10_000)
		holds(t, blk, base+20_000, 1, 480)
		holds(t, blk, base+20_480, 0, 4096)
		holds(t, blk, base+24_576, 1, 8192)
		if err := blk.PwriteZeroes(aio.Outside, base, 4096, block.ReqNoFallback); !errors.Is(err, syscall.ENOTSUP) {
			t.Errorf("zeroes without fallback: %v", err)
		}
		if err := blk.Flush(aio.Outside); err != nil {
			t.Error(err)
		}
		got := *n.Instance().(block.StatsGetter).DriverStats()
		if want := (block.DriverStats{Driver: "host_device", DiscardsOK: 1, DiscardBytes: 4096}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if list, err := extents(b, n, true, 4<<20); err != nil || strings.Join(list, " ") != "d4194304" {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// A device keeps its length (texts observed with block_resize and qemu-img).
func TestResizeDevice(t *testing.T) {
	t.Parallel()
	b := bench(t)
	blk := b.Use(b.Add(device("host_device", loop(t), "")))
	for _, c := range []struct {
		to    int64
		exact bool
		mode  block.PreallocMode
		want  string
	}{
		{to: 4 << 20, exact: true},
		{to: 4 << 20},
		{to: 1 << 20},
		{to: 8 << 20, want: "Cannot grow device files"},
		{to: 8 << 20, exact: true, want: "Cannot resize device files"},
		{to: 1 << 20, exact: true, want: "Cannot resize device files"},
		{to: 4 << 20, mode: block.PreallocFull, want: "Preallocation mode 'full' unsupported for this non-regular file"},
	} {
		expect(t, "resize", blk.Truncate(aio.Outside, c.to, c.exact, c.mode, 0), c.want)
		if length, err := blk.GetLength(aio.Outside); length != 4<<20 || err != nil {
			t.Errorf("length %d, %v", length, err)
		}
	}
}

func TestReadOnlyDevice(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := loop(t, "-r")
	const refusal = "The device is not writable: Permission denied"
	for _, driver := range []string{"host_device", "file", "host_cdrom"} {
		_, err := b.TryAdd(device(driver, path, ""))
		expect(t, driver, err, refusal)
	}
	n := b.Add(device("host_device", path, `"auto-read-only":true`))
	use(t, b, n, read, all)
	_, err := b.TryUse(n, write, all)
	expect(t, "writer", err, refusal)
	expect(t, "reopen", b.Reopen(device("host_device", path, "")), refusal)
	expect(t, "reopen", b.Reopen(device("host_device", path, `"read-only":true`)), "")
}

func TestLocksOnDevice(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := loop(t)
	o := open(t, path)
	blk := use(t, b, b.Add(device("host_device", path, "")), read|write, all&^resize)
	o.expect("a writer", "100 101 203")
	b.Drop(blk)
	o.expect("nobody", "")
}

func TestCharacterDevice(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(device("host_device", "/dev/null", `"cache":{"direct":false}`))
	blk := b.Use(n)
	if length, err := blk.GetLength(aio.Outside); length != 0 || err != nil {
		t.Errorf("length %d, %v", length, err)
	}
	expect(t, "write", blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), 0), "Input/output error")
	expect(t, "grow", blk.Truncate(aio.Outside, 512, false, block.PreallocOff, 0), "Cannot grow device files")
	expect(t, "keep", blk.Truncate(aio.Outside, 0, false, block.PreallocOff, 0), "")
}

// A loop device is no drive, so there is never a medium; the node exists
// nevertheless, as it does in the reference.
func TestCdromWithoutMedium(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := loop(t)
	n := b.Add(device("host_cdrom", path, `"discard":"unmap"`))
	if length, err := n.GetLength(aio.Outside); length != 4<<20 || err != nil {
		t.Errorf("length %d, %v", length, err)
	}
	if _, err := n.GetInfo(aio.Outside); !errors.Is(err, syscall.ENOTSUP) {
		t.Errorf("info: %v", err)
	}
	if _, ok := n.Instance().(block.StatsGetter); ok {
		t.Error("there are statistics")
	}
	blk := b.Use(n)
	const none = "No medium found"
	expect(t, "read", blk.Preadv(aio.Outside, 0, drivertest.Fill(0, 512)), none)
	expect(t, "write", blk.Pwritev(aio.Outside, 0, drivertest.Fill(0, 512), 0), none)
	expect(t, "zero", blk.PwriteZeroes(aio.Outside, 0, 512, 0), none)
	expect(t, "discard", blk.Pdiscard(aio.Outside, 0, 512), none)
	expect(t, "resize", blk.Truncate(aio.Outside, 1<<20, true, block.PreallocOff, 0), "No medium inserted")
	expect(t, "reopen", b.Reopen(device("host_cdrom", path, `"read-only":true`)), "Read-only block node 'n0' cannot support read-write users")
	b.Drop(blk)
	expect(t, "reopen", b.Reopen(device("host_cdrom", path, `"read-only":true`)), "")
}

// A CD-ROM drive is opened without waiting for a medium.
func TestCdromOpen(t *testing.T) {
	t.Parallel()
	var nonblocking bool
	b := drivertest.NewWith(t, block.Config{Drivers: drivers(), OpenFile: func(name string, flags int) (*os.File, error) {
		nonblocking = flags&syscall.O_NONBLOCK != 0
		return os.OpenFile(name, flags, 0)
	}})
	b.Add(device("host_cdrom", "/dev/null", ""))
	if !nonblocking {
		t.Error("opening waits")
	}
}
