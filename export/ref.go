package export

import (
	"slices"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block/aio"
)

// refCount counts who holds an export: its user and each client.
type refCount struct{ n atomic.Int64 }

// ref is called for each client that connects. It may be called from any
// goroutine that holds a reference already, or by the main context.
func (e *Export) ref() { e.refs.n.Add(1) }

// unref gives a reference back, from any goroutine. With the last one the
// main context will delete the export.
func (e *Export) unref() {
	if e.refs.n.Add(-1) > 0 {
		return
	}
	main := e.set.cfg.Graph.Main()
	main.Post(e.set.reap)
	main.Kick()
}

// hasClients tells whether somebody but the user holds the export.
func (e *Export) hasClients() bool {
	n := e.refs.n.Load()
	if !e.shutting {
		n--
	}
	return n > 0
}

// reap deletes the exports that nobody holds any more.
func (s *Set) reap(l *aio.Lock) { s.reapThese(l, slices.Clone(s.exports)) }

// reapThese does so with some, in their order.
func (s *Set) reapThese(l *aio.Lock, exports []*Export) {
	for _, e := range exports {
		if !e.held && !e.deleting && e.refs.n.Load() == 0 {
			e.delete(l)
		}
	}
}

// delete ends an export. The lock is released while the node is drained, so
// the export leaves the list last.
func (e *Export) delete(l *aio.Lock) {
	s := e.set
	e.deleting = true
	e.kind.delete(l)
	e.backend.Close(l)
	s.exports = slices.DeleteFunc(s.exports, func(other *Export) bool { return other == e })
	s.cfg.Deleted(e.id)
}
