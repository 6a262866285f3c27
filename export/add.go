package export

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Add makes an export. What is checked first is reported first, in the
// reference's order: the id, the node, the iothread, permissions, the kind's
// own options.
func (s *Set) Add(l *aio.Lock, o *Options) error {
	n, err := s.check(o)
	if err != nil {
		return err
	}
	if err := s.moveNode(l, n, o); err != nil {
		return err
	}
	if !o.AllowInactive {
		if err := n.SetActive(l, true); err != nil {
			return err
		}
	}
	e := s.newExport(o)
	if err := e.backend.Insert(l, n); err != nil {
		e.backend.Close(l)
		return err
	}
	if err := e.kind.create(l, e, o); err != nil {
		e.backend.Close(l)
		return err
	}
	s.exports = append(s.exports, e)
	return nil
}

// check finds the mistakes that show before anything is changed.
func (s *Set) check(o *Options) (*block.Node, error) {
	switch {
	case !block.WellFormedID(o.ID):
		return nil, qerr.New("Invalid block export id")
	case s.find(o.ID) != nil:
		return nil, qerr.New("Block export id '%s' is already in use", o.ID)
	case s.kinds[o.Type] == nil:
		return nil, qerr.New("Block export type '%s' is not supported", o.Type)
	}
	n, err := s.cfg.Graph.Lookup("", o.NodeName)
	if err != nil {
		return nil, err
	}
	if o.Writable && n.ReadOnly() {
		return nil, qerr.New("Cannot export read-only node as writable")
	}
	return n, nil
}

// moveNode brings the node to the iothread that was asked for. That another
// user keeps it where it is matters only if the iothread is to be fixed.
func (s *Set) moveNode(l *aio.Lock, n *block.Node, o *Options) error {
	if o.IOThread == nil {
		return nil
	}
	ctx := s.cfg.IOThread(*o.IOThread)
	if ctx == nil {
		return qerr.New("iothread \"%s\" not found", *o.IOThread)
	}
	if err := n.SetContext(l, ctx); err != nil && o.FixedIOThread {
		return err
	}
	return nil
}

// newExport makes an export with nothing in it.
func (s *Set) newExport(o *Options) *Export {
	b := s.cfg.Graph.NewBackend("", perms(o.Writable), block.PermAll)
	b.SetWriteCache(!o.WriteThrough)
	b.AllowInactive = o.AllowInactive
	b.FixedContext = o.FixedIOThread
	e := &Export{set: s, id: o.ID, typ: o.Type, backend: b, writable: o.Writable, kind: s.kinds[o.Type]()}
	e.refs.n.Store(1)
	return e
}

// perms are what an export takes of its node.
func perms(writable bool) block.Perm {
	if writable {
		return block.PermConsistentRead | block.PermWrite
	}
	return block.PermConsistentRead
}

// keepSize lets nobody resize the node: for kinds whose clients are told its
// length once.
func (e *Export) keepSize(l *aio.Lock) error {
	return e.backend.SetPerm(l, perms(e.writable), block.PermAll&^block.PermResize)
}
