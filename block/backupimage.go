package block

import "github.com/qmpblock/qmpblock/block/aio"

// BackupImage is an image that a node is to be copied into, named by its file.
type BackupImage struct {
	Filename string
	// Format is the driver's name; "": that of the node, or, of an image that
	// is there, what it looks like.
	Format string
	// Existing says that the image is there already.
	Existing bool
	// Backing is the node behind it, nil if there is none.
	Backing *Node
	// Attach makes that very node the backing file, and not another one opened by
	// its name.
	Attach bool
}

// OpenBackup opens an image that a node is to be copied into, and makes it
// first if need be. The caller gets a reference to it.
func (g *Graph) OpenBackup(l *aio.Lock, source *Node, b BackupImage) (*Node, error) {
	if b.Format == "" && !b.Existing {
		b.Format = source.drv.Name
	}
	if !b.Existing {
		if err := g.createBackup(l, source, b); err != nil {
			return nil, err
		}
	}
	options := NewOptions()
	options.Set(optDiscard, StringOpt("unmap"))
	options.Set(optDetectZeroes, StringOpt("unmap"))
	if b.Format != "" {
		options.Set(optDriver, StringOpt(b.Format))
	}
	options.Set(optCacheDirect, BoolOpt(source.flags&FlagNoCache != 0))
	options.Set(optCacheNoFlush, BoolOpt(source.flags&FlagNoFlush != 0))
	options.Set(optReadOnly, BoolOpt(false))
	flags := source.flags | FlagRDWR
	if b.Attach {
		flags |= FlagNoBacking
	}
	// What is copied from a file is opened as a file.
	target, err := g.openNode(l, &openRequest{filename: b.Filename, options: options, flags: flags, image: source.drv.Kind != Protocol})
	if err != nil || !b.Attach {
		return target, err
	}
	err = g.Write(l, "back "+target.name, func(w *Write) error { return w.SetBacking(target, b.Backing) })
	if err != nil {
		g.Unref(l, target)
		return nil, err
	}
	return target, nil
}

func (g *Graph) createBackup(l *aio.Lock, source *Node, b BackupImage) error {
	size, err := source.GetLength(l)
	if err != nil {
		return err
	}
	im := NewImage{Filename: b.Filename, Format: b.Format, Size: size}
	if b.Backing != nil {
		below := b.Backing.SkipFilters()
		im.Backing = ImageBacking{Filename: below.Filename(), Format: below.drv.Name}
	}
	return g.CreateImage(l, im)
}
