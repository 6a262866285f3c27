package block

import "github.com/qmpblock/qmpblock/qerr"

// refreshPerms recomputes the permissions on everything below the given nodes
// and checks them. On an error the caller's write section is undone, and with
// it every change made here.
func (w *Write) refreshPerms(reopen reopenStates, nodes ...*Node) error {
	for _, n := range topological(nodes) {
		if err := w.refreshNodePerms(n, reopen[n]); err != nil {
			return err
		}
	}
	return nil
}

// topological lists the nodes and all below them, each after all of its
// parents that are in the list.
func topological(roots []*Node) []*Node {
	if len(roots) == 1 && len(roots[0].children) == 0 {
		return roots
	}
	seen := make(map[*Node]bool)
	var order []*Node
	var visit func(n *Node)
	visit = func(n *Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		for _, c := range n.children {
			visit(c.node)
		}
		order = append(order, n)
	}
	for _, n := range roots {
		visit(n)
	}
	for i, j := 0, len(order)-1; i < j; i, j = i+1, j-1 {
		order[i], order[j] = order[j], order[i]
	}
	return order
}

func (w *Write) refreshNodePerms(n *Node, reopen *ReopenState) error {
	if n.parents.conflicting() {
		return conflictError(n)
	}
	perm, shared := n.parents.cumulative()
	if err := n.checkPerm(perm, reopen); err != nil {
		return err
	}
	if err := w.checkDriverPerm(n, perm, shared); err != nil {
		return err
	}
	for _, c := range n.children {
		cperm, cshared := n.childPerm(c, c.node, c.role, reopen, perm, shared)
		w.setPerm(c, cperm, cshared)
	}
	return nil
}

func conflictError(n *Node) error {
	taker, denier, perms := n.parents.conflict()
	return qerr.New("Permission conflict on node '%s': permissions '%s' are both required by %s and unshared by %s.",
		n.name, perms, describeUse(taker), describeUse(denier))
}

func describeUse(c *Child) string {
	return c.owner.describe() + " (uses node '" + c.node.name + "' as '" + c.name + "' child)"
}

const anyWrite = PermWrite | PermWriteUnchanged

func (n *Node) checkPerm(perm Perm, reopen *ReopenState) error {
	if changing := perm & (anyWrite | PermResize); changing != 0 && !n.Active() {
		return qerr.New("Permission '%s' unavailable on inactive node", changing)
	}
	if perm&anyWrite != 0 && !n.writableAfter(reopen) {
		if !n.writableAfter(nil) {
			return qerr.New("Block node is read-only")
		}
		return qerr.New("Read-only block node '%s' cannot support read-write users", n.name)
	}
	if perm&anyWrite != 0 && perm&PermResize == 0 && !n.lengthAligned() {
		return qerr.New("Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment")
	}
	return nil
}

func (w *Write) checkDriverPerm(n *Node, perm, shared Perm) error {
	checker, ok := n.instance.(PermChecker)
	if !ok {
		return nil
	}
	if err := checker.CheckPerm(perm, shared); err != nil {
		return err
	}
	w.onAbort(checker.AbortPerm)
	w.onCommit(func() { checker.SetPerm(perm, shared) })
	return nil
}

// childPerm is what a node takes and shares on a child, whose edge may not be
// linked yet. What is forced on the child itself counts (observed:
// own/quorum/permissions).
func (n *Node) childPerm(c *Child, child *Node, role Role, reopen *ReopenState, perm, shared Perm) (Perm, Perm) {
	var cperm, cshared Perm
	if permer, ok := n.instance.(ChildPermer); ok {
		cperm, cshared = permer.ChildPerm(c, role, reopen, perm, shared)
	} else {
		cperm, cshared = DefaultPerms(n, role, reopen, perm, shared)
	}
	if child.forceShare {
		cshared = PermAll
	}
	return cperm, cshared
}

// setPerm changes an edge's permissions within the write section.
func (w *Write) setPerm(c *Child, perm, shared Perm) {
	if c.perm == perm && c.shared == shared {
		return
	}
	oldPerm, oldShared, n := c.perm, c.shared, c.node
	n.parents.setPerm(c, perm, shared)
	w.onAbort(func() { n.parents.setPerm(c, oldPerm, oldShared) })
}
