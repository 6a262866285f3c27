package devices

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// RunState says whether the machine runs, and why not, in the words of the
// QAPI type RunState.
type RunState string

// The states a machine without a guest can have.
const (
	Prelaunch RunState = "prelaunch"
	Running   RunState = "running"
	Paused    RunState = "paused"
)

// Status is the machine's state.
func (m *Machine) Status() RunState { return m.status }

// Stop pauses the machine if it runs, and makes everything durable in any
// case. That the latter can fail is no concern of the command stop.
func (m *Machine) Stop(l *aio.Lock) {
	if m.status == Running {
		m.status = Paused
		m.emit(Event{Kind: Stop})
	}
	m.flushAll(l)
}

// flushAll waits for all requests under way and flushes every node.
func (m *Machine) flushAll(l *aio.Lock) {
	var nodes []*block.Node
	m.cfg.Graph.NodesOldestFirst(func(n *block.Node) bool {
		nodes = append(nodes, n)
		return true
	})
	for _, n := range nodes {
		n.DrainedBegin(l)
		n.DrainedEnd()
		// Each node's users learn of a failing flush from their own.
		_ = n.Flush(l)
	}
}

// Cont starts the machine or lets it go on: it takes back the nodes that
// other processes have, and lets go what the guest was asked to release.
func (m *Machine) Cont(l *aio.Lock) error {
	if m.status == Running {
		return nil
	}
	if err := m.activateAll(l); err != nil {
		return err
	}
	m.status = Running
	m.emit(Event{Kind: Resume})
	m.ejectLeaving(l)
	return nil
}

func (m *Machine) activateAll(l *aio.Lock) error {
	var inactive []*block.Node
	m.cfg.Graph.NodesOldestFirst(func(n *block.Node) bool {
		if !n.Active() {
			inactive = append(inactive, n)
		}
		return true
	})
	for _, n := range inactive {
		if err := n.SetActive(l, true); err != nil {
			return err
		}
	}
	for e := m.drives.Back(); e != nil; e = e.Prev() {
		if err := e.Value.(*Drive).wake(l); err != nil {
			return err
		}
	}
	return nil
}
