package devices_test

import (
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/devices"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
)

func must(t *testing.T, o *ours, line, args string) {
	t.Helper()
	if got := o.play(line, args)[0]; got != "ok" {
		t.Fatalf("%s %s: %s", line, args, got)
	}
}

// TestUnplugWhileRunning: our guest lets PCI devices go at once.
func TestUnplugWhileRunning(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	must(t, o, "blockdev-add", `{"driver":"null-co","node-name":"n"}`)
	must(t, o, "device_add", `{"driver":"virtio-blk-pci","id":"vd0","drive":"n"}`)
	must(t, o, "cont", "")
	want := []string{"ok", "~ DEVICE_DELETED /machine/peripheral/vd0/virtio-backend", "~ DEVICE_DELETED /machine/peripheral/vd0 vd0"}
	if got := o.play("device_del", `{"id":"vd0"}`); !slices.Equal(got, want) {
		t.Errorf("device_del while running: %q", got)
	}
	must(t, o, "blockdev-del", `{"node-name":"n"}`)
}

// TestPendingUnplug: a request made while the machine stands is served when it
// goes on.
func TestPendingUnplug(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	must(t, o, "device_add", `{"driver":"virtio-scsi-pci","id":"s1","addr":"1f"}`)
	must(t, o, "device_add", `{"driver":"virtio-scsi-pci","id":"s0"}`)
	must(t, o, "device_del", `{"id":"s1"}`)
	must(t, o, "device_del", `{"id":"s0"}`)
	want := []string{
		"ok", "~ RESUME",
		"~ DEVICE_DELETED /machine/peripheral/s0/virtio-backend", "~ DEVICE_DELETED /machine/peripheral/s0 s0",
		"~ DEVICE_DELETED /machine/peripheral/s1/virtio-backend", "~ DEVICE_DELETED /machine/peripheral/s1 s1",
	}
	if got := o.play("cont", ""); !slices.Equal(got, want) {
		t.Errorf("cont: %q", got)
	}
}

// TestCloseReleasesNodes: closing a machine gives every node back.
func TestCloseReleasesNodes(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	must(t, o, "blockdev-add", `{"driver":"null-co","node-name":"n","read-only":true}`)
	must(t, o, "device_add", `{"driver":"virtio-scsi-pci"}`)
	for range 5 {
		must(t, o, "device_add", `{"driver":"scsi-hd","drive":"n"}`)
		must(t, o, "device_add", `{"driver":"virtio-blk","drive":"n"}`)
	}
	o.bench.Main(o.machine.Close)
	o.machine.Each(func(d *devices.Drive) bool { t.Errorf("%s is left", d.QDev()); return true })
	must(t, o, "blockdev-del", `{"node-name":"n"}`)
}

// TestFailedAddLeavesNothing: after an error everything is as before.
func TestFailedAddLeavesNothing(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	must(t, o, "blockdev-add", `{"driver":"null-co","node-name":"n"}`)
	must(t, o, "device_add", `{"driver":"virtio-scsi-pci","id":"s0"}`)
	for _, args := range []string{
		`{"driver":"virtio-blk-pci","id":"x","drive":"n","addr":"5","bootindex":1,"romfile":"nope"}`,
		`{"driver":"virtio-blk-pci","id":"x","drive":"n","addr":"5","bootindex":1,"logical_block_size":4096}`,
		`{"driver":"scsi-hd","id":"x","drive":"n","lun":3,"bootindex":1,"serial":"0123456789012345678901234567890123456789"}`,
	} {
		if got := o.play("device_add", args)[0]; got == "ok" {
			t.Errorf("%s succeeded", args)
		}
	}
	if obj := o.machine.Object("/machine/peripheral/x"); obj != nil {
		t.Errorf("the object is left: %+v", obj)
	}
	must(t, o, "device_add", `{"driver":"virtio-blk-pci","id":"x","drive":"n","addr":"5","bootindex":1}`)
	must(t, o, "cont", "")
	must(t, o, "device_del", `{"id":"x"}`)
	must(t, o, "device_add", `{"driver":"scsi-hd","id":"x","drive":"n","lun":3,"bootindex":1}`)
}

// TestIOThreadContext: a disk's node lives where its device wants it, as long
// as the device is alone with it.
func TestIOThreadContext(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	context := func(node string) string { return o.bench.Graph.Node(node).Context().Name() }
	for _, id := range []string{"io0", "io1"} {
		must(t, o, "object-add", `{"qom-type":"iothread","id":"`+id+`"}`)
	}
	for _, n := range []string{"a", "b", "c"} {
		must(t, o, "blockdev-add", `{"driver":"null-co","node-name":"`+n+`"}`)
	}
	must(t, o, "device_add", `{"driver":"virtio-blk","id":"va","drive":"a","iothread":"io0"}`)
	must(t, o, "device_add", `{"driver":"virtio-blk","id":"vb","drive":"b","iothread-vq-mapping":[{"iothread":"io1"},{"iothread":"io0"}]}`)
	must(t, o, "device_add", `{"driver":"virtio-scsi","id":"s0","iothread":"io1"}`)
	must(t, o, "device_add", `{"driver":"scsi-hd","id":"h0","drive":"c"}`)
	if a, b, c := context("a"), context("b"), context("c"); a != "io0" || b != "io1" || c != "io1" {
		t.Errorf("contexts %s, %s, %s", a, b, c)
	}
	must(t, o, "device_del", `{"id":"h0"}`)
	if c := context("c"); c != "main" {
		t.Errorf("without its device the node is in %s", c)
	}
}

// TestStartOptions: what a machine is born with was not hotplugged, and may
// have several functions in a slot in any order.
func TestStartOptions(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	o.bench.Main(func(l *aio.Lock) {
		for _, args := range []string{
			`{"driver":"virtio-scsi-pci","id":"s0","addr":"5.0","multifunction":true}`,
			`{"driver":"virtio-scsi-pci","id":"s1","addr":"5.1"}`,
		} {
			if err := o.machine.AddAtStart(l, parse(args)); err != nil {
				t.Errorf("%s: %v", args, err)
			}
		}
		want := "PCI: single function device can't be populated in function 6.1"
		if err := o.machine.AddAtStart(l, parse(`{"driver":"virtio-scsi-pci","addr":"6.0"}`)); err != nil {
			t.Error(err)
		}
		err := o.machine.AddAtStart(l, parse(`{"driver":"virtio-scsi-pci","addr":"6.1"}`))
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
	if got := o.play("qom-get", `{"path":"/machine/peripheral/s1","property":"hotplugged"}`)[0]; got != "false" {
		t.Errorf("hotplugged is %s", got)
	}
}

// TestCPUsDecideQueues: by default there is a queue for each processor.
func TestCPUsDecideQueues(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t, null.Co())
	bench.Add(`{"driver":"null-co","node-name":"n"}`)
	m := devices.New(devices.Config{Graph: bench.Graph, CPUs: 4})
	bench.Main(func(l *aio.Lock) {
		defer m.Close(l)
		if err := m.Add(l, parse(`{"driver":"virtio-blk","id":"v","drive":"n"}`)); err != nil {
			t.Fatal(err)
		}
		if err := m.Add(l, parse(`{"driver":"virtio-scsi","id":"s"}`)); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]map[string]string{
			"/machine/peripheral/v": {"num-queues": "4", "vectors": "5"},
			"/machine/peripheral/s": {"num_queues": "4", "vectors": "7"},
		} {
			for _, p := range m.Object(path).Properties {
				if w, ok := want[p.Name]; ok && string(p.Value) != w {
					t.Errorf("%s of %s is %s, want %s", p.Name, path, p.Value, w)
				}
			}
		}
	})
	bench.Delete("n")
}

// TestStopFlushes: stopping makes what was written durable, running or not.
func TestStopFlushes(t *testing.T) {
	t.Parallel()
	var flushes int
	bench := drivertest.New(t, flushCounter(&flushes))
	n := bench.Add(`{"driver":"counter","node-name":"n"}`)
	m := devices.New(devices.Config{Graph: bench.Graph})
	blk := bench.Use(n)
	bench.Main(func(l *aio.Lock) {
		for i := 1; i <= 2; i++ {
			if err := blk.Pwritev(l, 0, block.Vec{make([]byte, 512)}, 0); err != nil {
				t.Fatal(err)
			}
			m.Stop(l)
			if flushes != i {
				t.Errorf("%d flushes after %d writes", flushes, i)
			}
			if err := m.Cont(l); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestInfoStatus(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	check := func(args, want string) {
		t.Helper()
		if got := o.machine.InfoStatus(args, io.Discard); got != want {
			t.Errorf("info status %s: %q", args, got)
		}
	}
	check("", "VM status: paused (prelaunch)\r\n")
	check("x", "status: extraneous characters at the end of line\r\nTry \"help info status\" for more information\r\n")
	must(t, o, "cont", "")
	check("", "VM status: running\r\n")
	must(t, o, "stop", "")
	check("", "VM status: paused\r\n")
}

// TestObjects: every object that is listed can be found, and its properties
// read.
func TestObjects(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	must(t, o, "device_add", `{"driver":"virtio-scsi-pci","id":"s0"}`)
	must(t, o, "device_add", `{"driver":"scsi-cd"}`)
	seen := make(map[string]bool)
	o.machine.Objects(func(path string) bool {
		seen[path] = true
		obj := o.machine.Object(path)
		if obj == nil {
			t.Fatalf("%s is not found", path)
		}
		if obj.Path != path || len(obj.Properties) == 0 || obj.Properties[0].Name != "type" {
			t.Errorf("%s: %+v", path, obj)
		}
		return true
	})
	for _, path := range []string{
		"/machine", "/machine/peripheral/s0/virtio-backend/s0.0", "/machine/peripheral-anon/device[0]",
		"/machine/i440fx/pci.0", "/machine/unattached/device[3]/ide",
	} {
		if !seen[path] {
			t.Errorf("%s is not visited", path)
		}
	}
	for _, path := range []string{"", "machine", "/nope", "/machine/nope", "s0"} {
		if o.machine.Object(path) != nil {
			t.Errorf("%q is found", path)
		}
	}
}

// TestManyDevices: adding and removing costs no more among many.
func TestManyDevices(t *testing.T) {
	t.Parallel()
	o := newOurs(t)
	must(t, o, "device_add", `{"driver":"virtio-scsi-pci","id":"s0"}`)
	for i := range 2000 {
		must(t, o, "device_add", fmt.Sprintf(`{"driver":"scsi-cd","id":"c%d","scsi-id":%d,"lun":%d}`, i, i%256, i/256))
	}
	for i := range 2000 {
		must(t, o, "device_del", fmt.Sprintf(`{"id":"c%d"}`, i))
	}
}

// flushCounter is a driver that counts flushes.
func flushCounter(count *int) *block.Driver {
	return &block.Driver{Name: "counter", Kind: block.Protocol, Open: func(*block.OpenArgs) (block.Instance, error) {
		return &flushCounting{count}, nil
	}}
}

type flushCounting struct{ count *int }

func (f *flushCounting) Close(*aio.Lock) {}
func (f *flushCounting) CoFlush(*aio.Co) error {
	*f.count++
	return nil
}
func (f *flushCounting) CoPwritev(*aio.Co, int64, block.Vec, block.ReqFlags) error { return nil }
func (f *flushCounting) CoGetLength(*aio.Co) (int64, error)                        { return 1 << 20, nil }
