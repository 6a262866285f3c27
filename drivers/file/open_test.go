package file_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/qerr"
)

// The texts were observed with the reference.
func TestOpenRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path("a"), make([]byte, 4096), 0o600))
	must(os.Mkdir(path("dir"), 0o700))
	must(unix.Mkfifo(path("fifo"), 0o600))
	must(os.Symlink("loop", path("loop")))
	must(os.Symlink("nowhere", path("dangling")))

	b := bench(t)
	for _, c := range []struct{ driver, file, more, want string }{
		{"file", "missing", "", "Could not open '$': No such file or directory"},
		{"file", "missing", `"pr-manager":"x"`, "No persistent reservation manager with id 'x'"},
		{"file", "no/such/dir/a", "", "Could not open '$': No such file or directory"},
		{"file", "dangling", "", "Could not open '$': No such file or directory"},
		{"file", "loop", "", "Could not open '$': Too many levels of symbolic links"},
		{"file", "dir", "", "Could not open '$': Is a directory"},
		{"file", "dir", `"read-only":true`, "'file' driver requires '$' to be a regular file"},
		{"file", "dir", `"read-only":true,"cache":{"direct":true}`, "Could not open '$': filesystem does not support O_DIRECT"},
		{"file", "fifo", "", "'file' driver requires '$' to be a regular file"},
		{"file", "fifo", `"read-only":true`, "'file' driver requires '$' to be a regular file"},
		{"file", "a", `"aio":"native"`, "aio=native was specified, but it requires cache.direct=on, which was not specified."},
		{"file", "a", `"pr-manager":"x","aio":"native"`, "No persistent reservation manager with id 'x'"},
		{"file", "a", `"aio":"bogus"`, "invalid parameter value: bogus"},
		{"file", "a", `"locking":"bogus"`, "invalid parameter value: bogus"},
		{"file", "a", `"drop-cache":"bogus"`, "Parameter 'drop-cache' expects 'on' or 'off'"},
		{"file", "a", `"aio-max-batch":"1k"`, "Parameter 'aio-max-batch' expects a number"},
		{"file", "a", `"aio-max-batch":"99999999999999999999"`, "Value '99999999999999999999' is too large for parameter 'aio-max-batch'"},
		{"file", "a", `"foo":1`, "Block protocol 'file' doesn't support the option 'foo'"},
		{"host_device", "a", "", "'host_device' driver requires '$' to be either a character or block device"},
		{"host_device", "dir", "", "Could not open '$': Is a directory"},
		{"host_device", "missing", "", "Could not open '$': No such file or directory"},
		{"host_cdrom", "a", "", "'host_cdrom' driver requires '$' to be either a character or block device"},
	} {
		options := `{"driver":"` + c.driver + `","node-name":"n0","filename":` + quoted(path(c.file))
		if c.more != "" {
			options += "," + c.more
		}
		_, err := b.TryAdd(options + "}")
		expect(t, options, err, strings.ReplaceAll(c.want, "$", path(c.file)))
	}
	_, err := b.TryAdd(node("", ""))
	expect(t, "no name", err, "The 'file' block driver requires a file name")
	_, err = b.TryAdd(node("/dev/null", ""))
	expect(t, "/dev/null", err, "'file' driver requires '/dev/null' to be a regular file")
}

func TestOpenAccepted(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1000)
	for _, more := range []string{
		`"locking":"on"`,
		`"locking":"off"`,
		`"locking":"auto","aio":"threads","aio-max-batch":5`,
		`"aio":"io_uring","aio-max-batch":-1`,
		`"aio":"native","cache":{"direct":true}`,
		`"drop-cache":false,"x-check-cache-dropped":true`,
		`"aio-max-batch":"0x10","drop-cache":"on"`,
	} {
		n := b.Add(node(path, more))
		if got := n.Filename(); got != path {
			t.Errorf("%s: file name %q", more, got)
		}
		if got, err := n.GetLength(aio.Outside); got != 1024 || err != nil {
			t.Errorf("%s: length %d, %v", more, got, err)
		}
		b.Delete("n0")
	}
}

// Names that look like something else are plain paths to the driver.
func TestFilenames(t *testing.T) {
	t.Parallel()
	o := block.NewOptions()
	if err := file.Driver().ParseFilename("file:a:b", o); err != nil || o.GetString("filename") != "a:b" {
		t.Errorf("%q, %v", o.GetString("filename"), err)
	}
	if err := file.HostDevice().ParseFilename("/dev/null", o); err != nil || o.GetString("filename") != "/dev/null" {
		t.Errorf("%q, %v", o.GetString("filename"), err)
	}
	path := sparse(t, 0)
	strange := filepath.Join(filepath.Dir(path), `json:{"q`)
	if err := os.Rename(path, strange); err != nil {
		t.Fatal(err)
	}
	if n := bench(t).Add(node(strange, `"locking":"on"`)); n.Filename() != strange {
		t.Errorf("%q", n.Filename())
	}
}

func TestDescription(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	n := b.Add(node(path, ""))
	fill(t, b.Use(n), 0, 1, 64<<10)
	size, err := n.GetAllocatedFileSize(aio.Outside)
	if on := stat(t, path).Blocks * 512; err != nil || size != on || size == 0 {
		t.Errorf("allocated %d (%v), the system says %d", size, err, on)
	}
	if info, err := n.GetInfo(aio.Outside); info != (block.DriverInfo{}) || err != nil {
		t.Errorf("info %+v, %v", info, err)
	}
	coroutine(b, func(co *aio.Co) {
		specific, err := n.Instance().(block.SpecificInfoGetter).SpecificInfo(co)
		if err != nil || specific.Type != "file" || specific.Data != (block.FileSpecific{}) {
			t.Errorf("specific %+v, %v", specific, err)
		}
	})
}

// The graph's own way to open files is used, as for /dev/fdset/N; its errors
// reach the client as they are.
func TestOpenFileOfGraph(t *testing.T) {
	t.Parallel()
	path := sparse(t, 4096)
	var asked []string
	b := drivertest.NewWith(t, block.Config{
		Drivers: drivers(),
		OpenFile: func(name string, flags int) (*os.File, error) {
			asked = append(asked, name)
			if name != "/dev/fdset/1" {
				return nil, qerr.New("Failed to find fdset %s", name)
			}
			return os.OpenFile(path, flags, 0)
		},
	})
	_, err := b.TryAdd(node("/dev/fdset/2", ""))
	expect(t, "no such set", err, "Failed to find fdset /dev/fdset/2")
	b.Add(node("/dev/fdset/1", ""))
	expect(t, "reopen", b.Reopen(node("/dev/fdset/1", `"read-only":true`)), "")
	if got := strings.Join(asked, " "); got != "/dev/fdset/2 /dev/fdset/1 /dev/fdset/1" {
		t.Errorf("opened %s", got)
	}
}
