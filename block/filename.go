package block

import "strings"

// name is what describes where a node's data is.
type name struct {
	// exact is the plain name by which the node can be opened again, "" if
	// there is none.
	exact string
	// full are the options with which it can be opened again.
	full *Options
	// tree are the same as they are printed: children are nested, but an
	// option with dots in its name is not (observed: transcript
	// own/nbd/filenames).
	tree *optNode
}

// Filename is the name under which the node appears to clients: a plain name
// if one says all, else its options as "json:{…}".
func (n *Node) Filename() string { return n.describeData().filename() }

func (d name) filename() string {
	if d.exact != "" {
		return d.exact
	}
	return "json:" + string(d.tree.append(nil))
}

// describeData computes name and options afresh: both depend on everything
// below the node.
func (n *Node) describeData() name {
	if f := n.filtered(); n.implicit && f != nil {
		return f.node.describeData()
	}
	full, tree := NewOptions(), &optNode{}
	strong := n.gatherStrong(full)
	for _, e := range full.entries {
		tree.child(e.key).value = e.value
	}
	// overridden: the backing file is another one than the image names. What lies
	// behind is described once, else a chain would take twice the time for each
	// image more.
	overridden := n.backing == nil && n.autoBacking != ""
	var fileName name
	for _, c := range n.children {
		sub := c.node.describeData()
		option := n.childOption(c)
		if c == n.file {
			fileName = sub
		}
		if c == n.backing {
			if overridden = n.autoBacking != sub.filename(); !overridden {
				continue
			}
		}
		for _, e := range sub.full.entries {
			full.Set(join(option, e.key), e.value)
		}
		*tree.descend(option) = *sub.tree
	}
	if n.backing == nil && overridden {
		full.Set(optBacking, NullOpt)
		tree.child(optBacking).value = NullOpt
	}
	full.Set(optDriver, StringOpt(n.drv.Name))
	tree.child(optDriver).value = StringOpt(n.drv.Name)
	d := name{full: full, tree: tree}
	switch {
	case n.refresherFor() != nil:
		d.exact = n.refresherFor().ExactFilename(full)
	case n.file != nil && !strong && !overridden && n.drv.Kind == Format && n.file.node.drv.ByName():
		// Opening the protocol's name with this driver gives the same again.
		d.exact = fileName.exact
	}
	return d
}

// gatherStrong copies the options that decide which data the node holds and
// tells whether there were any.
func (n *Node) gatherStrong(full *Options) bool {
	any := false
	for _, key := range n.options.Keys() { // the order decides that of the copy
		if isStrong(n.drv, key) {
			full.CopyDefault(n.options, key)
			any = true
		}
	}
	return any
}

// isStrong tells whether an option is one of the driver's strong ones; a name
// that ends in a dot stands for all below it.
func isStrong(d *Driver, key string) bool {
	for _, s := range d.StrongOptions {
		if s == key || strings.HasSuffix(s, ".") && strings.HasPrefix(key, s) {
			return true
		}
	}
	return false
}

// childOption is what a child is called in the node's options.
func (n *Node) childOption(c *Child) string {
	if namer, ok := n.instance.(ChildNamer); ok {
		return namer.ChildOption(c)
	}
	return c.name
}

func (n *Node) refresherFor() FilenameRefresher {
	r, _ := n.instance.(FilenameRefresher)
	return r
}

// BackingFilename is the name of the backing file as clients see it, "" if
// there is none.
func (n *Node) BackingFilename() string {
	c := n.cow()
	if c == nil {
		return ""
	}
	return c.node.Filename()
}

// BackingDepth is the number of images that show through the node, one behind
// the other.
func (n *Node) BackingDepth() int {
	depth := 0
	for b := n.FilterOrCow(); b != nil; b = b.FilterOrCow() {
		depth++
	}
	return depth
}

// FilterOrCow is the node that shows through this one: the filtered child of
// a filter, the backing file of a format, nil if there is none.
func (n *Node) FilterOrCow() *Node {
	if f := n.filtered(); f != nil {
		return f.node
	}
	if c := n.cow(); c != nil {
		return c.node
	}
	return nil
}
