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

// rootNode finds a node that is no part of another one.
func (i *Instance) rootNode(name string) (*block.Node, error) {
	n, err := i.graph.Lookup(name, name)
	if err != nil {
		return nil, err
	}
	part := false
	n.Parents(func(c *block.Child) bool {
		part = c.ParentNode() != nil
		return !part
	})
	if part && !n.MonitorOwned() {
		return nil, qerr.New("Need a root block node")
	}
	return n, nil
}

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

func (i *Instance) blockdevSnapshotInternal(l *aio.Lock, a *schema.BlockdevSnapshotInternal) error {
	n, err := i.rootNode(a.Device)
	if err != nil {
		return err
	}
	if n.ReadOnly() {
		return qerr.New("Device '%s' is read only", a.Device)
	}
	if _, ok := n.Instance().(block.Snapshotter); !ok {
		return qerr.New("Block format '%s' used by device '%s' does not support internal snapshots", n.Driver().Name, a.Device)
	}
	if a.Name == "" {
		return qerr.New("Name is empty")
	}
	s, list, err := snapshotsOf(l, n)
	if err != nil {
		return err
	}
	for _, have := range list {
		if have.Name == a.Name {
			return qerr.New("Snapshot with name '%s' already exists on device '%s'", a.Name, a.Device)
		}
	}
	now := time.Now()
	info := block.SnapshotInfo{
		Name: a.Name[:min(len(a.Name), maxSnapshotName)], DateSec: uint32(now.Unix()), DateNsec: uint32(now.Nanosecond() / 1000 * 1000),
		VMClockNsec: uint64(now.UnixNano()), Icount: 1<<64 - 1,
	}
	n.DrainedBegin(l)
	defer n.DrainedEnd()
	_, err = aio.Mixed(l, n.Context(), "snapshot_create", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, s.CoSnapshotCreate(co, info)
	})
	if err != nil {
		return qerr.Prepend(err, "Failed to create snapshot '%s' on device '%s': ", a.Name, a.Device)
	}
	return nil
}

func (i *Instance) blockdevSnapshotDeleteInternal(l *aio.Lock, a *schema.BlockdevSnapshotDeleteInternalSyncArguments) (*schema.SnapshotInfo, error) {
	n, err := i.rootNode(a.Device)
	if err != nil {
		return nil, err
	}
	if a.Id == nil && a.Name == nil {
		return nil, qerr.New("Name or id must be provided")
	}
	s, list, err := snapshotsOf(l, n)
	if err != nil {
		return nil, err
	}
	for _, have := range list {
		if a.Id != nil && *a.Id != have.ID || a.Name != nil && *a.Name != have.Name {
			continue
		}
		n.DrainedBegin(l)
		defer n.DrainedEnd()
		_, err := aio.Mixed(l, n.Context(), "snapshot_delete", func(co *aio.Co) (struct{}, error) {
			return struct{}{}, s.CoSnapshotDelete(co, have.ID)
		})
		return snapshotInfo(have), err
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
