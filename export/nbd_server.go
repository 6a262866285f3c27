package export

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// ServerOptions describe the NBD server.
type ServerOptions struct {
	// TLSCreds is the id of a credentials object, "" for none.
	TLSCreds string
	// TLSAuthz is the id of the object that decides which clients may come.
	TLSAuthz string
	// HandshakeMax is the time a client has for the handshake, in seconds; 0
	// is no limit.
	HandshakeMax uint32
	// MaxConnections is how many clients may be connected; 0 is no limit.
	MaxConnections uint32
}

// nbdServer is the NBD server, while it runs.
type nbdServer struct{}

// StartServer starts the NBD server.
func (s *Set) StartServer(_ *aio.Lock, _ *ServerOptions) error {
	if s.server != nil {
		return qerr.New("NBD server already running")
	}
	s.server = &nbdServer{}
	return nil
}

// StopServer takes away every export of the kind and ends the server.
func (s *Set) StopServer(l *aio.Lock) error {
	if s.server == nil {
		return qerr.New("NBD server not running")
	}
	s.closeAll(l, NBD)
	s.server = nil
	return nil
}

// ServerRunning tells whether the NBD server runs.
func (s *Set) ServerRunning() bool { return s.server != nil }

// nbd is the part of an export that is its kind's.
type nbd struct {
	set  *Set
	name string
}

func (s *Set) newNBD() kind { return &nbd{set: s} }

func (n *nbd) create(_ *aio.Lock, e *Export, o *Options) error {
	n.name = e.nodeName()
	if o.NBD.Name != nil {
		n.name = *o.NBD.Name
	}
	if n.set.server == nil {
		return qerr.New("NBD server not running")
	}
	for _, other := range n.set.exports {
		if other.kind.(*nbd).name == n.name && !other.shutting {
			return qerr.New("NBD server already has export named '%s'", n.name)
		}
	}
	for _, b := range o.NBD.Bitmaps {
		switch {
		case b.Node == nil:
			return qerr.New("Bitmap '%s' is not found", b.Name)
		case n.set.cfg.Graph.Node(*b.Node) == nil:
			return qerr.New("Node '%s' not found", *b.Node)
		}
		return qerr.New("Dirty bitmap '%s' not found", b.Name)
	}
	return nil
}

func (n *nbd) requestShutdown(*aio.Lock) {}
func (n *nbd) delete(*aio.Lock)          {}
