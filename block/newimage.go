package block

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// NewImage is an image to be made, named by its file as people do.
type NewImage struct {
	// Filename may begin with a protocol.
	Filename string
	// Format is the driver's name.
	Format string
	// Size is the virtual length in bytes.
	Size int64
	// Backing is what the image says of its backing file.
	Backing ImageBacking
	// TryBacking opens the backing file for a moment, to see whether that will
	// work, with Flags.
	TryBacking bool
	Flags      Flags
}

// CreateImage makes an image: its file first, and then what the format needs in
// there.
func (g *Graph) CreateImage(l *aio.Lock, im NewImage) error {
	format, protocol, err := g.creators(im)
	if err != nil {
		return err
	}
	if im.TryBacking && im.Backing.Filename != "" {
		if err := g.tryBacking(l, im); err != nil {
			return err
		}
	}
	if format.Kind == Protocol {
		protocol = format // the file is all there is
	}
	r := &openRequest{filename: im.Filename, options: NewOptions(), flags: FlagRDWR | FlagProtocol}
	r.options.Set(optDriver, StringOpt(protocol.Name))
	g.tellOf(im, format)
	if err := r.parseFilename(protocol); err != nil {
		return protocol.notThere(err)
	}
	return g.fillFile(l, format, protocol, r, im)
}

// tellOf says what is about to be made, in the words of whoever makes images by
// name (observed: own/jobs/formatting).
func (g *Graph) tellOf(im NewImage, format *Driver) {
	if g.cfg.Tell == nil {
		return
	}
	words := []string{fmt.Sprintf("Formatting '%s', fmt=%s", im.Filename, im.Format), format.NewDefaults[0], fmt.Sprintf("size=%d", im.Size)}
	if im.Backing.Filename != "" {
		// Options are separated by commas where they are read.
		words = append(words, "backing_file="+strings.ReplaceAll(im.Backing.Filename, ",", ",,"), "backing_fmt="+im.Backing.Format)
	}
	words = append(words, format.NewDefaults[1])
	g.cfg.Tell(strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " "))
}

// tryBacking opens the backing file where the image looks for it.
func (g *Graph) tryBacking(l *aio.Lock, im NewImage) error {
	o := NewOptions()
	o.Set(optDriver, StringOpt(im.Backing.Format))
	o.Set(optReadOnly, BoolOpt(true))
	o.Set(optForceShare, BoolOpt(true)) // whoever uses it meanwhile
	o.setCache(im.Flags)
	n, err := g.openNode(l, &openRequest{filename: beside(im.Filename, im.Backing.Filename), options: o, image: true})
	if err == nil {
		g.Unref(l, n)
	}
	return err
}

// creators finds the drivers that an image is made with.
func (g *Graph) creators(im NewImage) (format, protocol *Driver, err error) {
	if format = g.drivers[im.Format]; format == nil {
		return nil, nil, qerr.New("Unknown file format '%s'", im.Format)
	}
	if protocol, err = g.protocolFor(im.Filename); err != nil {
		return nil, nil, err
	}
	switch {
	case !format.makesImages():
		return nil, nil, qerr.New("Format driver '%s' does not support image creation", format.Name)
	case !protocol.makesImages():
		return nil, nil, qerr.New("Protocol driver '%s' does not support image creation", protocol.Name)
	case im.Backing.Filename != "" && !format.SupportsBacking:
		return nil, nil, qerr.New("Backing file not supported for file format '%s'", format.Name)
	case im.Backing.Filename == im.Filename && im.Filename != "":
		return nil, nil, qerr.New("Error: Trying to create an image with the same filename as the backing file")
	}
	return format, protocol, nil
}

// makesImages tells whether the driver can be named where an image is made.
func (d *Driver) makesImages() bool { return d.Create != nil || d.PlainImages || d.MakesOfExisting }

// fillFile makes the file, if its protocol makes files, and the image in it.
func (g *Graph) fillFile(l *aio.Lock, format, protocol *Driver, r *openRequest, im NewImage) error {
	alone := format.PlainImages || format == protocol // the file is all there is
	size := int64(0)
	if alone {
		size = im.Size
	}
	if err := g.makeFile(l, protocol, r, size); err != nil || alone {
		return im.tooLarge(format, err)
	}
	file, err := g.openNode(l, r)
	if err != nil {
		return err
	}
	defer g.Unref(l, file)
	o := NewOptions()
	o.Set(optFile, StringOpt(file.name))
	o.Set("size", IntOpt(im.Size))
	if im.Backing.Filename != "" {
		o.Set("backing-file", StringOpt(im.Backing.Filename))
		o.Set("backing-fmt", StringOpt(im.Backing.Format))
	}
	if err := g.create(l, format, o); err != nil {
		file.deleteFile()
		return im.tooLarge(format, err)
	}
	return nil
}

// makeFile makes a file, or takes what is there and makes it long enough.
func (g *Graph) makeFile(l *aio.Lock, protocol *Driver, r *openRequest, size int64) error {
	if protocol.Create != nil {
		o := r.options.Clone()
		o.Set("size", IntOpt(size))
		return g.create(l, protocol, o)
	}
	again := *r
	again.options = r.options.Clone()
	file, err := g.openNode(l, &again)
	if err != nil {
		return protocol.notThere(err)
	}
	defer g.Unref(l, file)
	b := g.NewBackend("", PermWrite|PermResize, PermAll)
	defer b.Close(l)
	if err := b.Insert(l, file); err != nil {
		return err
	}
	_, err = aio.Mixed(l, g.main, "take", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, takeExisting(co, b, size)
	})
	return err
}

// notThere explains why something had to be there already, if so.
func (d *Driver) notThere(err error) error {
	if d.Create != nil {
		return err
	}
	return qerr.Prepend(err, "Protocol driver '%s' does not support creating new images, so an existing image must be "+
		"selected as the target; however, opening the given target as an existing image failed: ", d.Name)
}

// takeExisting makes a file as long as an image needs, and clears its first
// sector, so that nobody takes what was there for an image.
func takeExisting(co *aio.Co, b *Backend, size int64) error {
	length, err := b.CoGetLength(co)
	if err != nil {
		return err
	}
	if length < size {
		if err := b.Truncate(co, size, false, PreallocOff, 0); err != nil {
			return err
		}
	}
	if n := min(max(length, size), SectorSize); n > 0 {
		return b.CoPwriteZeroes(co, 0, n, 0)
	}
	return nil
}

// deleteFile deletes what an image was to be made in, where the driver can.
func (n *Node) deleteFile() {
	if d, ok := n.instance.(FileDeleter); ok {
		// That the image could not be made is what the client is told.
		_ = d.DeleteFile()
	}
}

// tooLarge says it in other words where the size is what cannot be.
func (im *NewImage) tooLarge(format *Driver, err error) error {
	if !errors.Is(err, syscall.EFBIG) {
		return err
	}
	hint := ""
	if strings.Contains(format.NewDefaults[0], "cluster_size=") {
		hint = " (try using a larger cluster size)"
	}
	return qerr.New("The image size is too large for file format '%s'%s", format.Name, hint)
}

func (g *Graph) create(l *aio.Lock, d *Driver, o *Options) error {
	_, err := aio.Mixed(l, g.main, "create", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, g.CoCreate(co, d, o)
	})
	return err
}

// setCache makes a node's caching that of one with the given flags.
func (o *Options) setCache(flags Flags) {
	o.Set(optCacheDirect, BoolOpt(flags&FlagNoCache != 0))
	o.Set(optCacheNoFlush, BoolOpt(flags&FlagNoFlush != 0))
}

// Overlay is an image that is to be opened over a node.
type Overlay struct {
	Filename, Format string
	// NodeName is its name; nil: it gets one.
	NodeName *string
}

// OpenOverlay opens an image with the flags of a node and without a backing
// file, so that it can be put over the node. The caller gets a reference to it.
func (g *Graph) OpenOverlay(l *aio.Lock, below *Node, o Overlay) (*Node, error) {
	options := NewOptions()
	options.Set(optDriver, StringOpt(o.Format))
	if o.NodeName != nil {
		options.Set(optNodeName, StringOpt(*o.NodeName))
	}
	options.setCache(below.flags)
	options.Set(optReadOnly, BoolOpt(below.ReadOnly()))
	if o.Filename == "" {
		// No name is no file at all, other than a name that is empty.
		options.Set("file.driver", StringOpt("file"))
		options.Set("file.filename", StringOpt(""))
	}
	return g.openNode(l, &openRequest{filename: o.Filename, options: options, flags: below.flags | FlagNoBacking})
}
