package block

import (
	"os"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// OpenFileFunc opens a host file as open(2) does; flags are those of package
// os and unix.
type OpenFileFunc func(path string, flags int) (*os.File, error)

// AddNode opens a node on behalf of a user, as blockdev-add does. It belongs
// to the user until [Graph.DeleteNode].
func (g *Graph) AddNode(h aio.Holder, options *Options) (*Node, error) {
	if !options.Has(optNodeName) {
		return nil, qerr.New("'node-name' must be specified for the root node")
	}
	options.setRootDefaults()
	return onMain(g, h, func(l *aio.Lock) (*Node, error) {
		n, err := g.openNode(l, &openRequest{options: options, flags: FlagRDWR})
		if err != nil {
			return nil, err
		}
		n.monitorOwned = true
		return n, nil
	})
}

// setRootDefaults sets what a node inherits that has nobody to inherit from.
func (o *Options) setRootDefaults() {
	o.SetDefault(optCacheDirect, BoolOpt(false))
	o.SetDefault(optCacheNoFlush, BoolOpt(false))
	o.SetDefault(optReadOnly, BoolOpt(false))
}

// onMain runs f with the main context's lock. A coroutine gives up the graph
// lock meanwhile, since f may want to write to the graph.
func onMain[T any](g *Graph, h aio.Holder, f func(*aio.Lock) (T, error)) (T, error) {
	if l, ok := h.(*aio.Lock); ok {
		return f(l)
	}
	var (
		result T
		err    error
	)
	done := make(chan struct{})
	g.main.Post(func(l *aio.Lock) {
		defer close(done)
		result, err = f(l)
	})
	aio.Coroutine(h).Yield(func() { <-done })
	return result, err
}

// openRequest is one node to open.
type openRequest struct {
	filename  string
	reference *string // the node that is meant, which may be named badly
	options   *Options
	flags     Flags
	parent    *Node // whose inline child the node becomes
	role      Role
	depth     int  // of images one behind the other
	fromImage bool // the image named it, nobody else
	image     bool // what the file name leads to may be an image of any format
	trusted   bool // the driver is given, and nobody looks at the file
}

// openNode opens a node, or finds the one that a reference names. The caller
// gets a reference to it.
func (g *Graph) openNode(l *aio.Lock, r *openRequest) (*Node, error) {
	if r.reference != nil {
		return g.referTo(r)
	}
	n := &Node{graph: g, serial: g.made.Add(1), refs: 1, flags: r.flags}
	n.ctx.Store(g.main)
	n.explicit = r.options.Clone()
	if r.parent != nil {
		n.inheritsFrom = r.parent
		n.flags = r.parent.flags & FlagInactive
		inherit(r.options, r.parent.options, r.role)
	}
	if err := r.takeJSONName(); err != nil {
		return nil, err
	}
	if err := g.openWithOptions(l, n, r); err != nil {
		n.refs = 0
		g.closeNode(l, n)
		return nil, err
	}
	n.show()
	return n, nil
}

func (g *Graph) referTo(r *openRequest) (*Node, error) {
	if r.options.Len() > 0 || r.filename != "" {
		return nil, qerr.New("Cannot reference an existing block device with additional options or a new filename")
	}
	n, err := g.Lookup(*r.reference, *r.reference)
	if err != nil {
		return nil, err
	}
	n.ref()
	return n, nil
}

// inherit completes the options of an inline child by those of its parent.
// Backing files are read-only whatever the overlay is. Storage children pass
// discards on: the parent decides which ones reach them.
func inherit(o, from *Options, role Role) {
	o.CopyDefault(from, optCacheDirect)
	o.CopyDefault(from, optCacheNoFlush)
	o.CopyDefault(from, optForceShare)
	if role&RoleCOW != 0 {
		o.SetDefault(optReadOnly, BoolOpt(true))
		o.SetDefault(optAutoReadOnly, BoolOpt(false))
		return
	}
	o.CopyDefault(from, optReadOnly)
	o.CopyDefault(from, optAutoReadOnly)
	o.SetDefault(optDiscard, StringOpt("unmap"))
}

func (g *Graph) openWithOptions(l *aio.Lock, n *Node, r *openRequest) error {
	drv, err := g.findDriver(r)
	if err != nil {
		return err
	}
	n.drv = drv
	n.options = r.options
	options := r.options.Clone()
	c, err := takeFlags(n.flags, options)
	if err != nil {
		return err
	}
	// What the option active says comes too late for the file, unlike for other
	// inline children (observed: own/blockdev/inactive-children).
	n.flags, n.forceShare = c.flags&^FlagInactive|n.flags&FlagInactive, c.forceShare
	a := &OpenArgs{Lock: l, Node: n, Options: options, depth: r.depth}
	if drv == nil || !drv.ByName() {
		if err := a.openFileFirst(r.filename); err != nil {
			return err
		}
		if a.file != nil && !r.trusted && g.holders != nil {
			// The reference takes the file by a backend to look at it, and
			// lets go: jobs see it (observed: own/jobs/drains-open).
			g.DrainAll(l)
			g.DrainAll(l)
			a.file.drainTwice(l)
		}
	}
	if drv == nil {
		if n.drv, err = g.probe(l, a.file); err != nil {
			return a.abandon(err)
		}
		n.probed = n.drv.Name == "raw"
		r.options.Set(optDriver, StringOpt(n.drv.Name))
	}
	// What follows is checked only when the file is open (observed).
	if err := a.checkCommon(c); err != nil {
		return a.abandon(err)
	}
	if n.drv.SupportsBacking {
		a.takeNoBacking()
	}
	if err := g.openDriver(a); err != nil {
		return err
	}
	n.warnProbed()
	if n.drv.SupportsBacking {
		if err := a.openBacking(); err != nil {
			return err
		}
		if err := n.refreshLimits(); err != nil {
			return err
		}
	}
	return refuseLeftovers(n, options)
}

// findDriver determines the driver and makes the file name an option, where
// the driver works with names. It returns nil for an image whose format is to
// be found out by looking at it.
func (g *Graph) findDriver(r *openRequest) (*Driver, error) {
	name := r.options.GetString(optDriver)
	image := r.image || r.role&RoleCOW != 0
	switch {
	case name != "":
	case image && (r.filename != "" || r.options.HasSub(optFile)):
		return nil, nil
	case image || r.filename == "" && !r.options.Has(optFilename):
		return nil, qerr.New("Must specify either driver or file")
	default:
		// A plain option is the name of a file whatever it looks like.
		drv, err := g.protocolFor(r.filename)
		if err != nil {
			return nil, err
		}
		name = drv.Name
		r.options.Set(optDriver, StringOpt(name))
	}
	drv := g.drivers[name]
	if drv == nil {
		return nil, qerr.New("Unknown driver '%s'", name)
	}
	if drv.ByName() && r.filename != "" {
		return drv, r.parseFilename(drv)
	}
	return drv, nil
}

// openFileFirst opens the child 'file' before the node itself gets its name
// and its driver; [OpenArgs.File] attaches it.
func (a *OpenArgs) openFileFirst(filename string) error {
	n, err := a.openChildNode(filename, optFile, RoleImage, true)
	if err != nil || n == nil {
		return err
	}
	a.file = n
	return nil
}

// openDriver names the node, opens its driver and asks it for the length and
// the limits. Asking for the length polls: that is why opening needs a lock
// that can be released.
func (g *Graph) openDriver(a *OpenArgs) error {
	n := a.Node
	name, given := a.Options.Get(optNodeName)
	a.Options.Delete(optNodeName)
	err := g.Write(a.Lock, "add a node", func(w *Write) error { return w.assignName(n, name.String(), given) })
	if err != nil {
		return a.abandon(err)
	}
	instance, err := n.drv.Open(a)
	if err != nil {
		n.instance = nil
		g.DrainAll(a.Lock) // (observed: own/jobs/drains-open)
		return a.abandon(err)
	}
	n.instance = instance
	n.debugger, _ = instance.(Debugger)
	if a.file != nil {
		// A driver without files got one, as by the name that an image has for
		// what is behind it (observed: own/blockdev/backing-quorum).
		a.Options.Set(optFile, StringOpt(a.file.name))
	}
	if err := a.abandon(nil); err != nil {
		return err
	}
	if err := n.RefreshTotalSectors(a.Lock, 0); err != nil {
		return qerr.Prepend(err, "Could not refresh total sector count: ")
	}
	return n.refreshLimits()
}

// Announce makes the driver's instance known before Open returns, so that a
// [ChildPermer] is asked when children are attached.
func (a *OpenArgs) Announce(i Instance) { a.Node.instance = i }

// abandon drops the file that was opened first if the driver did not attach it.
func (a *OpenArgs) abandon(err error) error {
	if a.file != nil {
		a.Node.graph.Unref(a.Lock, a.file)
		a.file = nil
	}
	return err
}

// refuseLeftovers fails if the driver did not understand an option.
func refuseLeftovers(n *Node, o *Options) error {
	keys := o.Keys()
	if len(keys) == 0 {
		return nil
	}
	if n.drv.ByName() {
		return qerr.New("Block protocol '%s' doesn't support the option '%s'", n.drv.Name, keys[0])
	}
	return qerr.New("Block format '%s' does not support the option '%s'", n.drv.Name, keys[0])
}

// File attaches the child 'file', which every format and filter but few has.
func (a *OpenArgs) File() (*Child, error) {
	role := RoleImage
	if a.Node.drv.Kind == Filter {
		role = RoleFilter
	}
	return a.FileAs(role)
}

// FileAs attaches the child 'file' in a role of the driver's choice.
func (a *OpenArgs) FileAs(role Role) (*Child, error) {
	if a.file == nil {
		return nil, qerr.New("A block device must be specified for \"%s\"", optFile)
	}
	c, err := a.attach(a.file, optFile, role)
	if err != nil {
		return nil, err
	}
	a.file = nil
	a.Node.file = c
	return c, nil
}

// Child opens and attaches another child. allowNone makes it optional: the
// result is nil then.
func (a *OpenArgs) Child(name string, role Role, allowNone bool) (*Child, error) {
	return a.child("", name, role, allowNone)
}

// ChildFile opens and attaches a child by a file name, with the options that
// there are for it.
func (a *OpenArgs) ChildFile(filename, name string, role Role) (*Child, error) {
	return a.child(filename, name, role, false)
}

// ChildImage opens and attaches a child that may be an image of any format.
func (a *OpenArgs) ChildImage(name string, role Role) (*Child, error) {
	r := a.childRequest("", name, role)
	r.image = true
	n, err := a.open(r, name, false)
	if err != nil {
		return nil, err
	}
	return a.adopt(n, name, role)
}

func (a *OpenArgs) child(filename, name string, role Role, allowNone bool) (*Child, error) {
	n, err := a.openChildNode(filename, name, role, allowNone)
	if err != nil || n == nil {
		return nil, err
	}
	return a.adopt(n, name, role)
}

// adopt attaches a child that was opened.
func (a *OpenArgs) adopt(n *Node, name string, role Role) (*Child, error) {
	c, err := a.attach(n, name, role)
	if err != nil {
		a.Node.graph.Unref(a.Lock, n)
		return nil, err
	}
	switch {
	case name == optBacking:
		a.Node.backing = c
	case role&RolePrimary != 0:
		a.Node.file = c
	}
	return c, nil
}

func (a *OpenArgs) attach(n *Node, name string, role Role) (c *Child, err error) {
	a.Node.graph.DrainAll(a.Lock)
	err = a.Node.graph.Write(a.Lock, "attach "+name, func(w *Write) error {
		c, err = w.AttachChild(a.Node, n, name, role)
		return err
	})
	return c, err
}

// openChildNode opens what the options say of a child: a reference to a node,
// or options of an inline one.
func (a *OpenArgs) openChildNode(filename, name string, role Role, allowNone bool) (*Node, error) {
	return a.open(a.childRequest(filename, name, role), name, allowNone)
}

func (a *OpenArgs) open(r *openRequest, name string, allowNone bool) (*Node, error) {
	if r.filename == "" && r.reference == nil && r.options.Len() == 0 {
		if allowNone {
			return nil, nil
		}
		return nil, qerr.New("A block device must be specified for \"%s\"", name)
	}
	return a.Node.graph.openNode(a.Lock, r)
}

func (a *OpenArgs) childRequest(filename, name string, role Role) *openRequest {
	r := &openRequest{
		filename: filename,
		options:  a.Options.Sub(name, true),
		parent:   a.Node,
		role:     role,
		depth:    a.depth + 1,
	}
	if ref, ok := a.Options.Get(name); ok {
		if ref.Kind() != qjson.Object { // those without options
			text := ref.String()
			r.reference = &text
		}
		a.Options.Delete(name)
	}
	return r
}

// Graph is the graph the node is opened in.
func (a *OpenArgs) Graph() *Graph { return a.Node.graph }

// OpenFile opens a host file by the means the graph was given.
func (g *Graph) OpenFile(path string, flags int) (*os.File, error) {
	if g.cfg.OpenFile != nil {
		return g.cfg.OpenFile(path, flags)
	}
	return os.OpenFile(path, flags, 0o644)
}
