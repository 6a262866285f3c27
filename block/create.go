package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// CreateArgs is what a driver's Create works with.
type CreateArgs struct {
	// Options are those left for the driver, without its name.
	Options *Options

	graph *Graph
}

// Graph is the graph on whose behalf the image is made.
func (a *CreateArgs) Graph() *Graph { return a.graph }

// CoCreate makes an image with a driver that can.
func (g *Graph) CoCreate(co *aio.Co, d *Driver, o *Options) error {
	o.Delete("driver")
	return d.Create(co, &CreateArgs{Options: o, graph: g})
}

// Has tells whether the options name a node.
func (a *CreateArgs) Has(name string) bool {
	return a.Options.Has(name) || a.Options.Sub(name, false).Len() > 0
}

// Use opens the node that the options name, or describe, and returns a backend
// with the given permissions on it, to be given back to [CreateArgs.Done].
func (a *CreateArgs) Use(co *aio.Co, name string, perm, shared Perm) (*Backend, error) {
	return onMain(a.graph, co, func(l *aio.Lock) (*Backend, error) {
		n, err := a.open(l, name)
		if err != nil {
			return nil, err
		}
		// The backend has a reference of its own.
		defer a.graph.Unref(l, n)
		return a.backend(l, n, perm, shared)
	})
}

// Node opens the node that the options name, or describe, to be given back to
// [CreateArgs.Unref].
func (a *CreateArgs) Node(co *aio.Co, name string) (*Node, error) {
	return onMain(a.graph, co, func(l *aio.Lock) (*Node, error) { return a.open(l, name) })
}

// Unref gives a node back.
func (a *CreateArgs) Unref(co *aio.Co, n *Node) {
	_, _ = onMain(a.graph, co, func(l *aio.Lock) (struct{}, error) {
		a.graph.Unref(l, n)
		return struct{}{}, nil
	})
}

// UseNode returns a backend with the given permissions on a node, to be given
// back to [CreateArgs.Done].
func (a *CreateArgs) UseNode(co *aio.Co, n *Node, perm, shared Perm) (*Backend, error) {
	return onMain(a.graph, co, func(l *aio.Lock) (*Backend, error) { return a.backend(l, n, perm, shared) })
}

// UseImage opens a node for the image that is being made, and returns a backend
// that writes to it and resizes it, to be given back to [CreateArgs.Done].
func (a *CreateArgs) UseImage(co *aio.Co, o *Options, flags Flags) (*Backend, error) {
	return onMain(a.graph, co, func(l *aio.Lock) (*Backend, error) {
		n, err := a.graph.openNode(l, &openRequest{options: o, flags: flags})
		if err != nil {
			return nil, err
		}
		defer a.graph.Unref(l, n)
		return a.backend(l, n, PermConsistentRead|PermWrite|PermResize, PermAll)
	})
}

func (a *CreateArgs) backend(l *aio.Lock, n *Node, perm, shared Perm) (*Backend, error) {
	b := a.graph.NewBackend("", perm, shared)
	b.AllowWriteBeyondEOF = true
	if err := b.Insert(l, n); err != nil {
		b.Close(l)
		return nil, err
	}
	return b, nil
}

// open finds the node that the options name, or opens the one they describe.
func (a *CreateArgs) open(l *aio.Lock, name string) (*Node, error) {
	r := &openRequest{options: a.Options.Sub(name, true), flags: FlagRDWR}
	if ref, ok := a.Options.Get(name); ok {
		text := ref.String()
		r.reference = &text
		a.Options.Delete(name)
	}
	if r.reference == nil && r.options.Len() == 0 {
		return nil, qerr.New("A block device must be specified for \"%s\"", name)
	}
	if r.reference == nil {
		r.options.setRootDefaults()
	}
	return a.graph.openNode(l, r)
}

// Done gives a backend back.
func (a *CreateArgs) Done(co *aio.Co, b *Backend) {
	_, _ = onMain(a.graph, co, func(l *aio.Lock) (struct{}, error) {
		b.Close(l)
		return struct{}{}, nil
	})
}

// Amender returns the node's ability to change options of its image, nil if it
// has none.
func (n *Node) Amender() Amender {
	a, _ := n.instance.(Amender)
	return a
}

// RefreshPerms computes anew what the node takes of its children, for a driver
// whose needs have changed.
func (n *Node) RefreshPerms(l *aio.Lock) error {
	return n.graph.Write(l, "permissions of "+n.name, func(w *Write) error { return w.refreshPerms(nil, n) })
}
