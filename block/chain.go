package block

import (
	"path/filepath"

	"github.com/qmpblock/qmpblock/qerr"
)

// A chain is a node and what shows through it: the backing file of an image, and
// what a filter filters, one behind the other.

// InChain tells whether a node is the top of a chain or stands behind it.
func (n *Node) InChain(top *Node) bool {
	for at := top; at != nil; at = at.FilterOrCow() {
		if at == n {
			return true
		}
	}
	return false
}

// SkipFilters is the first node of a chain that is no filter.
func (n *Node) SkipFilters() *Node {
	for {
		c := n.filtered()
		if c == nil {
			return n
		}
		n = c.node
	}
}

// BackingOf is the image behind the one that a chain begins with, filters
// skipped; nil if there is none.
func (n *Node) BackingOf() *Node {
	if behind := n.Behind(); behind != nil {
		return behind.SkipFilters()
	}
	return nil
}

// Behind is what stands directly behind the image that a chain begins with, be
// it a filter; nil if there is nothing.
func (n *Node) Behind() *Node {
	c := n.SkipFilters().cow()
	if c == nil {
		return nil
	}
	return c.node
}

// KnownBehind is the first node behind the image that users know of.
func (n *Node) KnownBehind() *Node {
	if behind := n.Behind(); behind != nil {
		return behind.SkipImplicit()
	}
	return nil
}

// FindOverlay is the node of a chain that stands directly over another one;
// nil if that is the top, or not part of the chain.
func (n *Node) FindOverlay(below *Node) *Node {
	for at := n; at != nil; at = at.FilterOrCow() {
		if at.FilterOrCow() == below {
			return at
		}
	}
	return nil
}

// FindBase is the last image of a chain.
func (n *Node) FindBase() *Node {
	at := n.SkipFilters()
	for b := at.BackingOf(); b != nil; b = at.BackingOf() {
		at = b
	}
	return at
}

// FindBackingImage finds an image behind the top of a chain by the name of its
// file; nil if there is none. See [Node.names].
func (n *Node) FindBackingImage(filename string) *Node {
	for over := n.SkipFilters(); over != nil; {
		below := over.BackingOf()
		if below != nil && filename != "" && over.names(filename, below) {
			return below
		}
		over = below
	}
	return nil
}

// names tells whether an image's user may call the image behind it so. Where the
// image itself says what is behind it, its words are good, and any other path
// to the same file, seen from the image's folder; else only the name that the
// image behind has for clients, who are taken to look at it. Whether it does is
// told by the name that they saw last (observed: own/flows/commit-names,
// own/jobs/commit-shown-names).
func (n *Node) names(filename string, below *Node) bool {
	if n.backingOverridden() {
		return filename == below.ShowFilename()
	}
	said := n.imageBacking.Filename
	return filename == said || !hasProtocol(filename) && !hasProtocol(said) && n.samePath(filename, said)
}

// samePath tells whether two paths, which may be relative to the image's folder,
// lead to the same file.
func (n *Node) samePath(a, b string) bool {
	here, err := n.baseFolder()
	if err != nil {
		return false
	}
	real := func(path string) string {
		if !filepath.IsAbs(path) {
			path = here + path
		}
		path, err := filepath.EvalSymlinks(path)
		if err != nil {
			return ""
		}
		path, err = filepath.Abs(path)
		if err != nil {
			return ""
		}
		return path
	}
	found := real(a)
	return found != "" && found == real(b)
}

// IsRoot tells whether no other node and no job uses the node.
func (n *Node) IsRoot() bool {
	for c := n.parents.head; c != nil; c = c.nextParent {
		if _, ok := c.owner.(*Backend); !ok {
			return false
		}
	}
	return true
}

// LookupRoot is [Graph.Lookup] for a node that stands at the top of its graph.
func (g *Graph) LookupRoot(device string) (*Node, error) {
	n, err := g.Lookup(device, device)
	if err != nil {
		return nil, err
	}
	if !n.IsRoot() {
		return nil, qerr.New("Need a root block node")
	}
	return n, nil
}
