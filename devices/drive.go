package devices

import (
	"container/list"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Drive is a device's disk, or the place for one: a row of query-block.
type Drive struct {
	device    *device
	backend   *block.Backend
	place     *list.Element // among the machine's drives
	removable bool
	uses      uses
	// dormant says that the node belongs to another process, so that nothing
	// is taken of it until it is active.
	dormant bool
}

// uses are the permissions that a device takes and shares.
type uses struct{ perm, shared block.Perm }

// usesDisk is for disks: guests can live with a size that changes.
func usesDisk(d *device) uses {
	u := usesCD(d)
	u.shared |= block.PermResize
	if n := d.drive.backend.Node(); n != nil && !n.ReadOnly() {
		u.perm |= block.PermWrite
	}
	return u
}

// usesCD is for CD-ROMs, which only read.
func usesCD(d *device) uses {
	u := uses{block.PermConsistentRead, block.PermConsistentRead | block.PermWriteUnchanged}
	if d.flag("share-rw") {
		u.shared |= block.PermWrite
	}
	return u
}

func errNoDrive() error { return qerr.New("drive property not set") }

// newDrive makes a drive without a medium that takes nothing yet.
func (d *device) newDrive() *Drive {
	dr := &Drive{device: d, backend: d.machine.cfg.Graph.NewBackend("", 0, block.PermAll)}
	dr.backend.SetDevice(d.name())
	dr.backend.FixedContext = true // nobody else moves a device's node
	dr.place = d.machine.drives.PushBack(dr)
	return dr
}

func (dr *Drive) close(l *aio.Lock) {
	dr.leave(l)
	dr.detach(l)
}

// retire is for the drive of a device that stops: users see it no more. Requests
// are waited for (observed: own/flows/sys-unplug).
func (dr *Drive) retire(l *aio.Lock) {
	dr.device.machine.cfg.Graph.DrainAll(l)
	dr.leave(l)
}

func (dr *Drive) leave(l *aio.Lock) {
	dr.moveTo(l, nil)
	dr.device.machine.drives.Remove(dr.place)
}

// detach lets go of the node.
func (dr *Drive) detach(l *aio.Lock) { dr.backend.Close(l) }

// setDrive gives the device the node of that name. A running device can
// change from one node to another.
func (d *device) setDrive(l *aio.Lock, name string) error {
	if name == "" && !d.realized {
		d.put("drive", "")
		return nil
	}
	n := d.machine.cfg.Graph.Node(name)
	switch {
	case n == nil && d.realized:
		return qerr.New("Cannot find device='' nor node-name='%s'", name)
	case n == nil:
		return qerr.New("Property '%s.drive' can't find value '%s'", d.model.name, name)
	case d.drive != nil:
		return d.drive.replace(l, n)
	}
	dr := d.newDrive()
	if err := dr.backend.Insert(l, n); err != nil {
		dr.close(l)
		return err
	}
	d.drive = dr
	return nil
}

func (dr *Drive) replace(l *aio.Lock, n *block.Node) error {
	old := dr.backend.Node()
	if old == nil {
		return qerr.New("Device '%s' has no medium to replace", dr.device.name())
	}
	dr.backend.Remove(l)
	err := dr.backend.Insert(l, n)
	if err == nil {
		return nil
	}
	// The old node allowed this use a moment ago.
	if back := dr.backend.Insert(l, old); back != nil {
		return back
	}
	return err
}

// start takes the permissions and sets the cache mode.
func (dr *Drive) start(l *aio.Lock, u uses) error {
	dr.uses = u
	dr.backend.SetWriteCache(dr.device.get("write-cache") != "off")
	if n := dr.backend.Node(); n != nil && !n.Active() {
		dr.dormant = true
		return nil
	}
	return dr.backend.SetPerm(l, u.perm, u.shared)
}

// wake takes what was not taken while the node belonged to another process.
func (dr *Drive) wake(l *aio.Lock) error {
	if !dr.dormant {
		return nil
	}
	if err := dr.backend.SetPerm(l, dr.uses.perm, dr.uses.shared); err != nil {
		return err
	}
	dr.dormant = false
	return nil
}

// moveTo lets the drive's requests run in a context; nil is the main one.
// A node with other users stays where it is: they come from elsewhere.
func (dr *Drive) moveTo(l *aio.Lock, ctx *aio.Context) {
	n := dr.backend.Node()
	if n == nil {
		return
	}
	if ctx == nil {
		ctx = n.Graph().Main()
	}
	users := 0
	n.Parents(func(*block.Child) bool { users++; return users < 2 })
	if users == 1 {
		// Moving cannot fail for lack of anything but time.
		dr.backend.FixedContext = false
		_ = n.SetContext(l, ctx)
		dr.backend.FixedContext = true
	}
}

// Each visits the drives, the oldest first, until f returns false.
func (m *Machine) Each(f func(*Drive) bool) {
	for e := m.drives.Front(); e != nil; e = e.Next() {
		if !f(e.Value.(*Drive)) {
			return
		}
	}
}

// Backend is how the device holds its node; it has none while the drive is
// empty.
func (dr *Drive) Backend() *block.Backend { return dr.backend }

// QDev is what query-block calls the device: its id, or its path if it has
// none (that of a virtio disk's inner device).
func (dr *Drive) QDev() string { return dr.device.name() }

// Removable tells whether the medium can be changed. Only such drives have a
// tray, and only theirs can be locked.
func (dr *Drive) Removable() bool { return dr.removable }

// Locked tells whether the guest keeps the tray closed. No guest is there.
func (dr *Drive) Locked() bool { return false }

// TrayOpen tells whether the tray of a removable drive is open.
func (dr *Drive) TrayOpen() bool { return false }

// IOStatus is the io-status of query-block, which exists only if an I/O error
// can stop the machine (ok is false otherwise). No guest makes requests, so
// there are no errors.
func (dr *Drive) IOStatus() (status string, ok bool) {
	switch dr.device.get("werror") {
	case "stop", "enospc", "auto":
		return "ok", true
	}
	return "ok", dr.device.get("rerror") == "stop"
}

// AccountInvalid tells whether statistics include requests refused at once.
func (dr *Drive) AccountInvalid() bool { return dr.device.get("account-invalid") != "off" }

// AccountFailed tells whether statistics include requests that failed.
func (dr *Drive) AccountFailed() bool { return dr.device.get("account-failed") != "off" }

// BackendByQOM finds the backend of the device that a command names by its
// member "id": an id or a path. A virtio disk's is that of its inner device.
func (m *Machine) BackendByQOM(id string) (*block.Backend, error) {
	d, err := m.findDevice(id)
	if err != nil {
		return nil, err
	}
	if d.drive == nil {
		return nil, qerr.New("Device does not have a block device backend")
	}
	return d.drive.backend, nil
}
