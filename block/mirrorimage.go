package block

import "github.com/qmpblock/qmpblock/block/aio"

// MirrorImage is an image that a node is to be copied into and that may take its
// place, named by its file.
type MirrorImage struct {
	// Filename, Format, Existing and Backing are as in BackupImage.
	Filename, Format string
	Existing         bool
	Backing          *Node
	// NodeName is its name; nil: it gets one.
	NodeName *string
}

// OpenMirror opens an image that a node is to be copied into, without what is
// behind it, and makes it first if need be. The caller gets a reference to it.
func (g *Graph) OpenMirror(l *aio.Lock, source *Node, m MirrorImage) (*Node, error) {
	if !m.Existing {
		if m.Format == "" {
			m.Format = source.drv.Name
		}
		im := BackupImage{Filename: m.Filename, Format: m.Format, Backing: m.Backing}
		if err := g.createBackup(l, source, im); err != nil {
			return nil, err
		}
	}
	options := NewOptions()
	if m.NodeName != nil {
		options.Set(optNodeName, StringOpt(*m.NodeName))
	}
	if m.Format != "" {
		options.Set(optDriver, StringOpt(m.Format))
	}
	if source.flags&FlagUnmap != 0 {
		options.Set(optDiscard, StringOpt("unmap"))
	}
	options.Set(optCacheDirect, BoolOpt(source.flags&FlagNoCache != 0))
	options.Set(optCacheNoFlush, BoolOpt(source.flags&FlagNoFlush != 0))
	options.Set(optReadOnly, BoolOpt(false))
	return g.openNode(l, &openRequest{
		filename: m.Filename, options: options, flags: source.flags | FlagRDWR | FlagNoBacking, image: source.drv.Kind != Protocol,
	})
}

// OpenBackingFile opens what a node's image says is behind it, for a node that
// was opened without.
func (n *Node) OpenBackingFile(l *aio.Lock) error {
	if n.backing != nil {
		return nil
	}
	n.flags &^= FlagNoBacking
	return (&OpenArgs{Lock: l, Node: n, Options: NewOptions(), Flags: n.flags}).openBacking()
}

// ReplaceBacking is [Write.SetBacking] for a node that has another backing file.
func (g *Graph) ReplaceBacking(l *aio.Lock, n, to *Node) error {
	if n.BackingOf() == to {
		return nil
	}
	return g.Write(l, "back "+n.name, func(w *Write) error { return w.SetBacking(n, to) })
}
