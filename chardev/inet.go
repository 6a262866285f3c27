package chardev

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// family returns "ip", "ip4" or "ip6" for the protocols that an address allows.
func (a *InetAddress) family() (string, error) {
	on := func(b *bool) bool { return b != nil && *b }
	off := func(b *bool) bool { return b != nil && !*b }
	switch {
	case off(a.IPv4) && off(a.IPv6):
		return "", qerr.New("Cannot disable IPv4 and IPv6 at same time")
	case off(a.IPv6) || on(a.IPv4) && !on(a.IPv6):
		return "ip4", nil
	case off(a.IPv4) || on(a.IPv6) && !on(a.IPv4):
		return "ip6", nil
	}
	return "ip", nil
}

// resolve finds the addresses that a name stands for. A passive one is for
// listening, where no name means any interface. Errors are in the words of the
// C library.
func (a *InetAddress) resolve(ctx context.Context, network string, passive bool) ([]netip.AddrPort, error) {
	family, err := a.family()
	if err != nil {
		return nil, err
	}
	failed := func(reason string) error {
		return qerr.New("address resolution failed for %s:%s: %s", a.Host, a.Port, reason)
	}
	port, ok := lookupPort(ctx, network, a.Port)
	if !ok {
		return nil, failed("Servname not supported for ai_socktype")
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

// listen makes a listening socket on the first address and port that work.
func (a *InetAddress) listen(ctx context.Context) (net.Listener, error) {
	addrs, err := a.resolve(ctx, "tcp", true)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		last := addr.Port()
		if a.To != nil {
			last = *a.To
		}
		err = qerr.WithErrno(unix.EADDRINUSE, "Failed to find an available port")
		for port := int(addr.Port()); port <= int(last); port++ {
			l, stepErr := listenTCP(netip.AddrPortFrom(addr.Addr(), uint16(port)))
			if stepErr == nil {
				return l, nil
			}
			if !errors.Is(stepErr, unix.EADDRINUSE) {
				err = stepErr
				break
			}
		}
	}
	return nil, err
}

func listenTCP(addr netip.AddrPort) (net.Listener, error) {
	const bindFailed = "Failed to bind socket"
	port := int(addr.Port())
	if addr.Addr().Is4() {
		return listenOn(unix.AF_INET, &syscall.SockaddrInet4{Port: port, Addr: addr.Addr().As4()}, bindFailed)
	}
	return listenOn(unix.AF_INET6, &syscall.SockaddrInet6{Port: port, Addr: addr.Addr().As16()}, bindFailed)
}

// dial connects to the first address that answers.
func (a *InetAddress) dial(ctx context.Context) (net.Conn, error) {
	addrs, err := a.resolve(ctx, "tcp", false)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{KeepAlive: -1}
	if a.KeepAlive != nil && *a.KeepAlive {
		d.KeepAlive = 0
	}
	for _, addr := range addrs {
		var conn net.Conn
		if conn, err = d.DialContext(ctx, "tcp", addr.String()); err == nil {
			return conn, nil
		}
	}
	return nil, sysError(err, "Failed to connect to '%s:%s'", a.Host, a.Port)
}
