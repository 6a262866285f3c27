package sockets

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// InetAddress is an address of TCP or UDP.
type InetAddress struct {
	Host, Port string
	IPv4, IPv6 *bool   // restrict the protocol
	To         *uint16 // server: try ports up to this one
	KeepAlive  *bool   // client
	Numeric    *bool   // server: host and port must be numbers
	MPTCP      *bool   // use multi-path TCP
}

// family returns "ip", "ip4" or "ip6" for the protocols that an address allows.
func (a *InetAddress) family() (string, error) {
	switch {
	case isFalse(a.IPv4) && isFalse(a.IPv6):
		return "", qerr.New("Cannot disable IPv4 and IPv6 at same time")
	case isFalse(a.IPv6) || isTrue(a.IPv4) && !isTrue(a.IPv6):
		return "ip4", nil
	case isFalse(a.IPv4) || isTrue(a.IPv6) && !isTrue(a.IPv4):
		return "ip6", nil
	}
	return "ip", nil
}

// Resolve finds the addresses that a name stands for; network is "tcp" or
// "udp". A passive one is for listening, where no name means any interface.
// Errors are in the words of the C library.
func (a *InetAddress) Resolve(ctx context.Context, network string, passive bool) ([]netip.AddrPort, error) {
	family, err := a.family()
	if err != nil {
		return nil, err
	}
	failed := func(reason string) error {
		return qerr.New("address resolution failed for %s:%s: %s", a.Host, a.Port, reason)
	}
	if passive && isTrue(a.Numeric) && !a.isNumeric() {
		return nil, failed("Name or service not known")
	}
	port, ok := lookupPort(ctx, network, a.Port)
	if !ok {
		return nil, failed("Servname not supported for ai_socktype")
	}
	if passive && a.Host == "" && isTrue(a.IPv4) && isTrue(a.IPv6) {
		family = "ip6" // one socket serves both (observed)
	}
	ips, reason := lookupHost(ctx, family, a.Host, passive)
	if reason != "" {
		return nil, failed(reason)
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), port)
	}
	return addrs, nil
}

func (a *InetAddress) isNumeric() bool {
	_, hostErr := netip.ParseAddr(a.Host)
	_, portErr := strconv.ParseUint(a.Port, 10, 64)
	return (a.Host == "" || hostErr == nil) && (a.Port == "" || portErr == nil)
}

// lookupPort reads the number or name of a port. Only the low 16 bits of a
// number count, as for the C library.
func lookupPort(ctx context.Context, network, text string) (port uint16, ok bool) {
	digits := strings.TrimPrefix(strings.TrimLeft(text, " \t\n\v\f\r"), "+")
	if text == "" {
		return 0, true
	}
	if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
		return uint16(n), int32(n) >= 0
	}
	n, err := net.DefaultResolver.LookupPort(ctx, network, text)
	return uint16(n), err == nil
}

func lookupHost(ctx context.Context, family, host string, passive bool) (ips []netip.Addr, reason string) {
	if host == "" && passive {
		return anyInterface(family), ""
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return literal(ip, family, passive)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, family, host)
	if len(ips) == 0 && family == "ip6" && !passive {
		ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	}
	var dns *net.DNSError
	switch {
	case err == nil && len(ips) > 0:
		return ips, ""
	case errors.As(err, &dns) && dns.IsTemporary && !dns.IsNotFound:
		return nil, "Temporary failure in name resolution"
	}
	return nil, "Name or service not known"
}

// literal checks the family of an address. A socket for IPv6 can connect to
// IPv4 addresses too.
func literal(ip netip.Addr, family string, passive bool) (ips []netip.Addr, reason string) {
	if family == "ip4" && !ip.Is4() || family == "ip6" && ip.Is4() && passive {
		return nil, "Address family for hostname not supported"
	}
	return []netip.Addr{ip}, ""
}

func anyInterface(family string) []netip.Addr {
	switch family {
	case "ip4":
		return []netip.Addr{netip.IPv4Unspecified()}
	case "ip6":
		return []netip.Addr{netip.IPv6Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// listen listens on every address that the name stands for, as far as it can.
func (a *InetAddress) listen(ctx context.Context, backlog int) (net.Listener, error) {
	addrs, err := a.Resolve(ctx, "tcp", true)
	if err != nil {
		return nil, err
	}
	var all []net.Listener
	for _, addr := range addrs {
		l, oneErr := a.listenOn(addr, backlog)
		if oneErr != nil {
			err = oneErr
			continue
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, err
	}
	return join(all), nil
}

// listenOn takes the first free port of an address.
func (a *InetAddress) listenOn(addr netip.AddrPort, backlog int) (net.Listener, error) {
	last := addr.Port()
	if a.To != nil {
		last = *a.To
	}
	if last < addr.Port() {
		// There was nothing to try. The reference reports what a system call
		// before failed with, mostly this.
		return nil, qerr.WithErrno(unix.ENOTCONN, "Failed to create a socket")
	}
	for port := int(addr.Port()); port <= int(last); port++ {
		l, err := a.listenTCP(netip.AddrPortFrom(addr.Addr(), uint16(port)), backlog)
		if err == nil || !errors.Is(err, unix.EADDRINUSE) {
			return l, err
		}
	}
	return nil, qerr.WithErrno(unix.EADDRINUSE, "Failed to find an available port")
}

func (a *InetAddress) listenTCP(addr netip.AddrPort, backlog int) (net.Listener, error) {
	family, protocol := unix.AF_INET6, 0
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	if isTrue(a.MPTCP) {
		protocol = unix.IPPROTO_MPTCP
	}
	file, err := newSocket(family, protocol)
	if err != nil {
		return nil, err
	}
	defer file.Close() // FileListener makes a duplicate
	if err := control(file, reuseAddress); err != nil {
		return nil, sysError(err, "Failed to create a socket")
	}
	if err := a.bind(file, addr); err != nil {
		return nil, sysError(err, "Failed to bind socket")
	}
	return listener(file, backlog)
}

func reuseAddress(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }

// bind lets an IPv6 socket serve IPv4 too, unless the address forbids it or
// somebody has the port there.
func (a *InetAddress) bind(file *os.File, addr netip.AddrPort) error {
	port := int(addr.Port())
	if addr.Addr().Is4() {
		return bindTo(file, &syscall.SockaddrInet4{Port: port, Addr: addr.Addr().As4()})
	}
	family, err := a.family()
	if err != nil {
		return err
	}
	for _, only := range []int{0, 1} {
		if only == 0 && family == "ip6" {
			continue
		}
		set := func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only) }
		if err := control(file, set); err != nil {
			return err
		}
		err = bindTo(file, &syscall.SockaddrInet6{Port: port, Addr: addr.Addr().As16()})
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return err
}

// dial connects to the first address that answers.
func (a *InetAddress) dial(ctx context.Context) (net.Conn, error) {
	addrs, err := a.Resolve(ctx, "tcp", false)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAlive: -1}
	if isTrue(a.KeepAlive) {
		d.KeepAlive = 0
	}
	d.SetMultipathTCP(isTrue(a.MPTCP))
	for _, addr := range addrs {
		var conn net.Conn
		if conn, err = d.DialContext(ctx, "tcp", addr.String()); err == nil {
			return conn, nil
		}
	}
	return nil, sysError(err, "Failed to connect to '%s:%s'", a.Host, a.Port)
}

// localInet describes the address of a listening socket.
func localInet(addr *net.TCPAddr) *InetAddress {
	ip := addr.AddrPort().Addr().Unmap()
	a := &InetAddress{Host: ip.String(), Port: strconv.Itoa(addr.Port)}
	if ip.Is4() {
		a.IPv4 = new(true)
	} else {
		a.IPv6 = new(true)
	}
	return a
}
