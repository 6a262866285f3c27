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
	e.set.cfg.Graph.Main().Post(e.set.reapPosted)
}

// hasClients tells whether somebody but the user holds the export.
func (e *Export) hasClients() bool {
	n := e.refs.n.Load()
	if !e.shutting {
		n--
	}
	return n > 0
}

// reap deletes the exports that nobody holds any more. Users hear of it when the
// last of them is gone (observed: own/export/drains).
func (s *Set) reap(l *aio.Lock) {
	aio.WaitWhile(l, func() bool { return s.reaping })
	s.reapPosted(l)
}

// reapPosted is reap for functions posted to the main context, which may run
// while somebody deletes an export, and leave the rest to him.
func (s *Set) reapPosted(l *aio.Lock) {
	if s.reaping {
		return
	}
	s.reaping = true
	var deleted []string
	for e := s.nextDead(); e != nil; e = s.nextDead() {
		e.delete(l)
		deleted = append(deleted, e.id)
	}
	for _, id := range deleted {
		s.cfg.Deleted(id)
	}
	s.reaping = false
	l.Context().Kick()
}

// nextDead finds an export to be deleted.
func (s *Set) nextDead() *Export {
	for _, e := range s.leaving {
		if !e.held && e.refs.n.Load() == 0 {
			return e
		}
	}
	return nil
}

// delete ends an export. The lock is released while the node is drained, so
// the export leaves the list last.
func (e *Export) delete(l *aio.Lock) {
	s := e.set
	e.kind.delete(l)
	e.backend.Close(l)
	is := func(other *Export) bool { return other == e }
	s.exports = slices.DeleteFunc(s.exports, is)
	s.leaving = slices.DeleteFunc(s.leaving, is)
}
