package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBlockSnapshot registers the commands around overlays.
func (i *Instance) registerBlockSnapshot(t *schema.Table) {
	t.BlockdevSnapshot(actionWith(i, func(l *aio.Lock, a *schema.BlockdevSnapshot) error {
		return i.transact(l, snapshotAction{a})
	}))
	t.BlockdevSnapshotSync(actionWith(i, func(l *aio.Lock, a *schema.BlockdevSnapshotSync) error {
		return i.transact(l, snapshotSyncAction{a})
	}))
	t.ChangeBackingFile(actionWith(i, i.changeBackingFile))
}

// defaultOverlayFormat is the format of an overlay if nobody chooses one.
const defaultOverlayFormat = "qcow2"

// snapshotAction puts a node over another one.
type snapshotAction struct{ *schema.BlockdevSnapshot }

func (a snapshotAction) prepare(l *aio.Lock, t *transaction) error {
	s, err := t.beginSnapshot(l, a.Node, a.Node)
	if err != nil {
		return err
	}
	overlay, err := t.graph.Lookup(a.Overlay, a.Overlay)
	if err != nil {
		return err
	}
	return s.append(l, overlay)
}

// snapshotSyncAction opens an overlay, and makes it first if need be.
type snapshotSyncAction struct{ *schema.BlockdevSnapshotSync }

func (a snapshotSyncAction) prepare(l *aio.Lock, t *transaction) error {
	s, err := t.beginSnapshot(l, deref(a.Device), deref(a.NodeName))
	if err != nil {
		return err
	}
	if err := a.checkName(t); err != nil {
		return err
	}
	o := block.Overlay{Filename: a.SnapshotFile, Format: defaultOverlayFormat, NodeName: a.SnapshotNodeName}
	if a.Format != nil {
		o.Format = *a.Format
	}
	if a.Mode == nil || *a.Mode == schema.NewImageModeAbsolutePaths {
		if err := s.create(l, o); err != nil {
			return err
		}
	}
	overlay, err := t.graph.OpenOverlay(l, s.node, o)
	if err != nil {
		return err
	}
	// If it is used it has other references by then; if not it goes.
	t.onClean(func(l *aio.Lock) { t.graph.Unref(l, overlay) })
	return s.append(l, overlay)
}

// checkName: whoever names a node has to name its overlay too.
func (a snapshotSyncAction) checkName(t *transaction) error {
	switch {
	case a.NodeName != nil && a.SnapshotNodeName == nil:
		return qerr.New("New overlay node-name missing")
	case a.SnapshotNodeName != nil && t.graph.Node(*a.SnapshotNodeName) != nil:
		return qerr.New("New overlay node-name already in use")
	}
	return nil
}

// snapshot is an external snapshot on its way.
type snapshot struct {
	t    *transaction
	node *block.Node
}

// beginSnapshot finds the node and keeps requests away from it until the
// transaction ends.
func (t *transaction) beginSnapshot(l *aio.Lock, device, name string) (*snapshot, error) {
	n, err := t.graph.Lookup(device, name)
	if err != nil {
		return nil, err
	}
	t.drain(l, n)
	if err := n.CheckBlocked(block.BlockOpExternalSnapshot); err != nil {
		return nil, err
	}
	if !n.ReadOnly() && n.Flush(l) != nil {
		return nil, qerr.New("An IO error has occurred")
	}
	return &snapshot{t, n}, nil
}

// create makes the overlay's image, as large as the node.
func (s *snapshot) create(l *aio.Lock, o block.Overlay) error {
	size, err := s.node.GetLength(l)
	if err != nil {
		return qerr.Prepend(err, "bdrv_getlength failed: ")
	}
	return s.t.graph.CreateImage(l, block.NewImage{
		Filename: o.Filename,
		Format:   o.Format,
		Size:     size,
		Backing:  block.ImageBacking{Filename: s.node.ShowFilename(), Format: s.node.Driver().Name},
	})
}

// append puts the overlay over the node. Who used the node waits for the end of
// the transaction: what was written to an overlay that is taken away again
// would be lost.
func (s *snapshot) append(l *aio.Lock, overlay *block.Node) error {
	perm, _ := overlay.Cumulative()
	switch {
	case perm&block.PermConsistentRead != 0:
		return qerr.New("The overlay is already in use")
	case overlay.Driver().Kind == block.Filter:
		return qerr.New("Filters cannot be used as overlays")
	case !overlay.Driver().SupportsBacking:
		return qerr.New("The overlay does not support backing images")
	case overlay.Backing() != nil:
		return qerr.New("The overlay already has a backing image")
	}
	if !s.node.Active() {
		// An overlay that is in use cannot rest on what another process writes;
		// it stays handed over, whatever becomes of the transaction.
		if err := overlay.SetActive(l, false); err != nil {
			return err
		}
	}
	s.t.drain(l, overlay)
	appended, err := s.t.graph.Append(l, overlay, s.node)
	if err != nil {
		return err
	}
	s.t.onAbort(appended.Undo)
	s.t.onCommit(func(l *aio.Lock) {
		// A backing file is not written to. Drivers that cannot be reopened stay
		// as they are.
		_ = s.node.SetReadOnly(l, true)
	})
	return nil
}

// changeBackingFile changes what an image says of its backing file. The format
// that it says is its own, whatever the backing file's is (observed:
// own/snapshots/change-backing-file).
func (i *Instance) changeBackingFile(l *aio.Lock, a *schema.ChangeBackingFileArguments) (err error) {
	top, err := i.graph.LookupRoot(a.Device)
	if err != nil {
		return err
	}
	n, err := i.graph.Lookup("", a.ImageNodeName)
	switch {
	case err != nil:
		return err
	case n.FilterOrCow() == nil:
		return qerr.New("not allowing backing file change on an image without a backing file")
	case !n.InChain(top):
		return qerr.New("'%s' and image file are not in the same chain", a.Device)
	}
	if err := top.CheckBlocked(block.BlockOpChange); err != nil {
		return err
	}
	if n.ReadOnly() {
		if err := n.SetReadOnly(l, false); err != nil {
			return err
		}
		defer func() {
			if e := n.SetReadOnly(l, true); err == nil {
				err = e
			}
		}()
	}
	backing := block.ImageBacking{Filename: a.BackingFile, Format: n.Driver().Name}
	if err := n.ChangeBackingFile(l, backing); err != nil {
		return qerr.Prepend(err, "Could not change backing file to '%s': ", a.BackingFile)
	}
	return nil
}
