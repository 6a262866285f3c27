package block

import (
	"slices"
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/trace"
)

// ReopenState is one node whose options are about to change.
type ReopenState struct {
	Node *Node
	// Flags are those the node will have.
	Flags Flags
	// Options are those the driver has not taken yet.
	Options *Options
	// Driver is what the driver keeps between prepare and commit or abort.
	Driver any

	options, explicit *Options
	forceShare        bool
	detectZeroes      DetectZeroes
	prepared          bool
	anew              bool // options left out return to their defaults
	forgotten         bool // no options were given
	replaced          []replacedChild
}

// replacedChild is a change of a child that the new options ask for.
type replacedChild struct {
	name string
	to   *Node // nil for none
}

// reopenStates finds the change that a node is about to undergo.
type reopenStates map[*Node]*ReopenState

// Reopen changes the options of nodes, all or none. Options left out return to
// their defaults. Each set of options names its node.
func (g *Graph) Reopen(l *aio.Lock, all []*Options) error {
	q := &reopenQueue{graph: g, lock: l, states: make(reopenStates)}
	defer q.endDrains()
	nodes := make([]*Node, len(all))
	for i, o := range all {
		n, err := g.reopenTarget(o)
		if err != nil {
			return err
		}
		nodes[i] = n
	}
	for i, o := range all {
		q.add(nodes[i], o, o.Clone(), false)
	}
	g.DrainAll(l)
	return q.run()
}

// SetReadOnly makes a node read-only or writable, and its inline children with
// it; all other options stay. It is a reopening in any case.
func (n *Node) SetReadOnly(l *aio.Lock, on bool) error {
	q := &reopenQueue{graph: n.graph, lock: l, states: make(reopenStates)}
	defer q.endDrains()
	options, explicit := NewOptions(), NewOptions()
	options.Set(optReadOnly, BoolOpt(on))
	explicit.Set(optReadOnly, BoolOpt(on))
	options.Merge(n.options)
	explicit.Merge(n.explicit)
	q.add(n, options, explicit, true)
	n.graph.DrainAll(l)
	return q.run()
}

func (g *Graph) reopenTarget(o *Options) (*Node, error) {
	name, ok := o.Get(optNodeName)
	if !ok {
		return nil, qerr.New("node-name not specified")
	}
	return g.FindNode(name.String())
}

// reopenQueue collects the nodes to reopen: those named and their inline
// children, parents first.
type reopenQueue struct {
	graph   *Graph
	lock    *aio.Lock
	order   []*ReopenState
	states  reopenStates
	drained []*Node
}

// add queues a node, or gives one that is queued already more options. With
// keep, options that are not given stay as they were.
func (q *reopenQueue) add(n *Node, options, explicit *Options, keep bool) {
	st := q.states[n]
	if st == nil {
		n.DrainedBegin(q.lock)
		q.drained = append(q.drained, n)
		st = &ReopenState{Node: n}
		q.order = append(q.order, st)
		q.states[n] = st
	}
	st.anew = st.anew || !keep
	options.Merge(st.options)
	explicit.Merge(st.explicit)
	if keep {
		nameChildren(n, options)
	}
	st.options, st.explicit = options, explicit
	for _, c := range n.children {
		q.addChild(st, c, keep)
	}
}

// addChild queues a child, if it is an inline one: it changes with its parent,
// from which it inherits. Options may describe it anew; if they only name it,
// those that it was given stay.
func (q *reopenQueue) addChild(st *ReopenState, c *Child, keep bool) {
	ref, isRef := st.options.Get(c.name)
	described := st.options.HasSub(c.name)
	inherits := c.node.inheritsFrom == st.Node
	switch {
	case inherits && described:
		o := st.options.Sub(c.name, true)
		st.options.Set(c.name, StringOpt(c.node.name))
		q.addInline(st, c, o, o.Clone(), false)
	case inherits && (keep || isRef && ref.String() == c.node.name):
		explicit := c.node.explicit
		if queued := q.states[c.node]; queued != nil {
			explicit = queued.explicit
		}
		q.addInline(st, c, explicit.Clone(), explicit, true)
	case inherits && !isRef && c.name != optBacking:
		// It is left without any options, which is a mistake of its own that
		// comes after those of the parent (observed with data-file).
		q.addInline(st, c, NewOptions(), NewOptions(), false)
		q.states[c.node].forgotten = true
	}
}

// nameChildren makes options that are kept name the children that the node has,
// which may be others than those it was opened with.
func nameChildren(n *Node, options *Options) {
	for _, name := range []string{optBacking, optFile} {
		c := n.Child(name)
		if c == nil {
			options.Sub(name, true)
		}
		ref, ok := options.Get(name)
		switch {
		case !ok || ref.Kind() != qjson.String && c == nil:
		case c == nil:
			options.Delete(name)
		default:
			options.Set(name, StringOpt(c.node.name))
		}
	}
}

// checkBackingNamed: a backing file that is not the one which the image names
// must be named again, be it a user's choice or a snapshot's doing; and so must
// none where the image names one.
func checkBackingNamed(st *ReopenState) error {
	n, options := st.Node, st.options
	if !st.anew || !n.drv.SupportsBacking || options.Has(optBacking) || options.HasSub(optBacking) {
		return nil
	}
	implicit := n.imageBacking.Filename == ""
	if n.backing != nil {
		chosen := n.explicit.Has(optBacking) || n.explicit.HasSub(optBacking)
		implicit = n.backing.node.inheritsFrom == n && !chosen
	}
	if !implicit {
		return qerr.New("%s is missing for '%s'", optBacking, n.name)
	}
	return nil
}

func (q *reopenQueue) addInline(st *ReopenState, c *Child, options, explicit *Options, keep bool) {
	inherit(options, st.options, c.role)
	if keep {
		options.Merge(c.node.options)
	}
	q.add(c.node, options, explicit, keep)
}

func (q *reopenQueue) endDrains() {
	for i := len(q.drained) - 1; i >= 0; i-- {
		q.drained[i].DrainedEnd()
	}
}

// run prepares every node, checks the permissions of what will be, and then
// commits, or aborts what was prepared.
func (q *reopenQueue) run() error {
	for _, st := range q.order {
		if err := q.flush(st.Node); err != nil {
			return err
		}
	}
	for _, st := range q.order {
		if err := q.prepare(st); err != nil {
			q.abort()
			return err
		}
	}
	err := q.graph.Write(q.lock, "reopen", func(w *Write) error { return q.apply(w) })
	if err != nil {
		q.abort()
		return err
	}
	return q.refresh()
}

// refresh brings lengths and limits up to date, children first: those of their
// parents depend on them.
func (q *reopenQueue) refresh() error {
	for i := len(q.order) - 1; i >= 0; i-- {
		n := q.order[i].Node
		err := q.graph.Write(q.lock, "limits of "+n.name, func(*Write) error { return n.refreshLimits() })
		if err != nil {
			return err
		}
		if err := n.RefreshTotalSectors(q.lock, 0); err != nil {
			return err
		}
		if f, ok := n.instance.(ReopenFinisher); ok {
			f.ReopenFinish(q.lock)
		}
	}
	return nil
}

// flush makes sure that nothing is lost if the node becomes read-only.
func (q *reopenQueue) flush(n *Node) error {
	if err := n.Flush(q.lock); err != nil {
		return qerr.Prepend(err, "Error flushing drive: ")
	}
	return nil
}

func (q *reopenQueue) abort() {
	for i := len(q.order) - 1; i >= 0; i-- {
		st := q.order[i]
		if r, ok := st.Node.instance.(Reopener); ok && st.prepared {
			r.ReopenAbort(st)
		}
	}
}

func (q *reopenQueue) apply(w *Write) error {
	var nodes []*Node
	for _, st := range q.order {
		st.Node.keepShown()
		nodes = append(nodes, st.Node)
		for _, r := range st.replaced {
			was, err := w.setChild(st.Node, r.to, r.name, st)
			if err != nil {
				return err
			}
			if was != nil {
				nodes = append(nodes, was)
			}
		}
	}
	if err := w.refreshPerms(q.states, nodes...); err != nil {
		return err
	}
	// The new flags must be in force when drivers set their permissions.
	w.commit = append([]func(){q.commit}, w.commit...)
	return nil
}

func (q *reopenQueue) commit() {
	for _, st := range q.order {
		n := st.Node
		if r, ok := n.instance.(Reopener); ok {
			r.ReopenCommit(st)
		}
		n.flags, n.forceShare, n.detectZeroes = st.Flags, st.forceShare, st.detectZeroes
		n.options, n.explicit = st.options, st.explicit
		n.extents.forgetAll()
		n.graph.tracer.At(trace.NodeReopen).Str("node", n.name).Send()
	}
}

// prepare lets the driver check the new options; nothing changes yet.
func (q *reopenQueue) prepare(st *ReopenState) error {
	n := st.Node
	if st.forgotten {
		return qerr.New("Option '%s' cannot be reset to its default value", optDriver)
	}
	driver := st.options.GetString(optDriver)
	st.Options = st.options.Clone()
	share, givenShare := st.Options.Get(optForceShare)
	st.Options.Delete(optForceShare)
	c, err := takeFlags(n.flags, st.Options)
	if err != nil {
		return err
	}
	// Reopening does not hand the node over, whatever the option says.
	c.flags = c.flags&^FlagInactive | n.flags&FlagInactive
	if err := c.takeDiscard(st.Options); err != nil {
		return err
	}
	if err := c.checkDetectZeroes(); err != nil {
		return err
	}
	st.Flags, st.forceShare, st.detectZeroes = c.flags, n.forceShare, c.detectZeroes
	// What identifies the node is compared with what it was, below.
	st.Options.Set(optDriver, StringOpt(driver))
	if givenShare {
		st.Options.Set(optForceShare, share)
	}
	r, ok := n.instance.(Reopener)
	if !ok {
		return qerr.New("Block format '%s' used by node '%s' does not support reopening files", n.drv.Name, n.name)
	}
	if key, ok := resetForbidden(n, st.options); ok {
		return qerr.New("Option '%s' cannot be reset to its default value", key)
	}
	if err := r.ReopenPrepare(q.lock, st); err != nil {
		return err
	}
	st.prepared = true
	if err := checkBackingNamed(st); err != nil {
		return err
	}
	if err := q.findReplaced(st); err != nil {
		return err
	}
	for range st.replaced {
		q.graph.DrainAll(q.lock) // (observed: own/reopen/drains)
	}
	return q.checkUnchanged(st)
}

// resetForbidden finds an option that the node was given, that the new
// options leave out, and that the driver cannot return to its default.
func resetForbidden(n *Node, options *Options) (string, bool) {
	for _, key := range n.options.Keys() {
		if key == optActive {
			// Refused even if it is the same again (observed).
			return key, true
		}
		fixed := !isCommonOption(key) || key == optForceShare
		if fixed && !options.Has(key) && !isChildOption(n, key) && !isMutable(n.drv, key) {
			return key, true
		}
	}
	return "", false
}

func isMutable(d *Driver, key string) bool {
	for _, m := range d.MutableOptions {
		if m == key {
			return true
		}
	}
	return false
}

// isChildOption tells whether a key belongs to a child, not to the driver. The
// backing file may be gone meanwhile.
func isChildOption(n *Node, key string) bool {
	if n.drv.SupportsBacking && (key == optBacking || strings.HasPrefix(key, optBacking+".")) {
		return true
	}
	for _, c := range n.children {
		if key == c.name || len(key) > len(c.name) && key[:len(c.name)] == c.name && key[len(c.name)] == '.' {
			return true
		}
	}
	return false
}

// willReach is [reaches] after the changes that were prepared.
func (q *reopenQueue) willReach(from, to *Node) bool {
	seen := make(map[*Node]bool)
	var visit func(n *Node) bool
	visit = func(n *Node) bool {
		if n == to {
			return true
		}
		if seen[n] {
			return false
		}
		seen[n] = true
		var replaced []replacedChild
		if st := q.states[n]; st != nil {
			replaced = st.replaced
		}
		return slices.ContainsFunc(replaced, func(r replacedChild) bool { return r.to != nil && visit(r.to) }) ||
			slices.ContainsFunc(n.children, func(c *Child) bool {
				stays := !slices.ContainsFunc(replaced, func(r replacedChild) bool { return r.name == c.name })
				return stays && visit(c.node)
			})
	}
	return visit(from)
}

// findReplaced notes which children the new options want to be other nodes:
// the backing file and the file can be replaced, no others.
func (q *reopenQueue) findReplaced(st *ReopenState) error {
	for _, name := range []string{optBacking, optFile} {
		ref, ok := st.Options.Get(name)
		if c := st.Node.Child(name); ok && c != nil && c.node.implicit && !c.node.meantBy(ref.String()) {
			return qerr.New("Cannot replace implicit %s child of %s", name, st.Node.name)
		}
		if ok && ref.Kind() == qjson.Null && name == optBacking && st.Node.drv.SupportsBacking {
			st.Options.Delete(name)
			if c := st.Node.Child(name); c != nil {
				st.replaced = append(st.replaced, replacedChild{name, nil})
			}
			continue
		}
		if !ok || ref.Kind() != qjson.String {
			continue
		}
		to, err := q.graph.Lookup("", ref.String())
		if err != nil {
			return err
		}
		c := st.Node.Child(name)
		if c != nil && (c.node == to || c.node.SkipImplicit() == to) {
			st.Options.Delete(name)
			continue
		}
		if q.willReach(to, st.Node) {
			return qerr.New("Making '%s' a %s child of '%s' would create a cycle", to.name, name, st.Node.name)
		}
		if c == nil && !(name == optBacking && st.Node.drv.SupportsBacking) {
			return qerr.New("Cannot set %s child to format node without file child", name)
		}
		st.Options.Delete(name)
		st.replaced = append(st.replaced, replacedChild{name, to})
	}
	return nil
}

// meantBy tells whether a name is that of the node, or of what it hides.
func (n *Node) meantBy(name string) bool { return name == n.name || name == n.SkipImplicit().name }

// checkUnchanged refuses what the driver did not take, unless it is what the
// node has already. The reference refuses force-share even then.
func (q *reopenQueue) checkUnchanged(st *ReopenState) error {
	for _, key := range st.Options.Keys() {
		v, _ := st.Options.Get(key)
		if c := st.Node.Child(key); c != nil && c.node.name == v.String() {
			continue
		}
		old, ok := st.Node.options.Get(key)
		if !ok || key == optForceShare || old.String() != v.String() {
			return qerr.New("Cannot change the option '%s'", key)
		}
	}
	return nil
}
