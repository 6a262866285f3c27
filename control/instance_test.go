package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qmp"
	"github.com/qmpblock/qmpblock/schema"
)

// nodeNames asks for the names of all nodes.
func nodeNames(t *testing.T, i *control.Instance) []string {
	t.Helper()
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := json.Unmarshal(execute(t, i, "query-named-block-nodes", qjson.Value{}), &nodes); err != nil {
		t.Error(err)
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

// TestManyInstances has two hundred daemons in one process at the same time.
// Each sees its own nodes only.
func TestManyInstances(t *testing.T) {
	t.Parallel()
	const instances, nodes = 200, 5
	var running, all sync.WaitGroup
	running.Add(instances)
	for k := range instances {
		all.Go(func() {
			i := control.New(control.Config{Personality: control.Personality(k % 2)})
			defer i.Close()
			i.Start()
			var want []string
			for n := range nodes {
				name := fmt.Sprintf("i%dn%d", k, n)
				if err := i.AddBlockdev(arguments(t, `{"driver": "null-co", "node-name": %q}`, name), schema.QMP); err != nil {
					t.Error(err)
				}
				want = append(want, name)
			}
			if err := i.AddObject(arguments(t, `{"qom-type": "iothread", "id": "t"}`), schema.QMP); err != nil {
				t.Error(err)
			}
			running.Done()
			running.Wait()
			if got := nodeNames(t, i); !slices.Equal(got, want) {
				t.Errorf("instance %d has nodes %v", k, got)
			}
		})
	}
	all.Wait()
}

// TestManyClients lets many goroutines use one instance.
func TestManyClients(t *testing.T) {
	t.Parallel()
	i := system(t)
	var all sync.WaitGroup
	for k := range 16 {
		all.Go(func() {
			add := arguments(t, `{"driver": "null-co", "node-name": "n%d"}`, k)
			del := arguments(t, `{"node-name": "n%d"}`, k)
			for range 20 {
				for _, c := range []struct {
					name string
					args qjson.Value
				}{{"blockdev-add", add}, {"query-named-block-nodes", qjson.Value{}}, {"blockdev-del", del}} {
					if _, err := i.Execute(context.Background(), c.name, c.args); err != nil {
						t.Errorf("%s: %v", c.name, err)
					}
				}
			}
		})
	}
	all.Wait()
	if left := nodeNames(t, i); len(left) > 0 {
		t.Errorf("nodes left: %v", left)
	}
}

func TestExecuteErrors(t *testing.T) {
	t.Parallel()
	i := system(t)
	for _, c := range []struct {
		command, args string
		class         qerr.Class
		desc          string
	}{
		{"nonsense", "", qerr.CommandNotFound, "The command nonsense has not been found"},
		{"blockdev-del", `{"node-name": "nope"}`, qerr.GenericError, "Failed to find node with node-name='nope'"},
		{"blockdev-del", "", qerr.GenericError, "Parameter 'node-name' is missing"},
		{"blockdev-del", `{"node-name": 1}`, qerr.GenericError, "Invalid parameter type for 'node-name', expected: string"},
		{"blockdev-del", `{"node-name": "n", "x": 1}`, qerr.GenericError, "Parameter 'x' is unexpected"},
		{"query-version", `{"x": 1}`, qerr.GenericError, "Parameter 'x' is unexpected"},
		{"device_del", `{"id": "nope"}`, qerr.DeviceNotFound, "Device 'nope' not found"},
		{"device_add", `{"driver": "nope"}`, qerr.GenericError, "'nope' is not a valid device model name"},
		{"qmp_capabilities", "", qerr.CommandNotFound, "Capabilities negotiation is already complete, command ignored"},
		{"blockdev-reopen", `{"options": []}`, qerr.GenericError, "Parameter 'options' expects at least one node"},
		{"add-fd", "", qerr.GenericError, "No file descriptor supplied via SCM_RIGHTS"},
	} {
		var args qjson.Value
		if c.args != "" {
			args = arguments(t, "%s", c.args)
		}
		out, err := i.Execute(context.Background(), c.command, args)
		wantError(t, err, c.class, c.desc)
		if len(out) > 0 {
			t.Errorf("%s: an error and %s", c.command, out)
		}
	}
}

// TestBeforeStart holds a command back until the start.
func TestBeforeStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := control.New(control.Config{})
		answer := make(chan error, 1)
		go func() {
			_, err := i.Execute(context.Background(), "query-version", qjson.Value{})
			answer <- err
		}()
		synctest.Wait()
		select {
		case err := <-answer:
			t.Errorf("it ran before the start: %v", err)
		default:
		}
		i.Start()
		if err := <-answer; err != nil {
			t.Error(err)
		}
		i.Close()
	})
}

// TestNeverStarted ends a command that was held back.
func TestNeverStarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := control.New(control.Config{})
		answer := make(chan error, 1)
		go func() {
			_, err := i.Execute(context.Background(), "query-version", qjson.Value{})
			answer <- err
		}()
		synctest.Wait()
		i.Close()
		if err := <-answer; !errors.Is(err, qmp.ErrShutdown) {
			t.Errorf("got %v", err)
		}
	})
}

// TestQuitFromGo ends an instance without any client.
func TestQuitFromGo(t *testing.T) {
	t.Parallel()
	i := instance(t, control.Config{})
	execute(t, i, "quit", qjson.Value{})
	<-i.Done()
	if _, err := i.Execute(context.Background(), "query-version", qjson.Value{}); !errors.Is(err, qmp.ErrShutdown) {
		t.Errorf("a command behind quit: %v", err)
	}
}

// commandNames lists what an instance offers to its clients.
func commandNames(t *testing.T, i *control.Instance) []string {
	t.Helper()
	var list []struct{ Name string }
	if err := json.Unmarshal(execute(t, i, "query-commands", qjson.Value{}), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}

// TestPersonality compares the two programs: everything that the daemon
// offers the emulator offers as well, and more.
func TestPersonality(t *testing.T) {
	t.Parallel()
	daemon := instance(t, control.Config{Personality: control.StorageDaemon})
	emulator := system(t)
	small, large := commandNames(t, daemon), commandNames(t, emulator)
	for _, name := range small {
		if !slices.Contains(large, name) {
			t.Errorf("only the daemon has %s", name)
		}
	}
	for _, name := range []string{
		"device_add", "device_del", "query-status", "stop", "cont", "human-monitor-command",
		"getfd", "closefd", "add-fd", "remove-fd", "query-fdsets",
	} {
		if slices.Contains(small, name) || !slices.Contains(large, name) {
			t.Errorf("%s: daemon %v, emulator %v", name, slices.Contains(small, name), slices.Contains(large, name))
		}
		_, err := daemon.Execute(context.Background(), name, qjson.Value{})
		wantError(t, err, qerr.CommandNotFound, "The command "+name+" has not been found")
	}
	for _, i := range []*control.Instance{daemon, emulator} {
		if out := execute(t, i, "query-block", qjson.Value{}); string(out) != "[]" {
			t.Errorf("query-block: %s", out)
		}
	}
	wantError(t, daemon.AddDevice(arguments(t, `{"driver": "virtio-blk-pci"}`)), qerr.GenericError, "The storage daemon has no devices")
	open := arguments(t, `{"driver": "file", "node-name": "f", "filename": "/dev/fdset/1"}`)
	_, err := daemon.Execute(context.Background(), "blockdev-add", open)
	wantError(t, err, qerr.GenericError, "Could not open '/dev/fdset/1': Function not implemented")
	_, err = emulator.Execute(context.Background(), "blockdev-add", open)
	wantError(t, err, qerr.GenericError, "Failed to find fdset /dev/fdset/1")
}

// TestStopped starts a machine that waits.
func TestStopped(t *testing.T) {
	t.Parallel()
	i := instance(t, control.Config{Personality: control.System, Stopped: true})
	if out := execute(t, i, "query-status", qjson.Value{}); string(out) != `{"status": "prelaunch", "running": false}` {
		t.Errorf("at the start %s", out)
	}
	execute(t, i, "cont", qjson.Value{})
	if out := execute(t, i, "query-status", qjson.Value{}); string(out) != `{"status": "running", "running": true}` {
		t.Errorf("after cont %s", out)
	}
}

// TestIOThreadRemoved does I/O on a node whose iothread is gone.
func TestIOThreadRemoved(t *testing.T) {
	t.Parallel()
	i := system(t)
	execute(t, i, "object-add", arguments(t, `{"qom-type": "iothread", "id": "t0"}`))
	execute(t, i, "blockdev-add", arguments(t,
		`{"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": %q}}`, disk(t, 1<<20)))
	move := func(to string) {
		execute(t, i, "x-blockdev-set-iothread", arguments(t, `{"node-name": "n", "iothread": %s}`, to))
	}
	io := func() {
		t.Helper()
		if out := hmp(t, i, `qmpblock-io n "write -q -P 0x5a 4k 4k"`) + hmp(t, i, `qmpblock-io n "read -q -P 0x5a 4k 4k"`); out != "" {
			t.Error(out)
		}
	}
	move(`"t0"`)
	io()
	execute(t, i, "object-del", arguments(t, `{"id": "t0"}`))
	_, err := i.Execute(context.Background(), "x-blockdev-set-iothread", arguments(t, `{"node-name": "n", "iothread": "t0"}`))
	wantError(t, err, qerr.GenericError, "Cannot find iothread t0")
	io()
	execute(t, i, "block_resize", arguments(t, `{"node-name": "n", "size": 2097152}`))
	execute(t, i, "object-add", arguments(t, `{"qom-type": "iothread", "id": "t0"}`))
	move(`"t0"`)
	io()
	move("null")
	io()
	execute(t, i, "blockdev-del", arguments(t, `{"node-name": "n"}`))
}
