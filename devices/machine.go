package devices

import (
	"container/list"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// Config is what a machine needs from outside.
type Config struct {
	// Graph holds the nodes that devices use.
	Graph *block.Graph
	// Emit receives events, in their order; nil: nobody listens. It is called
	// with the main context's lock held and must not block.
	Emit func(Event)
	// Later is given what remains of a device that is unplugged, in the order of
	// the events that tell of it: who took its disk from it waits for that, as in
	// the reference. Nil: that is done at once.
	Later func(rest func(*aio.Lock))
	// IOThread finds an iothread object by id or path. It fails if there is no
	// such object and returns nil if the object is something else. Nil: there
	// are no iothreads.
	IOThread func(name string) (*IOThread, error)
	// Exists tells whether an object exists at a path outside of /machine, for
	// the sake of an error's text. Nil: there is none.
	Exists func(path string) bool
	// CPUs is the number of processors, which decides how many queues a device
	// has by default; 0 means 1.
	CPUs int
}

// EventKind says what happened.
type EventKind uint8

// The events.
const (
	// Stop and Resume: the machine does not run any more, or again.
	Stop EventKind = iota
	Resume
	// DeviceDeleted: a device is gone.
	DeviceDeleted
)

// Event is something a client is told. The reference sends DEVICE_DELETED some
// milliseconds after the reply to device_del, when the last reference is gone;
// here it comes at once.
type Event struct {
	Kind EventKind
	// Device is the id of the device, nil if it had none.
	Device *string
	// Path was the device's place in the object tree.
	Path string
}

// Machine is one machine: its buses, its devices and whether it runs. All
// methods must be called in the main context, with its lock held; those that
// do more than look take the lock as proof.
type Machine struct {
	cfg    Config
	models []*model
	root   *bus
	drives list.List // of *Drive, the oldest first
	status RunState

	object         *object // /machine
	peripheral     *object
	peripheralAnon *object
	unattached     *object

	// anonymous and unnamedSCSI number what has no name.
	anonymous, unnamedSCSI int
	// bootIndices are those in use.
	bootIndices map[string]*device
	// leaving are the devices whose unplugging waits for the guest.
	leaving []*device
}

// New makes a machine of type pc that has not been started yet.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg, models: models(), status: Prelaunch, bootIndices: make(map[string]*device)}
	m.object = &object{name: "machine", typ: "pc-i440fx-10.0-machine"}
	m.peripheral = m.object.add("peripheral", "container")
	m.peripheralAnon = m.object.add("peripheral-anon", "container")
	m.unattached = m.object.add("unattached", "container")
	m.addFixed()
	return m
}

// Close removes all devices, without events.
func (m *Machine) Close(l *aio.Lock) {
	m.cfg.Emit, m.cfg.Later = nil, nil
	for m.peripheral.children.Len()+m.peripheralAnon.children.Len() > 0 {
		m.anyDevice().unplug(l)
	}
}

func (m *Machine) anyDevice() *device {
	for _, o := range m.peripheral.children.All() {
		return o.dev.top()
	}
	for _, o := range m.peripheralAnon.children.All() {
		return o.dev.top()
	}
	return nil
}

func (m *Machine) emit(e Event) {
	if m.cfg.Emit != nil {
		m.cfg.Emit(e)
	}
}

func (m *Machine) cpus() int { return max(m.cfg.CPUs, 1) }
