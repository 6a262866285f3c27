package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

func (i *Instance) blockCommit(l *aio.Lock, a *schema.BlockCommitArguments) error {
	n, err := i.graph.LookupRoot(a.Device)
	if err != nil {
		if i.graph.Node(a.Device) == nil {
			return qerr.WithClass(qerr.DeviceNotFound, "Device '%s' not found", a.Device)
		}
		return err
	}
	if err := n.CheckBlocked(block.BlockOpCommitSource); err != nil {
		return err
	}
	p := jobs.CommitParams{
		Params:       jobParams(a.JobId, a.AutoFinalize, a.AutoDismiss),
		Graph:        i.graph,
		Node:         n,
		BackingFile:  a.BackingFile,
		MaskProtocol: deref(a.BackingMaskProtocol),
		Speed:        deref(a.Speed),
		Errors:       errorPolicy(a.OnError),
		FilterName:   a.FilterNodeName,
	}
	if p.Top, err = i.commitTop(n, a); err != nil {
		return err
	}
	if p.Base, err = i.commitBase(p.Top, a); err != nil {
		return err
	}
	j, err := i.jobs.CreateCommit(l, p)
	if err != nil {
		return err
	}
	j.Start(l)
	return nil
}

// commitTop finds the highest image that is written down.
func (i *Instance) commitTop(n *block.Node, a *schema.BlockCommitArguments) (*block.Node, error) {
	top := n
	switch {
	case a.TopNode != nil && a.Top != nil:
		return nil, qerr.New("'top-node' and 'top' are mutually exclusive")
	case a.TopNode != nil:
		named, err := i.graph.Lookup("", *a.TopNode)
		if err != nil {
			return nil, err
		}
		if !named.InChain(n) {
			return nil, qerr.New("'%s' is not in this backing file chain", *a.TopNode)
		}
		top = named
	case a.Top != nil && *a.Top != n.ShownFilename():
		if top = n.FindBackingImage(*a.Top); top == nil {
			return nil, qerr.New("Top image file %s not found", *a.Top)
		}
	}
	return top, nil
}

// commitBase finds the image that gets the data.
func (i *Instance) commitBase(top *block.Node, a *schema.BlockCommitArguments) (*block.Node, error) {
	switch {
	case a.BaseNode != nil && a.Base != nil:
		return nil, qerr.New("'base-node' and 'base' are mutually exclusive")
	case a.BaseNode != nil:
		base, err := i.graph.Lookup("", *a.BaseNode)
		if err != nil {
			return nil, err
		}
		if !base.InChain(top) {
			return nil, qerr.New("'%s' is not in this backing file chain", *a.BaseNode)
		}
		return base, nil
	case a.Base != nil:
		base := top.FindBackingImage(*a.Base)
		if base == nil {
			return nil, qerr.New("Can't find '%s' in the backing chain", *a.Base)
		}
		return base, nil
	}
	return top.FindBase(), nil
}
