// Package clients_test lets real QMP clients talk to the server: libraries and
// tools that were written for QEMU and know nothing of this program.
package clients_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	"github.com/digitalocean/go-qemu/qmp"
	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

const patience = 20 * time.Second

var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "q")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	binary = filepath.Join(folder, "qmpblock")
	build := exec.Command("go", "build", "-o", binary, "github.com/qmpblock/qmpblock/cmd/qmpblock")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%s\n", out, err)
		return 1
	}
	return m.Run()
}

// serve starts the program as a newcomer does, in an empty folder, and returns
// the folder.
func serve(t *testing.T, options ...string) (string, *daemon.Process) {
	t.Helper()
	folder, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	p, err := daemon.Start(append([]string{binary}, options...), folder, append(os.Environ(), "TMPDIR="+folder))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.AwaitSocket(filepath.Join(folder, "qmp.sock"), patience); err != nil {
		t.Fatalf("%s\n%s", err, p.Output())
	}
	return folder, p
}

func connect(t *testing.T, folder string) *qmp.SocketMonitor {
	t.Helper()
	m, err := qmp.NewSocketMonitor("unix", filepath.Join(folder, "qmp.sock"), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Disconnect() })
	return m
}

// TestGoQEMUDomain uses go-qemu's view of a virtual machine.
func TestGoQEMUDomain(t *testing.T) {
	t.Parallel()
	folder, _ := serve(t)
	d, err := qemu.NewDomain(connect(t, folder), "test")
	if err != nil {
		t.Fatal(err)
	}
	version, err := d.Version()
	if err != nil || version != "10.0.2" {
		t.Errorf("version %q, %v", version, err)
	}
	commands, err := d.Commands()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"qmp_capabilities", "blockdev-add", "device_add", "query-block"} {
		if !slices.Contains(commands, want) {
			t.Errorf("no command %s among %v", want, commands)
		}
	}
	devices, err := d.BlockDevices()
	if err != nil || len(devices) != 1 {
		t.Fatalf("block devices %+v, %v", devices, err)
	}
	if got := devices[0].Inserted.Image.VirtualSize; got != 1<<30 {
		t.Errorf("the disk has %d bytes", got)
	}
	stats, err := d.BlockStats()
	if err != nil || len(stats) != 1 {
		t.Errorf("block statistics %+v, %v", stats, err)
	}
}

// TestGoQEMUMonitor uses the monitor below it: errors, events, passed files.
func TestGoQEMUMonitor(t *testing.T) {
	t.Parallel()
	folder, _ := serve(t)
	m := connect(t, folder)
	events, err := m.Events(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run([]byte(`{"execute": "blockdev-del", "arguments": {"node-name": "nope"}}`)); err == nil ||
		err.Error() != "Failed to find node with node-name='nope'" {
		t.Errorf("error of a bad command: %v", err)
	}
	image := filepath.Join(folder, "passed.raw")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := m.RunWithFile([]byte(`{"execute": "add-fd", "arguments": {"fdset-id": 5}}`), f); err != nil {
		t.Fatal(err)
	}
	add := `{"execute": "blockdev-add", "arguments": {"driver": "file", "node-name": "p0", "filename": "/dev/fdset/5"}}`
	if _, err := m.Run([]byte(add)); err != nil {
		t.Fatal(err)
	}
	// The event comes before the reply, and the library hands over one after
	// the other.
	stopped := make(chan error, 1)
	go func() {
		_, err := m.Run([]byte(`{"execute": "stop"}`))
		stopped <- err
	}()
	select {
	case e := <-events:
		if e.Event != "STOP" {
			t.Errorf("event %+v", e)
		}
	case <-time.After(patience):
		t.Error("no event")
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestSocat pipes a line through socat, as a shell script does.
func TestSocat(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("socat"); err != nil {
		daemon.Missing(t, "socat is not installed")
	}
	folder, _ := serve(t)
	c := exec.Command("socat", "-t5", "-", "UNIX-CONNECT:qmp.sock")
	c.Dir = folder
	c.Stdin = strings.NewReader(`{"execute": "qmp_capabilities"}{"execute": "query-status"}{"execute": "quit"}`)
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, replies, _ := strings.Cut(string(out), "\r\n")
	want := `{"return": {}}` + "\r\n" + `{"return": {"status": "running", "running": true}}` + "\r\n"
	if !strings.HasPrefix(replies, want) || !strings.HasSuffix(replies, "\r\n"+`{"return": {}}`+"\r\n") {
		t.Errorf("socat got\n%s", out)
	}
}

// TestIOCommand writes through one client and reads through another.
func TestIOCommand(t *testing.T) {
	t.Parallel()
	folder, _ := serve(t)
	qmpblock := func(args ...string) (string, error) {
		c := exec.Command(binary, args...)
		c.Dir = folder
		out, err := c.CombinedOutput()
		return string(out), err
	}
	out, err := qmpblock("io", "-d", "/machine/peripheral/vd0/virtio-backend", "write -P 0x5a 4k 64k", "read -P 0x5a 4k 64k", "length")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	got := []string{lines[0], lines[2], lines[len(lines)-1]}
	want := []string{"wrote 65536/65536 bytes at offset 4096", "read 65536/65536 bytes at offset 4096", "1 GiB"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("output (-want +got)\n%s\n%s", diff, out)
	}
	if out, err := qmpblock("io", "nope", "length"); err == nil {
		t.Errorf("I/O on a node that does not exist: %s", out)
	}
}

// TestNewcomer looks at what is left when the server ends: nothing.
func TestNewcomer(t *testing.T) {
	t.Parallel()
	folder, p := serve(t)
	if !strings.Contains(p.Output(), "socat -,icanon=0 UNIX-CONNECT:qmp.sock") {
		t.Errorf("no line to paste in\n%s", p.Output())
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(folder, "qmp.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
}
