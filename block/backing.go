package block

import (
	"errors"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// maxBackingDepth bounds the images that one opening opens one behind the
// other: an image can name itself as its backing file.
const maxBackingDepth = 256

// errBackingDepth is given once, however deep it is found.
var errBackingDepth = qerr.New("Could not open backing file: More than 256 images stand one behind the other")

// ImageBacking is what an image says of its backing file.
type ImageBacking struct {
	// Filename is the name as it stands in the image, "" if there is none.
	// It may be relative to the image's folder.
	Filename string
	// Format is the driver for it, "" if the image does not say.
	Format string
}

// SetImageBacking is for a driver's Open: what the image says. The block
// layer opens it if the options say nothing else.
func (n *Node) SetImageBacking(b ImageBacking) {
	n.imageBacking = b
	n.autoBacking = b.Filename
}

// ImageBacking is what the image says of its backing file.
func (n *Node) ImageBacking() ImageBacking { return n.imageBacking }

// FullBackingFilename is the name in the image, made relative to the current
// folder instead of the image's; "" if there is none.
func (n *Node) FullBackingFilename() (string, error) {
	name := n.imageBacking.Filename
	if name == "" || hasProtocol(name) || strings.HasPrefix(name, "/") {
		return name, nil
	}
	folder, err := n.baseFolder()
	if err != nil {
		return "", err
	}
	return folder + name, nil
}

// baseFolder is what is put before a name relative to the image's folder: "" if
// that is the current one.
func (n *Node) baseFolder() (string, error) {
	storage := n
	for c := storage.PrimaryChild(); c != nil; c = storage.PrimaryChild() {
		storage = c.node
	}
	of := storage.describeData().exact
	if of == "" {
		return "", qerr.New("Cannot generate a base directory for '%s' nodes", storage.drv.Name)
	}
	return folderOf(of), nil
}

// folderOf is what is put before a name relative to the folder of a file: "" if
// that is the current one.
func folderOf(file string) string {
	if i := strings.LastIndexByte(file, '/'); i >= 0 {
		return file[:i+1]
	}
	// A protocol's name without a folder keeps its prefix.
	if i := strings.IndexByte(file, ':'); i >= 0 && hasProtocol(file) {
		return file[:i+1]
	}
	return ""
}

// beside is a name as a file of the given name means it.
func beside(file, name string) string {
	if name == "" || hasProtocol(name) || strings.HasPrefix(name, "/") {
		return name
	}
	return folderOf(file) + name
}

// backingOverridden tells whether another image, or none, is behind the node than
// it says itself.
func (n *Node) backingOverridden() bool {
	if n.backing == nil {
		return n.autoBacking != ""
	}
	return n.autoBacking != n.backing.node.ShownFilename()
}

// hasProtocol tells whether a name begins with a protocol, as in "nbd:": a
// colon before any slash.
func hasProtocol(name string) bool {
	i := strings.IndexAny(name, ":/")
	return i >= 0 && name[i] == ':'
}

// takeNoBacking takes the options that say that there is no backing file
// whatever the image says: null, or an empty name, which means the same.
func (a *OpenArgs) takeNoBacking() {
	v, ok := a.Options.Get(optBacking)
	if !ok || v.Kind() != qjson.Null && v.String() != "" {
		return
	}
	a.Options.Delete(optBacking)
	a.Node.flags |= FlagNoBacking
}

// openBacking attaches the backing child: the one that the options name, or
// else the one that the image does.
func (a *OpenArgs) openBacking() error {
	n := a.Node
	if n.flags&FlagNoBacking != 0 {
		return nil
	}
	r := a.childRequest("", optBacking, RoleCOW)
	if r.reference == nil && !r.options.Has("file.filename") {
		if n.imageBacking.Filename == "" && r.options.Len() == 0 {
			return nil
		}
		full, err := n.FullBackingFilename()
		if err != nil {
			return qerr.Prepend(err, "Could not open backing file: ")
		}
		r.filename = full
		r.fromImage = r.options.Len() == 0
	}
	if r.reference == nil && n.imageBacking.Format != "" {
		r.options.SetDefault(optDriver, StringOpt(n.imageBacking.Format))
	}
	if r.depth > maxBackingDepth {
		return errBackingDepth
	}
	child, err := n.graph.openNode(a.Lock, r)
	if errors.Is(err, errBackingDepth) {
		return err
	}
	if err != nil {
		return qerr.Prepend(err, "Could not open backing file: ")
	}
	c, err := a.attach(child, optBacking, RoleCOW)
	if err != nil {
		n.graph.Unref(a.Lock, child)
		return err
	}
	n.backing = c
	if r.fromImage {
		n.autoBacking = child.Filename()
	}
	return nil
}

// blockBacking forbids what would pull a backing file out from under its
// overlay; unblockBacking allows it again. Reading it, and what changes no
// length, harms nobody (observed: own/snapshots/blockers).
func (c *Child) blockBacking() {
	if c.role&RoleCOW == 0 {
		return
	}
	c.blocker = &Blocker{Reason: "node is used as backing hd of '" + c.ParentNode().name + "'"}
	c.node.BlockAll(c.blocker, BlockOpBackupSource, BlockOpBackupTarget, BlockOpCommitTarget, BlockOpStream)
}

func (c *Child) unblockBacking() {
	if c.blocker == nil {
		return
	}
	c.node.UnblockAll(c.blocker)
	c.blocker = nil
}
