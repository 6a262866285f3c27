package control

import (
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// maxSnapshotName bounds the name of a snapshot; the rest is cut off, as in
// the reference.
const maxSnapshotName = 255

// snapshotsOf lists the snapshots in an image that can have some.
func snapshotsOf(l *aio.Lock, n *block.Node) (block.Snapshotter, []block.SnapshotInfo, error) {
	s, ok := n.Instance().(block.Snapshotter)
	if !ok || !s.CanSnapshot() {
		return nil, nil, qerr.New("Failed to get a snapshot list: Operation not supported")
	}
	list, err := aio.Mixed(l, n.Context(), "snapshot_list", func(co *aio.Co) ([]block.SnapshotInfo, error) {
		return s.Snapshots(co), nil
	})
	return s, list, err
}

// snapshotNode is the node whose image holds the snapshots of another one: of
// those that only pass data on it is the one below.
func snapshotNode(n *block.Node) *block.Node {
	for {
		_, able := n.Instance().(block.Snapshotter)
		below := n.PrimaryChild()
		if able || below == nil || len(n.Children()) > 1 {
			return n
		}
		n = below.Node()
	}
}

func (i *Instance) blockdevSnapshotInternal(l *aio.Lock, a *schema.BlockdevSnapshotInternal) error {
	return i.transact(l, internalSnapshotAction{a})
}

// internalSnapshotAction takes a snapshot within an image.
type internalSnapshotAction struct {
	*schema.BlockdevSnapshotInternal
}

func (a internalSnapshotAction) prepare(l *aio.Lock, t *transaction) error {
	top, err := t.graph.LookupRoot(a.Device)
	if err != nil {
		return err
	}
	t.drain(l, top)
	if err := top.CheckBlocked(block.BlockOpInternalSnapshot); err != nil {
		return err
	}
	if top.ReadOnly() {
		return qerr.New("Device '%s' is read only", a.Device)
	}
	n := snapshotNode(top)
	if _, ok := n.Instance().(block.Snapshotter); !ok {
		return qerr.New("Block format '%s' used by device '%s' does not support internal snapshots", top.Driver().Name, a.Device)
	}
	if a.Name == "" {
		return qerr.New("Name is empty")
	}
	s, list, err := snapshotsOf(l, n)
	if err != nil {
		return err
	}
	if findSnapshot(list, nil, &a.Name) != nil {
		return qerr.New("Snapshot with name '%s' already exists on device '%s'", a.Name, a.Device)
	}
	_, err = aio.Mixed(l, n.Context(), "snapshot_create", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, s.CoSnapshotCreate(co, newSnapshot(a.Name))
	})
	if err != nil {
		return qerr.Prepend(err, "Failed to create snapshot '%s' on device '%s': ", a.Name, a.Device)
	}
	t.onAbort(func(l *aio.Lock) { dropSnapshot(l, n, list) })
	return nil
}

func newSnapshot(name string) block.SnapshotInfo {
	now := time.Now()
	return block.SnapshotInfo{
		Name: name[:min(len(name), maxSnapshotName)], DateSec: uint32(now.Unix()), DateNsec: uint32(now.Nanosecond() / 1000 * 1000),
		VMClockNsec: uint64(now.UnixNano()), Icount: 1<<64 - 1,
	}
}

// dropSnapshot deletes what is not in the list of before. If the image cannot
// be written to any more, it stays for the user to delete.
func dropSnapshot(l *aio.Lock, n *block.Node, before []block.SnapshotInfo) {
	s, list, err := snapshotsOf(l, n)
	if err != nil {
		return
	}
	for _, have := range list {
		if findSnapshot(before, &have.ID, nil) == nil {
			_ = deleteSnapshot(l, n, s, have.ID)
		}
	}
}

func deleteSnapshot(l *aio.Lock, n *block.Node, s block.Snapshotter, id string) error {
	_, err := aio.Mixed(l, n.Context(), "snapshot_delete", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, s.CoSnapshotDelete(co, id)
	})
	return err
}

// findSnapshot finds one by its ID, or its name, or both.
func findSnapshot(list []block.SnapshotInfo, id, name *string) *block.SnapshotInfo {
	for k := range list {
		have := &list[k]
		if (id == nil || *id == have.ID) && (name == nil || *name == have.Name) {
			return have
		}
	}
	return nil
}

func (i *Instance) blockdevSnapshotDeleteInternal(l *aio.Lock, a *schema.BlockdevSnapshotDeleteInternalSyncArguments) (*schema.SnapshotInfo, error) {
	top, err := i.graph.LookupRoot(a.Device)
	if err != nil {
		return nil, err
	}
	if err := top.CheckBlocked(block.BlockOpInternalSnapshotDelete); err != nil {
		return nil, err
	}
	if a.Id == nil && a.Name == nil {
		return nil, qerr.New("Name or id must be provided")
	}
	n := snapshotNode(top)
	s, list, err := snapshotsOf(l, n)
	if err != nil {
		return nil, err
	}
	if have := findSnapshot(list, a.Id, a.Name); have != nil {
		top.DrainedBegin(l)
		defer top.DrainedEnd()
		return snapshotInfo(*have), deleteSnapshot(l, n, s, have.ID)
	}
	return nil, qerr.New("Snapshot with id '%s' and name '%s' does not exist on device '%s'", orNull(a.Id), orNull(a.Name), a.Device)
}

// orNull is how messages of the reference print an argument that may be
// missing.
func orNull(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}
