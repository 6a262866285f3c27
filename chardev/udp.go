package chardev

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/sockets"
)

// udpConn is a datagram socket. That nobody listened at the other side is no
// reason to stop reading.
type udpConn struct{ *net.UDPConn }

func (c udpConn) Read(p []byte) (int, error) {
	for {
		n, err := c.UDPConn.Read(p)
		if !errors.Is(err, unix.ECONNREFUSED) {
			return n, err
		}
	}
}

// Write never fails: datagrams may get lost.
func (c udpConn) Write(p []byte) (int, error) {
	_, _ = c.UDPConn.Write(p)
	return len(p), nil
}

func openUDP(ctx context.Context, b *UDP) (device, error) {
	remote, err := udpAddress(ctx, b.Remote, "localhost")
	if err != nil {
		return nil, err
	}
	local := netip.AddrPort{}
	if b.Local != nil {
		if local, err = udpAddress(ctx, *b.Local, ""); err != nil {
			return nil, err
		}
	}
	conn, err := dialUDP(local, remote)
	if err != nil {
		return nil, err
	}
	c := udpConn{conn}
	return newStream("udp", c, c).onClose(func() { conn.Close() }), nil
}

// udpAddress resolves an address; local ones have no default host.
func udpAddress(ctx context.Context, a sockets.Address, host string) (addr netip.AddrPort, err error) {
	if a.Inet == nil {
		return addr, qerr.New("socket type unsupported for datagram")
	}
	inet := *a.Inet
	if inet.Host == "" {
		inet.Host = host
	}
	if host != "" && inet.Port == "" {
		return addr, qerr.New("remote port not specified")
	}
	addrs, err := inet.Resolve(ctx, "udp", host == "")
	if err != nil {
		return addr, err
	}
	return addrs[0], nil
}

func dialUDP(local, remote netip.AddrPort) (*net.UDPConn, error) {
	var from *net.UDPAddr
	if local.IsValid() {
		if local.Addr().IsUnspecified() && local.Addr().Is4() != remote.Addr().Is4() {
			local = netip.AddrPortFrom(netip.IPv6Unspecified(), local.Port())
		}
		from = net.UDPAddrFromAddrPort(local)
	}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(remote))
	if err == nil {
		return conn, nil
	}
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return nil, sysError(err, "Failed to connect socket")
	}
	return nil, sysError(err, "Failed to bind socket")
}
