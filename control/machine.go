package control

import (
	"context"
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/devices"
	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qmp"
	"github.com/qmpblock/qmpblock/schema"
)

// newMachine makes the machine of a system emulator.
func (i *Instance) newMachine() *devices.Machine {
	return devices.New(devices.Config{
		Graph:    i.graph,
		Emit:     i.machineEvent,
		Later:    func(rest func(*aio.Lock)) { i.leaving = append(i.leaving, rest) },
		IOThread: i.machineIOThread,
		Exists: func(path string) bool {
			o, err := i.objects.Resolve(path)
			return err == nil && o != nil
		},
	})
}

func (i *Instance) machineEvent(e devices.Event) {
	switch e.Kind {
	case devices.Stop:
		i.emit(&schema.StopEvent{})
	case devices.Resume:
		i.emit(&schema.ResumeEvent{})
	case devices.DeviceDeleted:
		deleted := &schema.DeviceDeletedEvent{Device: e.Device, Path: e.Path}
		i.leaving = append(i.leaving, func(*aio.Lock) { i.emit(deleted) })
	}
}

// finishDeleted lets deleted devices go, and tells of them, behind the reply: the
// reference frees a device when the last reader may have left it, some
// milliseconds later.
func (i *Instance) finishDeleted(ctx context.Context, l *aio.Lock) {
	leaving := i.leaving
	i.leaving = nil
	if len(leaving) == 0 {
		return
	}
	finish := func(l *aio.Lock) {
		for _, rest := range leaving {
			rest(l)
		}
	}
	session := qmp.SessionFrom(ctx)
	if session == nil {
		finish(l)
		return
	}
	session.Then(func() {
		l := i.graph.Main().Acquire()
		defer l.Release()
		finish(l)
	})
}

// machineIOThread finds the iothread that a device's property names.
func (i *Instance) machineIOThread(name string) (*devices.IOThread, error) {
	o, err := i.objects.Resolve(name)
	if err != nil {
		return nil, err
	}
	ctx := i.iothreadContext(o.Name())
	if ctx == nil {
		return nil, nil
	}
	return &devices.IOThread{Path: o.Path(), Context: ctx}, nil
}

func (i *Instance) registerMachine(t *schema.Table) {
	t.DeviceAdd(i.deviceAdd)
	t.DeviceDel(i.deviceDel)
	t.QueryStatus(query(i, i.queryStatus))
	t.Stop(action(i, func(l *aio.Lock) error {
		i.machine.Stop(l)
		return nil
	}))
	t.Cont(i.cont)
	t.Emits(&schema.StopEvent{}, &schema.ResumeEvent{}, &schema.ShutdownEvent{}, &schema.DeviceDeletedEvent{})
}

func (i *Instance) deviceAdd(_ context.Context, args qjson.Value, out []byte) ([]byte, error) {
	l := i.graph.Main().Acquire()
	defer l.Release()
	if err := i.machine.Add(l, args); err != nil {
		return out, err
	}
	return append(out, "{}"...), nil
}

func (i *Instance) deviceDel(ctx context.Context, a *schema.DeviceDelArguments) error {
	l := i.graph.Main().Acquire()
	defer l.Release()
	defer i.finishDeleted(ctx, l)
	return i.machine.Remove(l, a.Id)
}

func (i *Instance) cont(ctx context.Context) error {
	l := i.graph.Main().Acquire()
	defer l.Release()
	defer i.finishDeleted(ctx, l)
	return i.machine.Cont(l)
}

// AddDevice gives the machine a device that it is born with.
func (i *Instance) AddDevice(args qjson.Value) error {
	return i.addDevice(func(l *aio.Lock) error { return i.machine.AddAtStart(l, args) })
}

func (i *Instance) addDevice(add func(l *aio.Lock) error) error {
	if i.machine == nil {
		return qerr.New("The storage daemon has no devices")
	}
	l := i.graph.Main().Acquire()
	defer l.Release()
	return add(l)
}

// AddDeviceOption is AddDevice for the text of a -device option.
func (i *Instance) AddDeviceOption(text string) error {
	v, help, err := keyval.ParseOption(text, "driver")
	if err != nil {
		return err
	}
	if help {
		return keyval.ErrNoHelp()
	}
	if strings.HasPrefix(text, "{") {
		return i.AddDevice(v)
	}
	return i.addDevice(func(l *aio.Lock) error { return i.machine.AddSpelled(l, v) })
}

func (i *Instance) queryStatus(*aio.Lock) (*schema.StatusInfo, error) {
	state := i.machine.Status()
	status, ok := schema.ParseEnum[schema.RunState](string(state))
	if !ok {
		return nil, qerr.New("Unknown run state '%s'", state)
	}
	return &schema.StatusInfo{Running: state == devices.Running, Status: status}, nil
}

// queryBlock describes the devices' disks; the storage daemon has none.
func (i *Instance) queryBlock(l *aio.Lock) ([]*schema.BlockInfo, error) {
	rows := []*schema.BlockInfo{}
	if i.machine == nil {
		return rows, nil
	}
	return inCoroutine(i, l, "query_block", func(co *aio.Co) ([]*schema.BlockInfo, error) {
		var err error
		i.machine.Each(func(d *devices.Drive) bool {
			var row *schema.BlockInfo
			if row, err = blockInfo(co, d); err != nil {
				return false
			}
			rows = append(rows, row)
			return true
		})
		return rows, err
	})
}

func blockInfo(co *aio.Co, d *devices.Drive) (*schema.BlockInfo, error) {
	qdev := d.QDev()
	row := &schema.BlockInfo{Qdev: &qdev, Type: "unknown", Removable: d.Removable(), Locked: d.Locked()}
	if row.Removable {
		open := d.TrayOpen()
		row.TrayOpen = &open
	}
	if text, ok := d.IOStatus(); ok {
		status, known := schema.ParseEnum[schema.BlockDeviceIoStatus](text)
		if known {
			row.IoStatus = &status
		}
	}
	n := d.Backend().Node()
	if n == nil {
		return row, nil
	}
	var err error
	row.Inserted, err = blockDeviceInfo(co, n, d.Backend(), false)
	return row, err
}

// deviceStats counts what the devices did.
func (i *Instance) deviceStats() []*schema.BlockStats {
	list := []*schema.BlockStats{}
	if i.machine == nil {
		return list
	}
	i.machine.Each(func(d *devices.Drive) bool {
		s := &schema.BlockStats{Stats: schema.BlockDeviceStats{TimedStats: []*schema.BlockDeviceTimedStats{}}}
		if n := d.Backend().Node(); n != nil {
			s = nodeStats(n, true)
		}
		device, qdev := "", d.QDev()
		s.Device, s.Qdev = &device, &qdev
		fillBackendStats(&s.Stats, d.Backend().Stats())
		s.Stats.AccountInvalid, s.Stats.AccountFailed = d.AccountInvalid(), d.AccountFailed()
		list = append(list, s)
		return true
	})
	return list
}
