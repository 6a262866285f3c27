package sockets

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// Address is where a socket is: exactly one member is set.
type Address struct {
	Inet  *InetAddress
	Unix  *UnixAddress
	Vsock *VsockAddress
	FD    *string // a descriptor that is open already: its number or name
}

// FDSource turns the text of an address into a descriptor, which becomes the
// caller's.
type FDSource func(ctx context.Context, name string) (*os.File, error)

// Listen makes a listening socket with room for backlog clients that wait,
// and the kernel adds one more. It returns the address that the socket got.
// Closing the listener removes the socket's file.
func (a Address) Listen(ctx context.Context, backlog int, fds FDSource) (net.Listener, Address, error) {
	l, bound, err := a.listen(ctx, backlog, fds)
	if err != nil {
		return nil, Address{}, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true) // package net leaves abstract names alone
	}
	return l, bound, nil
}

func (a Address) listen(ctx context.Context, backlog int, fds FDSource) (net.Listener, Address, error) {
	switch {
	case a.Unix != nil:
		l, at, err := a.Unix.listen(backlog)
		return l, Address{Unix: at}, err
	case a.Vsock != nil:
		l, err := a.Vsock.listen(backlog)
		return l, a, err
	case a.Inet != nil:
		return bound(a.Inet.listen(ctx, backlog))
	}
	return bound(openFD(ctx, *a.FD, fds, func(file *os.File) (net.Listener, error) {
		if err := control(file, func(fd int) error { return unix.Listen(fd, backlog) }); err != nil {
			return nil, sysError(err, "Failed to listen on fd socket")
		}
		return net.FileListener(file)
	}))
}

// bound adds the address that a listener got.
func bound(l net.Listener, err error) (net.Listener, Address, error) {
	if err != nil {
		return nil, Address{}, err
	}
	return l, localAddress(l.Addr()), nil
}

// Dial connects. Of several addresses the first that answers is taken.
func (a Address) Dial(ctx context.Context, fds FDSource) (net.Conn, error) {
	switch {
	case a.Unix != nil:
		return a.Unix.dial(ctx)
	case a.Inet != nil:
		return a.Inet.dial(ctx)
	case a.Vsock != nil:
		return a.Vsock.dial(ctx)
	}
	return openFD(ctx, *a.FD, fds, net.FileConn)
}

// localAddress describes the address that a socket is bound to.
func localAddress(addr net.Addr) Address {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		return Address{Inet: localInet(addr)}
	case *net.UnixAddr:
		return Address{Unix: localUnix(addr)}
	}
	return Address{}
}

// String describes the address in the words of query-chardev.
func (a Address) String() string {
	switch {
	case a.Inet != nil:
		return "tcp:" + a.Inet.Host + ":" + a.Inet.Port
	case a.FD != nil:
		return "fd:" + *a.FD
	case a.Vsock != nil:
		return "vsock:" + a.Vsock.CID + ":" + a.Vsock.Port
	case a.Unix == nil:
		return "unknown"
	}
	text := "unix:" + a.Unix.Path
	if a.Unix.abstract() {
		text += ",abstract=on"
		if a.Unix.tight() {
			text += ",tight=on"
		}
	}
	return text
}

// AppendJSON appends the address as QAPI's SocketAddress, in output format.
func (a Address) AppendJSON(dst []byte) ([]byte, error) {
	var o object
	switch {
	case a.Inet != nil:
		o.str("type", new("inet")).str("host", &a.Inet.Host).str("port", &a.Inet.Port)
		o.bool("ipv4", a.Inet.IPv4).bool("ipv6", a.Inet.IPv6).bool("keep-alive", a.Inet.KeepAlive)
		o.bool("numeric", a.Inet.Numeric).bool("mptcp", a.Inet.MPTCP)
		if a.Inet.To != nil {
			o.member("to", qjson.AppendUint(nil, uint64(*a.Inet.To)))
		}
	case a.Unix != nil:
		o.str("type", new("unix")).str("path", &a.Unix.Path).bool("abstract", a.Unix.Abstract).bool("tight", a.Unix.Tight)
	case a.Vsock != nil:
		o.str("type", new("vsock")).str("cid", &a.Vsock.CID).str("port", &a.Vsock.Port)
	default:
		o.str("type", new("fd")).str("str", a.FD)
	}
	v, err := qjson.Parse(append(o, '}'))
	if err != nil {
		return dst, err
	}
	return qjson.AppendValue(dst, v), nil
}

// object is the text of a JSON object without its closing brace. Members that
// are nil are left out.
type object []byte

func (o *object) member(name string, value []byte) *object {
	sep := ", "
	if len(*o) == 0 {
		sep = "{"
	}
	*o = append(append(qjson.AppendString(append(*o, sep...), name), ": "...), value...)
	return o
}

func (o *object) str(name string, s *string) *object {
	if s == nil {
		return o
	}
	return o.member(name, qjson.AppendString(nil, *s))
}

func (o *object) bool(name string, b *bool) *object {
	if b == nil {
		return o
	}
	return o.member(name, qjson.AppendBool(nil, *b))
}

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

// control calls f with the descriptor behind c.
func control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := raw.Control(func(fd uintptr) { callErr = f(int(fd)) }); err != nil {
		return err
	}
	return callErr
}

// sysError makes an error of a failed system call.
func sysError(err error, format string, args ...any) error {
	return qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), format, args...)
}
