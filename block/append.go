package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
)

// Appended is a node that was put over another one, as long as that may have to
// be undone.
type Appended struct {
	over, below *Node
	child       string
	moved       []movedEdge
}

// Append puts a node over another one: the lower one becomes its backing file,
// or its filtered child, and its users become the upper one's. The upper one
// must not have such a child yet.
func (g *Graph) Append(l *aio.Lock, over, below *Node) (*Appended, error) {
	defer drainBoth(l, below, over)()
	a := &Appended{over: over, below: below, child: optFile}
	role := RoleFilter
	if over.drv.Kind != Filter {
		role = RoleCOW
	}
	if over.drv.Kind != Filter || over.drv.FilterThroughBacking {
		a.child = optBacking
	}
	err := g.Write(l, "append "+over.name, func(w *Write) (err error) {
		// The upper one goes where the users are.
		_ = w.tryMove(over, below.Context())
		below.ref()
		w.onAbort(func() { below.refs-- })
		if err := w.attachAs(over, below, a.child, role, nil); err != nil {
			return err
		}
		if a.moved, err = w.moveParents(below, over); err != nil {
			return err
		}
		if err := w.refreshPerms(nil, below, over); err != nil {
			return err
		}
		limits := over.limits
		w.onAbort(func() { over.limits = limits })
		return over.refreshLimits()
	})
	if err != nil {
		return nil, err
	}
	over.show()
	return a, nil
}

// Undo gives the lower node its users back, in the places where they were, and
// takes it from the upper one.
func (a *Appended) Undo(l *aio.Lock) {
	over, below := a.over, a.below
	defer drainBoth(l, below, over)()
	over.graph.DrainAll(l) // for each of the two changes
	// It was so before, and nobody has used more of it since.
	_ = over.graph.Write(l, "take "+over.name+" away", func(w *Write) error {
		w.hold(over)
		w.hold(below)
		for i := len(a.moved) - 1; i >= 0; i-- {
			m := a.moved[i]
			if m.child.node != over {
				// Its owner has let go meanwhile.
				continue
			}
			if m.before != nil && m.before.node != below {
				m.before = below.parents.head
			}
			if err := w.moveEdge(m.child, below, m.before); err != nil {
				return err
			}
		}
		w.detach(over.Child(a.child))
		return w.refreshPerms(nil, over, below)
	})
}

// DropFilter takes a filter out of the graph: its users become those of the
// node that it filters. Who still holds the filter has a node of which nothing
// can be asked.
func (g *Graph) DropFilter(l *aio.Lock, filter *Node) error {
	filtered := filter.filtered()
	defer drainBoth(l, filter, filtered.node)()
	err := g.Write(l, "drop "+filter.name, func(w *Write) error {
		to := filtered.node
		if _, err := w.moveParents(filter, to); err != nil {
			return err
		}
		w.detach(filtered)
		return w.refreshPerms(nil, filter, to)
	})
	if err != nil {
		return err
	}
	filter.Eject()
	if d, ok := filter.instance.(Dropper); ok {
		d.Dropped()
	}
	return nil
}
