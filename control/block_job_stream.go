package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBlockJobStream registers the jobs that shorten chains.
func (i *Instance) registerBlockJobStream(t *schema.Table) {
	t.BlockStream(actionWith(i, i.blockStream))
	t.BlockCommit(actionWith(i, i.blockCommit))
}

func (i *Instance) blockStream(l *aio.Lock, a *schema.BlockStreamArguments) error {
	switch {
	case a.Base != nil && a.BaseNode != nil:
		return qerr.New("'base' and 'base-node' cannot be specified at the same time")
	case a.Base != nil && a.Bottom != nil:
		return qerr.New("'base' and 'bottom' cannot be specified at the same time")
	case a.Bottom != nil && a.BaseNode != nil:
		return qerr.New("'bottom' and 'base-node' cannot be specified at the same time")
	}
	n, err := i.graph.Lookup(a.Device, a.Device)
	if err != nil {
		return err
	}
	p := jobs.StreamParams{
		Params:       jobParams(a.JobId, a.AutoFinalize, a.AutoDismiss),
		Graph:        i.graph,
		Node:         n,
		BackingFile:  a.BackingFile,
		MaskProtocol: deref(a.BackingMaskProtocol),
		Speed:        deref(a.Speed),
		Errors:       errorPolicy(a.OnError),
		FilterName:   deref(a.FilterNodeName),
	}
	if p.Base, err = i.streamBase(n, a); err != nil {
		return err
	}
	if p.Bottom, err = i.streamBottom(n, a); err != nil {
		return err
	}
	j, err := i.jobs.CreateStream(l, p)
	if err != nil {
		return err
	}
	j.Start(l)
	return nil
}

// streamBase finds the image whose data is not copied any more, nil if there is
// none.
func (i *Instance) streamBase(n *block.Node, a *schema.BlockStreamArguments) (*block.Node, error) {
	switch {
	case a.Base != nil:
		base := n.FindBackingImage(*a.Base)
		if base == nil {
			return nil, qerr.New("Can't find '%s' in the backing chain", *a.Base)
		}
		return base, nil
	case a.BaseNode != nil:
		base, err := i.graph.Lookup("", *a.BaseNode)
		if err != nil {
			return nil, err
		}
		if base == n || !base.InChain(n) {
			return nil, qerr.New("Node '%s' is not a backing image of '%s'", *a.BaseNode, a.Device)
		}
		return base, nil
	}
	return nil, nil
}

// streamBottom finds the last image whose data is copied, nil if the command
// does not name it.
func (i *Instance) streamBottom(n *block.Node, a *schema.BlockStreamArguments) (*block.Node, error) {
	if a.Bottom == nil {
		return nil, nil
	}
	bottom, err := i.graph.Lookup("", *a.Bottom)
	switch {
	case err != nil:
		return nil, err
	case bottom.Driver().Kind == block.Filter:
		return nil, qerr.New("Node '%s' is a filter, use a non-filter node as 'bottom'", *a.Bottom)
	case !bottom.InChain(n):
		return nil, qerr.New("Node '%s' is not in a chain starting from '%s'", *a.Bottom, a.Device)
	}
	return bottom, nil
}
