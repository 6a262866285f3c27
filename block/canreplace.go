package block

// ReplaceChecker is a node of several children that all show what it shows, so
// that a copy of the node can take the place of one of them.
type ReplaceChecker interface {
	// CanReplace tells whether a node is such a child, and nobody else uses it.
	CanReplace(n *Node) bool
}

// CanBeReplaced tells whether a node can give its place to a copy of source
// without a change of what its users see: it is source, or shows the same.
func (n *Node) CanBeReplaced(source *Node) bool {
	for at := source; at != nil; {
		if at == n {
			return true
		}
		if r, ok := at.instance.(ReplaceChecker); ok {
			return r.CanReplace(n)
		}
		f := at.filtered()
		if f == nil {
			return false
		}
		at = f.node
	}
	return false
}
