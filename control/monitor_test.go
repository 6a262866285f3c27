package control_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
)

func await(t *testing.T, i *control.Instance) {
	t.Helper()
	select {
	case <-i.Done():
	case <-time.After(patience):
		t.Fatal("it is not done")
	}
}

// TestQuit ends an instance from one client; another one learns of it.
func TestQuit(t *testing.T) {
	t.Parallel()
	i := system(t)
	first, second := qmpClient(t, listen(t, i)), qmpClient(t, listen(t, i))
	first.send(`{"execute": "quit"}`)
	wantShutdown(t, first.must(), "host-qmp-quit")
	if m := first.must(); string(m.Return) != "{}" {
		t.Errorf("the reply: %+v", m)
	}
	var m message
	if first.next(&m) {
		t.Errorf("behind the reply: %+v", m)
	}
	await(t, i)
	wantShutdown(t, second.must(), "host-qmp-quit")
	second.send(`{"execute": "query-version"}`)
	if second.next(&m) {
		t.Errorf("a command behind quit: %+v", m)
	}
}

func wantShutdown(t *testing.T, m message, reason string) {
	t.Helper()
	want := `{"guest": false, "reason": "` + reason + `"}`
	if m.Event != "SHUTDOWN" || string(m.Data) != want {
		t.Errorf("got %+v, want SHUTDOWN %s", m, want)
	}
}

// TestHostSignal is an end that no client asked for.
func TestHostSignal(t *testing.T) {
	t.Parallel()
	i := control.New(control.Config{Personality: control.System})
	end := sync.OnceFunc(i.Close)
	defer end()
	path := listen(t, i)
	i.Start()
	c := qmpClient(t, path)
	i.Shutdown(schema.ShutdownCauseHostSignal)
	i.Shutdown(schema.ShutdownCauseHostQmpQuit) // once is enough
	wantShutdown(t, c.must(), "host-signal")
	end()
	var m message
	if c.next(&m) {
		t.Errorf("behind the end: %+v", m)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestGreetedBeforeStart has a client come early.
func TestGreetedBeforeStart(t *testing.T) {
	t.Parallel()
	i := control.New(control.Config{})
	defer i.Close()
	c := dial(t, listen(t, i))
	if m := c.must(); m.QMP == nil {
		t.Errorf("no greeting: %+v", m)
	}
	c.send(`{"execute": "qmp_capabilities"}`)
	i.Start()
	if m := c.must(); string(m.Return) != "{}" {
		t.Errorf("no answer: %+v", m)
	}
}

// TestEventForAll sends one event over both protocols. All clients see the
// same time.
func TestEventForAll(t *testing.T) {
	t.Parallel()
	i := control.New(control.Config{Personality: control.System})
	t.Cleanup(i.Close)
	rpcPath := filepath.Join(shortDir(t), "rpc.sock")
	if err := i.ListenJSONRPC("unix:" + rpcPath); err != nil {
		t.Fatal(err)
	}
	paths := []string{listen(t, i), listen(t, i)}
	i.Start()
	clients := []*client{qmpClient(t, paths[0]), qmpClient(t, paths[1])}
	rpc := dial(t, rpcPath)
	// With its answer we know that the connection gets events.
	rpc.send(`{"jsonrpc": "2.0", "id": 1, "method": "query-version"}`)
	var answer struct{ Result json.RawMessage }
	if !rpc.next(&answer) || answer.Result == nil {
		t.Fatalf("JSON-RPC: %+v", answer)
	}

	execute(t, i, "blockdev-add", arguments(t, `{"driver": "file", "node-name": "f", "filename": %q}`, disk(t, 1<<20)))
	execute(t, i, "block-set-write-threshold", arguments(t, `{"node-name": "f", "write-threshold": 8192}`))
	if out := hmp(t, i, `qmpblock-io f "write -q 4k 8k"`); out != "" {
		t.Error(out)
	}
	var got []message
	for _, c := range clients {
		got = append(got, c.must())
	}
	var notification struct {
		Method string
		Params message
	}
	if !rpc.next(&notification) || notification.Method != "event" {
		t.Fatalf("JSON-RPC: %+v", notification)
	}
	got = append(got, notification.Params)
	for k, m := range got {
		var data struct {
			Node      string `json:"node-name"`
			Threshold int64  `json:"write-threshold"`
			Exceeded  int64  `json:"amount-exceeded"`
		}
		if err := json.Unmarshal(m.Data, &data); err != nil {
			t.Fatal(err)
		}
		if m.Event != "BLOCK_WRITE_THRESHOLD" || data.Node != "f" || data.Threshold != 8192 || data.Exceeded != 4096 {
			t.Errorf("client %d: %+v %+v", k, m, data)
		}
		if m.Timestamp.Seconds == 0 || m.Timestamp != got[0].Timestamp {
			t.Errorf("client %d: time %+v, not %+v", k, m.Timestamp, got[0].Timestamp)
		}
	}
	// The threshold is gone with its event.
	if out := hmp(t, i, `qmpblock-io f "write -q 4k 8k"`); out != "" {
		t.Error(out)
	}
	execute(t, i, "stop", qjson.Value{})
	if m := clients[0].must(); m.Event != "STOP" {
		t.Errorf("a second event: %+v", m)
	}
}

// TestDeviceDeleted looks at the order of reply and event, whichever monitor
// deletes the device.
func TestDeviceDeleted(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{
		"QMP": `{"execute": "device_del", "arguments": {"id": "d"}}`,
		"HMP": `{"execute": "human-monitor-command", "arguments": {"command-line": "device_del d"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := control.New(control.Config{Personality: control.System, Stopped: true})
			t.Cleanup(i.Close)
			if err := i.AddDevice(arguments(t, `{"driver": "virtio-scsi-pci", "id": "s"}`)); err != nil {
				t.Fatal(err)
			}
			path := listen(t, i)
			i.Start()
			execute(t, i, "blockdev-add", arguments(t, `{"driver": "null-co", "node-name": "n"}`))
			execute(t, i, "device_add", arguments(t, `{"driver": "scsi-hd", "id": "d", "drive": "n"}`))
			c := qmpClient(t, path)
			c.send(command)
			if m := c.must(); m.Return == nil {
				t.Errorf("first came %+v", m)
			}
			m := c.must()
			if want := `{"device": "d", "path": "/machine/peripheral/d"}`; m.Event != "DEVICE_DELETED" || string(m.Data) != want {
				t.Errorf("then came %+v", m)
			}
			execute(t, i, "blockdev-del", arguments(t, `{"node-name": "n"}`))
		})
	}
}

// TestPassedFile opens a node on a descriptor that a real client passed.
func TestPassedFile(t *testing.T) {
	t.Parallel()
	i := system(t)
	m, err := goqemu.NewSocketMonitor("unix", listen(t, i), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	defer m.Disconnect()
	path := disk(t, 1<<16)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := m.RunWithFile([]byte(`{"execute": "add-fd", "arguments": {"fdset-id": 7, "opaque": "mine"}}`), f)
	if err != nil {
		t.Fatal(err)
	}
	var added struct {
		Return struct {
			Set int64 `json:"fdset-id"`
			FD  int64 `json:"fd"`
		}
	}
	if err := json.Unmarshal(out, &added); err != nil || added.Return.Set != 7 {
		t.Errorf("add-fd: %s, %v", out, err)
	}
	// Only the descriptor leads to the file now.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	add := arguments(t, `{"driver": "file", "node-name": "p", "filename": "/dev/fdset/7"}`)
	execute(t, i, "blockdev-add", add)
	if out := hmp(t, i, `qmpblock-io p "write -q -P 0x5a 512 512"`); out != "" {
		t.Error(out)
	}
	sector := make([]byte, 512)
	if _, err := f.ReadAt(sector, 512); err != nil || sector[0] != 0x5a || sector[511] != 0x5a {
		t.Errorf("the file has %x…, %v", sector[:4], err)
	}
	execute(t, i, "remove-fd", arguments(t, `{"fdset-id": 7}`))
	if out := hmp(t, i, `qmpblock-io p "read -q -P 0x5a 512 512"`); out != "" {
		t.Errorf("after remove-fd: %s", out)
	}
	execute(t, i, "blockdev-del", arguments(t, `{"node-name": "p"}`))
	if out := execute(t, i, "query-fdsets", qjson.Value{}); string(out) != "[]" {
		t.Errorf("sets left: %s", out)
	}
	_, err = i.Execute(t.Context(), "blockdev-add", add)
	wantError(t, err, qerr.GenericError, "Failed to find fdset /dev/fdset/7")
}

func TestMonitorOptions(t *testing.T) {
	t.Parallel()
	i := instance(t, control.Config{Personality: control.System})
	monitor := func(text string) error { return i.AddMonitor(arguments(t, "%s", text), schema.QMP) }
	if err := i.AddChardev("null,id=c"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		desc string
	}{
		{monitor(`{"chardev": "nope"}`), `chardev "nope" not found`},
		{monitor(`{"chardev": "c", "mode": "readline"}`), "Only QMP is supported"},
		{monitor(`{"mode": "control"}`), "Parameter 'chardev' is missing"},
		{i.AddMonitorLegacy("c"), "Only QMP is supported"},
		{i.AddMonitorLegacy("nope,mode=control"), `chardev "nope" not found`},
		{i.AddQMP("nonsense:x", false), "'nonsense:x' is not a valid char driver"},
		{i.AddQMP("tcp:x", false), "parse error: tcp:x"},
		{i.AddQMP("tcp:x:", false), "parse error: tcp:x:"},
	} {
		wantError(t, c.err, qerr.GenericError, c.desc)
	}
	if err := monitor(`{"chardev": "c", "mode": "control"}`); err != nil {
		t.Fatal(err)
	}
	wantError(t, monitor(`{"chardev": "c"}`), qerr.GenericError, "chardev 'c' is already in use")
}

// TestPretty compares the two ways to print.
func TestPretty(t *testing.T) {
	t.Parallel()
	i := instance(t, control.Config{})
	path := filepath.Join(shortDir(t), "qmp.sock")
	if err := i.AddQMP("unix:"+path+",server=on,wait=off", true); err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	c.send(`{"execute": "qmp_capabilities"}{"execute": "quit"}`)
	var lines []string
	for c.lines.Scan() {
		lines = append(lines, strings.TrimSuffix(c.lines.Text(), "\r"))
	}
	end := slices.Index(lines, "}")
	want := []string{"{", `    "return": {`, "    }", "}", "{", `    "return": {`, "    }", "}"}
	if diff := cmp.Diff(want, lines[end+1:]); diff != "" {
		t.Errorf("(-want +got)\n%s\n%s", diff, strings.Join(lines, "\n"))
	}
	await(t, i)
}

// TestNamedFile makes a character device of a descriptor with a name, which
// works once and for the monitor that got it.
func TestNamedFile(t *testing.T) {
	t.Parallel()
	i := system(t)
	connect := func() *goqemu.SocketMonitor {
		m, err := goqemu.NewSocketMonitor("unix", listen(t, i), patience)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Connect(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Disconnect() })
		return m
	}
	mine, other := connect(), connect()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	if _, err := mine.RunWithFile([]byte(`{"execute": "getfd", "arguments": {"fdname": "s"}}`), theirs); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	add := []byte(`{"execute": "chardev-add", "arguments": {"id": "c", "backend": {"type": "socket",
		"data": {"addr": {"type": "fd", "data": {"str": "s"}}, "server": false}}}}`)
	const missing = "File descriptor named 's' has not been found"
	if _, err := other.Run(add); err == nil || !strings.HasSuffix(err.Error(), missing) {
		t.Errorf("the other monitor: %v", err)
	}
	if _, err := mine.Run(add); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Run([]byte(`{"execute": "closefd", "arguments": {"fdname": "s"}}`)); err == nil {
		t.Error("the name is left when its descriptor is taken")
	}
	if _, err := mine.Run([]byte(`{"execute": "chardev-remove", "arguments": {"id": "c"}}`)); err != nil {
		t.Fatal(err)
	}
	if n, err := ours.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the other end is open still: %d, %v", n, err)
	}
}
