package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBlockCore registers the commands of block-core that change nodes.
func (i *Instance) registerBlockCore(t *schema.Table) {
	t.BlockdevAdd(actionWith(i, i.blockdevAdd))
	t.BlockdevDel(actionWith(i, i.blockdevDel))
	t.BlockdevReopen(actionWith(i, i.blockdevReopen))
	t.BlockdevSetActive(actionWith(i, i.blockdevSetActive))
	t.BlockResize(actionWith(i, i.blockResize))
	t.BlockSetWriteThreshold(actionWith(i, i.blockSetWriteThreshold))
	t.XBlockdevChange(actionWith(i, i.blockdevChange))
	t.XBlockdevSetIothread(actionWith(i, i.blockdevSetIothread))
	t.BlockdevSnapshotInternalSync(actionWith(i, i.blockdevSnapshotInternal))
	t.BlockdevSnapshotDeleteInternalSync(queryWith(i, i.blockdevSnapshotDeleteInternal))
	t.Emits(&schema.BlockWriteThresholdEvent{})
	t.Emits(&schema.BlockImageCorruptedEvent{})
	t.Emits(&schema.QuorumFailureEvent{})
	t.Emits(&schema.QuorumReportBadEvent{})
}

// nodeOptions flattens typed options for the block layer. The way leads
// through JSON, as in the reference: what was decoded is printed in full, so
// that every layer below sees the same names.
func nodeOptions(o *schema.BlockdevOptions) (*block.Options, error) {
	return flatten(o.AppendJSON(nil))
}

func (i *Instance) blockdevAdd(l *aio.Lock, a *schema.BlockdevOptions) error {
	o, err := nodeOptions(a)
	if err != nil {
		return err
	}
	_, err = i.graph.AddNode(l, o)
	return err
}

func (i *Instance) blockdevDel(l *aio.Lock, a *schema.BlockdevDelArguments) error {
	return i.graph.DeleteNode(l, a.NodeName)
}

func (i *Instance) blockdevReopen(l *aio.Lock, a *schema.BlockdevReopenArguments) error {
	if len(a.Options) == 0 {
		// The reference dies of it.
		return qerr.New("Parameter 'options' expects at least one node")
	}
	var all []*block.Options
	for _, options := range a.Options {
		o, err := nodeOptions(options)
		if err != nil {
			return err
		}
		all = append(all, o)
	}
	return i.graph.Reopen(l, all)
}

// blockdevSetActive hands one node over to another process or takes it back;
// without a name it does so with all of them.
func (i *Instance) blockdevSetActive(l *aio.Lock, a *schema.BlockdevSetActiveArguments) error {
	if a.NodeName == nil {
		return i.graph.SetAllActive(l, a.Active)
	}
	n, err := i.graph.FindNode(*a.NodeName)
	if err != nil {
		return err
	}
	return n.SetActive(l, a.Active)
}

// blockResize resizes through a backend of its own, which takes the permission
// to resize and nothing else.
func (i *Instance) blockResize(l *aio.Lock, a *schema.BlockResizeArguments) error {
	n, err := i.graph.Lookup(deref(a.Device), deref(a.NodeName))
	if err != nil {
		return err
	}
	if a.Size < 0 {
		return qerr.New("Parameter 'size' expects a >0 size")
	}
	if err := n.CheckBlocked(block.BlockOpResize); err != nil {
		return err
	}
	b := i.graph.NewBackend("", block.PermResize, block.PermAll)
	defer b.Close(l)
	if err := b.Insert(l, n); err != nil {
		return err
	}
	n.DrainedBegin(l)
	defer n.DrainedEnd()
	return b.Root().Truncate(l, a.Size, false, block.PreallocOff, 0)
}

func (i *Instance) blockSetWriteThreshold(_ *aio.Lock, a *schema.BlockSetWriteThresholdArguments) error {
	n := i.graph.Node(a.NodeName)
	if n == nil {
		return qerr.New("Device '%s' not found", a.NodeName)
	}
	n.SetWriteThreshold(a.WriteThreshold)
	return nil
}

// blockdevChange adds a child to a node, or takes one away. Jobs rest once for
// the command, and those that use the parent again when it gets a child
// (observed: own/quorum/drains).
func (i *Instance) blockdevChange(l *aio.Lock, a *schema.XBlockdevChangeArguments) error {
	i.graph.DrainAllBegin(l)
	parent, child, node, err := i.findChildChange(a)
	if err == nil && child != nil {
		err = parent.RemoveChild(l, child)
	}
	i.graph.DrainAllEnd(l)
	if err != nil || node == nil {
		return err
	}
	return parent.AddChild(l, node)
}

// findChildChange finds a node, and the child to take away or the node to add.
func (i *Instance) findChildChange(a *schema.XBlockdevChangeArguments) (parent *block.Node, child *block.Child, node *block.Node, err error) {
	if parent, err = i.graph.Lookup(a.Parent, a.Parent); err != nil {
		return nil, nil, nil, err
	}
	switch {
	case a.Child == nil && a.Node == nil:
		err = qerr.New("Either child or node must be specified")
	case a.Child != nil && a.Node != nil:
		err = qerr.New("The parameters child and node are in conflict")
	case a.Child != nil:
		if child = parent.Child(*a.Child); child == nil {
			err = qerr.New("Node '%s' does not have child '%s'", a.Parent, *a.Child)
		}
	default:
		if node = i.graph.Node(*a.Node); node == nil {
			err = qerr.New("Node '%s' not found", *a.Node)
		}
	}
	return parent, child, node, err
}

// blockdevSetIothread moves a node to an iothread's context, or back to the
// main one.
func (i *Instance) blockdevSetIothread(l *aio.Lock, a *schema.XBlockdevSetIothreadArguments) error {
	n, err := i.graph.FindNode(a.NodeName)
	if err != nil {
		return err
	}
	if !deref(a.Force) && n.HasBackend() {
		return qerr.New("Node %s is associated with a BlockBackend and could be in use (use force=true to override this check)", a.NodeName)
	}
	if a.Iothread.S == nil {
		return n.SetContext(l, i.graph.Main())
	}
	ctx := i.iothreadContext(*a.Iothread.S)
	if ctx == nil {
		return qerr.New("Cannot find iothread %s", *a.Iothread.S)
	}
	return n.SetContext(l, ctx)
}

// deref is the value of an optional member, or its type's zero value.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
