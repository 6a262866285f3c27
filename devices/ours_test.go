package devices_test

import (
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/devices"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// ours plays scripts on a machine of this package.
type ours struct {
	bench   *drivertest.Bench
	machine *devices.Machine
	threads map[string]*aio.Context
	events  []string
}

func newOurs(t testing.TB) *ours {
	o := &ours{bench: drivertest.New(t, null.Co()), threads: make(map[string]*aio.Context)}
	o.machine = devices.New(devices.Config{
		Graph:    o.bench.Graph,
		Emit:     o.emit,
		IOThread: o.ioThread,
		Exists:   func(path string) bool { return o.threads[strings.TrimPrefix(path, "/objects/")] != nil },
	})
	t.Cleanup(func() { o.bench.Main(o.machine.Close) })
	return o
}

func (o *ours) emit(e devices.Event) {
	switch e.Kind {
	case devices.Stop:
		o.events = append(o.events, "~ STOP")
	case devices.Resume:
		o.events = append(o.events, "~ RESUME")
	case devices.DeviceDeleted:
		line := "~ DEVICE_DELETED " + e.Path
		if e.Device != nil {
			line += " " + *e.Device
		}
		o.events = append(o.events, line)
	}
}

func (o *ours) ioThread(name string) (*devices.IOThread, error) {
	id := strings.TrimPrefix(name, "/objects/")
	ctx, ok := o.threads[id]
	switch {
	case !ok:
		return nil, qerr.WithClass(qerr.DeviceNotFound, "Device '%s' not found", name)
	case ctx == nil:
		return nil, nil
	}
	return &devices.IOThread{Path: "/objects/" + id, Context: ctx}, nil
}

func (o *ours) play(command, text string) (lines []string) {
	args := parse(text)
	o.events = nil
	l := o.bench.Graph.Main().Acquire()
	defer l.Release()
	switch command {
	case "drives":
		o.machine.Each(func(d *devices.Drive) bool { lines = append(lines, o.drive(d)); return true })
	case "perms":
		lines = o.perms()
	case "complete":
		lines = o.complete(l)
	case "qom-list":
		lines = o.list(args.Get("path").Str())
	default:
		lines = []string{result(o.command(l, command, args))}
		lines = append(lines, o.events...)
	}
	return lines
}

func (o *ours) command(l *aio.Lock, command string, args qjson.Value) (string, error) {
	switch command {
	case "blockdev-add":
		_, err := o.bench.Graph.AddNode(l, block.OptionsFromJSON(args))
		return "", err
	case "blockdev-del":
		return "", o.bench.Graph.DeleteNode(l, args.Get("node-name").Str())
	case "object-add":
		var ctx *aio.Context
		if args.Get("qom-type").Is("iothread") {
			ctx = o.bench.Graph.NewContext(args.Get("id").Str())
		}
		o.threads[args.Get("id").Str()] = ctx
		return "", nil
	case "device_add":
		return "", o.machine.Add(l, args)
	case "device_del":
		return "", o.machine.Remove(l, args.Get("id").Str())
	case "stop":
		o.machine.Stop(l)
		return "", nil
	case "cont":
		return "", o.machine.Cont(l)
	case "query-status":
		return string(o.machine.Status()), nil
	case "block-latency-histogram-set": // any command with a member id
		_, err := o.machine.BackendByQOM(args.Get("id").Str())
		return "", err
	case "qom-get":
		return o.get(args.Get("path").Str(), args.Get("property").Str())
	case "qom-set":
		return "", o.machine.Set(l, args.Get("path").Str(), args.Get("property").Str(), args.Get("value"))
	}
	return "", qerr.New("the script's command '%s' is unknown", command)
}

// complete lets the devices go that wait for a guest.
func (o *ours) complete(l *aio.Lock) []string {
	if err := o.machine.Cont(l); err != nil {
		return []string{err.Error()}
	}
	o.machine.Stop(l)
	var lines []string
	for _, e := range o.events {
		if strings.HasPrefix(e, "~ DEVICE") {
			lines = append(lines, e)
		}
	}
	return lines
}

func (o *ours) drive(d *devices.Drive) string {
	tray, status := "none", "none"
	if d.Removable() {
		tray = map[bool]string{true: "open", false: "closed"}[d.TrayOpen()]
	}
	if s, ok := d.IOStatus(); ok {
		status = s
	}
	node, readOnly := "", false
	if n := d.Backend().Node(); n != nil {
		node, readOnly = n.Name(), n.ReadOnly()
	}
	return driveLine(d.QDev(), d.Removable(), d.Locked(), tray, status, node, readOnly, d.Backend().WriteCache())
}

func (o *ours) perms() (lines []string) {
	o.machine.Each(func(d *devices.Drive) bool {
		if root := d.Backend().Root(); root != nil {
			lines = append(lines, edgeLine(d.QDev(), root.Node().Name(), permNames(root.Perm()), permNames(root.Shared())))
		}
		return true
	})
	return lines
}

func permNames(p block.Perm) string {
	var s strings.Builder
	for i, letter := range "rwuR" {
		if p&(1<<i) != 0 {
			s.WriteRune(letter)
		}
	}
	return s.String() + "-"
}

func (o *ours) list(path string) (lines []string) {
	obj := o.machine.Object(path)
	if obj == nil {
		return []string{"Device '" + path + "' not found [DeviceNotFound]"}
	}
	for _, p := range obj.Properties {
		if line, ok := listLine(p.Name, p.Type); ok {
			lines = append(lines, line)
		}
	}
	return lines
}

func (o *ours) get(path, name string) (string, error) {
	obj := o.machine.Object(path)
	if obj == nil {
		return "", qerr.WithClass(qerr.DeviceNotFound, "Device '%s' not found", path)
	}
	for _, p := range obj.Properties {
		switch {
		case p.Name == name && p.Value == nil:
			return "", qerr.New("Property '%s.%s' is not readable", p.Owner, name)
		case p.Name == name:
			return string(p.Value), nil
		}
	}
	return "", qerr.New("Property '%s.%s' not found", obj.Type, name)
}
