package chardev

import (
	"context"
	"os"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom"
	"github.com/qmpblock/qmpblock/sockets"
)

// Config connects a Set with its surroundings.
type Config struct {
	// Stdin and Stdout are what stdio devices use; nil: those of the process.
	Stdin, Stdout *os.File
	// NamedFD hands out a descriptor that the client passed whose command ctx
	// belongs to, for socket addresses in Set.Add and Set.Change. nil:
	// descriptors cannot be passed that way.
	NamedFD func(ctx context.Context, name string) (*os.File, error)
	// Info takes lines for the user. nil: they are dropped.
	Info func(line string)
}

// Set is the character devices of an instance. They are the children of
// /chardevs in its object tree.
type Set struct {
	cfg       Config
	tree      *qom.Tree
	container *qom.Object
	stdio     stdioLock
}

// Return is what making a device tells.
type Return struct {
	PTY string // the terminal of a pty device, "" for other kinds
}

// Info describes a device as query-chardev shows it.
type Info struct {
	Label        string
	Filename     string
	FrontendOpen bool
}

// NewSet makes an empty set over a tree that knows the types of character
// devices.
func NewSet(tree *qom.Tree, cfg Config) *Set {
	if cfg.Stdin == nil {
		cfg.Stdin = os.Stdin
	}
	if cfg.Stdout == nil {
		cfg.Stdout = os.Stdout
	}
	if cfg.Info == nil {
		cfg.Info = func(string) {}
	}
	tree.Define("chardev-socket", connectedProperty(), addrProperty())
	return &Set{cfg: cfg, tree: tree, container: tree.Container("chardevs")}
}

// Get returns the device of that label, nil if there is none.
func (s *Set) Get(label string) *Chardev {
	o := s.container.Child(label)
	if o == nil {
		return nil
	}
	c, _ := o.Value.(*Chardev)
	return c
}

func (s *Set) all() []*Chardev {
	var all []*Chardev
	for _, o := range s.container.Children() {
		if c, ok := o.Value.(*Chardev); ok {
			all = append(all, c)
		}
	}
	return all
}

// List describes all devices, in the order of the reference's hash table.
func (s *Set) List() []Info {
	infos := []Info{}
	for _, c := range s.all() {
		infos = append(infos, Info{c.label, c.Filename(), c.FrontendOpen()})
	}
	return infos
}

// Backends lists the kinds of backends in the reference's order.
func (s *Set) Backends() []string {
	var names []string
	for _, typ := range s.tree.Types("chardev", false) {
		names = append(names, strings.TrimPrefix(typ.Name, "chardev-"))
	}
	return names
}

// BackendsHelp lists the kinds of backends as --chardev help does: in the
// opposite order.
func (s *Set) BackendsHelp() string {
	var b strings.Builder
	for _, name := range s.Backends() {
		text := b.String()
		b.Reset()
		b.WriteString("\n  " + name + text)
	}
	return "Available chardev backend types: " + b.String() + "\n"
}

// Add makes a device for chardev-add. ctx ends the wait for the first client
// of a socket with Wait, and for a connection to be made.
func (s *Set) Add(ctx context.Context, label string, b Backend) (Return, error) {
	if s.Get(label) != nil {
		return Return{}, qerr.New("Chardev with id '%s' already exists", label)
	}
	return s.addPrefixed(ctx, label, b)
}

func (s *Set) addPrefixed(ctx context.Context, label string, b Backend) (Return, error) {
	r, err := s.add(ctx, label, b, s.namedFD)
	if err != nil {
		err = qerr.Prepend(err, "Failed to add chardev '%s': ", label)
	}
	return r, err
}

func (s *Set) namedFD(ctx context.Context, name string) (*os.File, error) {
	if s.cfg.NamedFD == nil {
		return sockets.NoFDs(ctx, name)
	}
	return s.cfg.NamedFD(ctx, name)
}

// AddLegacy makes the device of a --chardev option. Socket addresses with a
// descriptor name it by its number, and take it over.
func (s *Set) AddLegacy(ctx context.Context, l *Legacy) (Return, error) {
	if !l.Mux {
		return s.add(ctx, l.ID, l.Backend, sockets.NumberedFD)
	}
	base := l.ID + "-base"
	r, err := s.add(ctx, base, l.Backend, sockets.NumberedFD)
	if err != nil {
		return r, err
	}
	if _, err := s.add(ctx, l.ID, &Mux{Chardev: base}, sockets.NumberedFD); err != nil {
		s.Get(base).remove()
		return Return{}, err
	}
	return r, nil
}

func (s *Set) add(ctx context.Context, label string, b Backend, fds sockets.FDSource) (Return, error) {
	c, err := s.open(ctx, label, b, fds)
	if err != nil {
		return Return{}, err
	}
	if err := s.container.AddChild(label, c.object); err != nil {
		c.close()
		return Return{}, err
	}
	var r Return
	if p, ok := c.dev.(*pty); ok {
		r.PTY = p.name
	}
	return r, nil
}

// Change replaces a device by another for chardev-change. A device without a
// frontend is lost when the new one cannot be made (observed).
func (s *Set) Change(ctx context.Context, label string, b Backend) (Return, error) {
	c := s.Get(label)
	if c == nil {
		return Return{}, qerr.New("Chardev '%s' does not exist", label)
	}
	if c.isMux() {
		return Return{}, qerr.New("For mux or hub device hotswap is not supported yet")
	}
	if c.busy() {
		return Return{}, qerr.New("Chardev user does not support chardev hotswap")
	}
	c.remove()
	return s.addPrefixed(ctx, label, b)
}

// Remove deletes a device that has no frontend.
func (s *Set) Remove(label string) error {
	c := s.Get(label)
	switch {
	case c == nil:
		return qerr.New("Chardev '%s' not found", label)
	case c.busy():
		return qerr.New("Chardev '%s' is busy", label)
	}
	c.remove()
	return nil
}

// SendBreak sends a break over a serial line; other devices ignore it.
func (s *Set) SendBreak(label string) error {
	c := s.Get(label)
	if c == nil {
		return qerr.New("Chardev '%s' not found", label)
	}
	if b, ok := c.dev.(interface{ sendBreak() }); ok {
		b.sendBreak()
	}
	return nil
}

// Close deletes all devices. Frontends get net.ErrClosed from then on.
func (s *Set) Close() {
	all := s.all()
	for _, c := range all {
		if c.isMux() {
			c.remove()
		}
	}
	for _, c := range all {
		c.remove()
	}
}

// ringbuf finds a device that must be a ring buffer.
func (s *Set) ringbuf(label string) (*ringbuf, error) {
	c := s.Get(label)
	if c == nil {
		return nil, qerr.New("Device '%s' not found", label)
	}
	r, ok := c.dev.(*ringbuf)
	if !ok {
		return nil, qerr.New("%s is not a ringbuf device", label)
	}
	return r, nil
}

func connectedProperty() *qom.Property {
	return &qom.Property{Name: "connected", Type: "bool", ReadOnly: true, Get: func(o *qom.Object, dst []byte) ([]byte, error) {
		return qjson.AppendBool(dst, o.Value.(*Chardev).dev.(*socket).connected()), nil
	}}
}

func addrProperty() *qom.Property {
	return &qom.Property{Name: "addr", Type: "SocketAddress", ReadOnly: true, Get: func(o *qom.Object, dst []byte) ([]byte, error) {
		return o.Value.(*Chardev).dev.(*socket).addr.AppendJSON(dst)
	}}
}
