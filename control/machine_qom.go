package control

import (
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/devices"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom"
)

// The objects of the machine are not kept in the object tree: package devices
// makes them up from its own state when somebody looks. Here the two are put
// together: what lies at or below /machine is the machine's.

const machinePath = "/machine"

// hangMachine makes the machine visible as a child of the root.
func (i *Instance) hangMachine() {
	o := i.machine.Object(machinePath)
	i.objects.Register(&qom.Type{Name: o.Type, Parent: "object"})
	// The tree is new: its root is there and has no child of that name.
	root, err := i.objects.Resolve("/")
	if err == nil {
		err = root.AddChild(strings.TrimPrefix(machinePath, "/"), i.objects.NewObject(o.Type, nil))
	}
	if err != nil {
		panic(err)
	}
}

// machineObject finds the object of a path, if it is one of the machine's. A
// path without a slash in front is searched for, the objects of users first.
func (i *Instance) machineObject(path string) *devices.Object {
	if i.machine == nil {
		return nil
	}
	if path == machinePath || strings.HasPrefix(path, machinePath+"/") {
		return i.machine.Object(strings.TrimRight(path, "/"))
	}
	if path == "" || path[0] == '/' {
		return nil
	}
	if _, err := i.objects.Resolve(path); err == nil || qerr.From(err).Class != qerr.DeviceNotFound {
		return nil
	}
	var found *devices.Object
	i.machine.Objects(func(p string) bool {
		if strings.HasSuffix(p, "/"+path) {
			found = i.machine.Object(p)
		}
		return found == nil
	})
	return found
}

func machineProperties(o *devices.Object) []qom.PropertyInfo {
	infos := make([]qom.PropertyInfo, len(o.Properties))
	for k, p := range o.Properties {
		infos[k] = qom.PropertyInfo{Name: p.Name, Type: p.Type}
	}
	return infos
}

func machineProperty(o *devices.Object, name string) ([]byte, error) {
	for _, p := range o.Properties {
		if p.Name != name {
			continue
		}
		if p.Value == nil {
			return nil, qerr.New("Property '%s.%s' is not readable", p.Owner, name)
		}
		return p.Value, nil
	}
	return nil, qerr.New("Property '%s.%s' not found", o.Type, name)
}

// objectList, objectGet and objectSet serve both kinds of objects.

func (i *Instance) objectList(path string) ([]qom.PropertyInfo, error) {
	if o := i.machineObject(path); o != nil {
		return machineProperties(o), nil
	}
	return i.objects.List(path)
}

func (i *Instance) objectGet(path, property string) ([]byte, error) {
	if o := i.machineObject(path); o != nil {
		return machineProperty(o, property)
	}
	return i.objects.Get(path, property)
}

func (i *Instance) objectSet(l *aio.Lock, path, property string, v qjson.Value) error {
	if o := i.machineObject(path); o != nil {
		return i.machine.Set(l, o.Path, property, v)
	}
	return i.objects.Set(path, property, v)
}
