package block

import "github.com/qmpblock/qmpblock/block/aio"

// CopyImage is an image that a node is to be copied into, named by its file.
type CopyImage struct {
	Filename string
	// Format is the driver's name; "": that of the node, or, of an image that
	// is there, what it looks like.
	Format string
	// Existing says that the image is there already.
	Existing bool
	// Backing is the node behind it, nil if there is none.
	Backing *Node
}

// OpenBackup opens an image that a node is to be copied into, and makes it
// first if need be. With attach the node Backing itself becomes the backing file,
// and not another one opened by its name. The caller gets a reference to the
// image.
func (g *Graph) OpenBackup(l *aio.Lock, source *Node, im CopyImage, attach bool) (*Node, error) {
	options := NewOptions()
	options.Set(optDiscard, StringOpt("unmap"))
	options.Set(optDetectZeroes, StringOpt("unmap"))
	var flags Flags
	if attach {
		flags = FlagNoBacking
	}
	target, err := g.openCopy(l, source, im, options, flags)
	if err != nil || !attach {
		return target, err
	}
	if err := g.ReplaceBacking(l, target, im.Backing); err != nil {
		g.Unref(l, target)
		return nil, err
	}
	return target, nil
}

// OpenMirror opens an image that a node is to be copied into, and that may take
// its place, without what is behind it, and makes it first if need be. name is
// its node's; nil: it gets one. The caller gets a reference to it.
func (g *Graph) OpenMirror(l *aio.Lock, source *Node, im CopyImage, name *string) (*Node, error) {
	options := NewOptions()
	if name != nil {
		options.Set(optNodeName, StringOpt(*name))
	}
	if source.flags&FlagUnmap != 0 {
		options.Set(optDiscard, StringOpt("unmap"))
	}
	return g.openCopy(l, source, im, options, FlagNoBacking)
}

// openCopy opens the image with the source's flags and more.
func (g *Graph) openCopy(l *aio.Lock, source *Node, im CopyImage, options *Options, more Flags) (*Node, error) {
	if !im.Existing {
		if im.Format == "" {
			im.Format = source.drv.Name
		}
		if err := g.createCopy(l, source, im, more&FlagNoBacking == 0); err != nil {
			return nil, err
		}
	}
	if im.Format != "" {
		options.Set(optDriver, StringOpt(im.Format))
	}
	options.setCache(source.flags)
	options.Set(optReadOnly, BoolOpt(false))
	return g.openNode(l, &openRequest{
		filename: im.Filename, options: options, flags: source.flags | FlagRDWR | more,
		// What is copied from a file is opened as a file.
		image: source.drv.Kind != Protocol,
	})
}

func (g *Graph) createCopy(l *aio.Lock, source *Node, im CopyImage, opensBacking bool) error {
	size, err := source.GetLength(l)
	if err != nil {
		return err
	}
	n := NewImage{Filename: im.Filename, Format: im.Format, Size: size, TryBacking: opensBacking, Flags: source.flags}
	if im.Backing != nil {
		n.Backing = ImageBacking{Filename: im.Backing.ShowFilename(), Format: im.Backing.drv.Name}
	}
	return g.CreateImage(l, n)
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
	if n.Behind() == to {
		return nil
	}
	g.DrainAll(l)
	return g.Write(l, "back "+n.name, func(w *Write) error { return w.SetBacking(n, to) })
}
