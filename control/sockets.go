package control

import (
	"net"
	"os"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/schema"
	"github.com/qmpblock/qmpblock/sockets"
	"github.com/qmpblock/qmpblock/tlssession"
)

// socketAddress turns the schema's address into one to listen on or connect to.
func socketAddress(a *schema.SocketAddress) sockets.Address {
	switch v := a.Variant.(type) {
	case *schema.InetSocketAddress:
		return inetAddress(v)
	case *schema.UnixSocketAddress:
		return unixAddress(v)
	case *schema.VsockSocketAddress:
		return vsockAddress(v)
	case *schema.FdSocketAddress:
		return sockets.Address{FD: &v.Str}
	}
	return sockets.Address{}
}

// socketAddressLegacy does the same for the older notation.
func socketAddressLegacy(a *schema.SocketAddressLegacy) sockets.Address {
	switch v := a.Variant.(type) {
	case *schema.InetSocketAddressWrapper:
		return inetAddress(&v.Data)
	case *schema.UnixSocketAddressWrapper:
		return unixAddress(&v.Data)
	case *schema.VsockSocketAddressWrapper:
		return vsockAddress(&v.Data)
	case *schema.FdSocketAddressWrapper:
		return sockets.Address{FD: &v.Data.Str}
	}
	return sockets.Address{}
}

func inetAddress(a *schema.InetSocketAddress) sockets.Address {
	return sockets.Address{Inet: &sockets.InetAddress{
		Host: a.Host, Port: a.Port, IPv4: a.Ipv4, IPv6: a.Ipv6, To: a.To, KeepAlive: a.KeepAlive, Numeric: a.Numeric, MPTCP: a.Mptcp,
	}}
}

func unixAddress(a *schema.UnixSocketAddress) sockets.Address {
	return sockets.Address{Unix: &sockets.UnixAddress{Path: a.Path, Abstract: a.Abstract, Tight: a.Tight}}
}

func vsockAddress(a *schema.VsockSocketAddress) sockets.Address {
	return sockets.Address{Vsock: &sockets.VsockAddress{CID: a.Cid, Port: a.Port}}
}

// socketFD hands out the descriptor that a node's address names: one that the
// client has passed, or before there are clients one that the process
// inherited.
func (i *Instance) socketFD(name string) (*os.File, error) {
	if i.turn == nil {
		return sockets.NumberedFD(i.ctx, name)
	}
	return i.fdSource()(i.turn, name)
}

// tlsClient finds credentials for connections to servers.
func (i *Instance) tlsClient(id string) (block.TLSStarter, error) {
	c, err := i.objects.TLSCredentials(id, tlssession.Client)
	if err != nil {
		return nil, err
	}
	return func(conn net.Conn, hostname string) (net.Conn, error) {
		host := &hostname
		if hostname == "" {
			host = nil
		}
		return c.Client(i.ctx, conn, host)
	}, nil
}
