package chardev

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// backlog is how many clients can wait while one is served; the kernel adds
// one more.
const backlog = 1

// listenOn makes a listening socket. It does not use package net, whose
// backlog cannot be chosen. Addresses are those of package syscall, which knows
// names that fill all their room.
func listenOn(family int, addr syscall.Sockaddr, bindFailed string) (net.Listener, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, sysError(err, "Failed to create a socket")
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close() // FileListener makes a duplicate
	if family != unix.AF_UNIX {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, sysError(err, "Failed to create a socket")
		}
	}
	if err := syscall.Bind(fd, addr); err != nil {
		return nil, sysError(err, "%s", bindFailed)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, sysError(err, "Failed to listen on socket")
	}
	return net.FileListener(file)
}

func (a *UnixAddress) abstract() bool { return a.Abstract != nil && *a.Abstract }
func (a *UnixAddress) tight() bool    { return a.Tight == nil || *a.Tight }

// name returns the path in the form in which package syscall wants it: an
// abstract name begins with '@', and a path that does gets "./" in front.
func (a *UnixAddress) name() (string, error) {
	const size = len(unix.RawSockaddrUnix{}.Path)
	limit := size
	if a.abstract() {
		limit--
	}
	if len(a.Path) > limit {
		return "", qerr.New("UNIX socket path '%s' is too long", a.Path).
			WithHint("Path must be less than " + strconv.Itoa(size) + " bytes\n")
	}
	switch {
	case a.abstract() && !a.tight():
		return "@" + a.Path + strings.Repeat("\x00", size-1-len(a.Path)), nil
	case a.abstract():
		return "@" + a.Path, nil
	case strings.HasPrefix(a.Path, "@"):
		return "./" + a.Path, nil
	}
	return a.Path, nil
}

// listen replaces what is at the path. It returns the address that was used,
// which differs when there was no path.
func (a *UnixAddress) listen() (net.Listener, *UnixAddress, error) {
	if a.Path == "" && !a.abstract() {
		path, err := temporaryName()
		if err != nil {
			return nil, nil, err
		}
		a = &UnixAddress{Path: path}
	}
	name, err := a.name()
	if err != nil {
		return nil, nil, err
	}
	if !a.abstract() {
		if err := unix.Unlink(a.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, sysError(err, "Failed to unlink socket %s", a.Path)
		}
	}
	l, err := listenOn(unix.AF_UNIX, &syscall.SockaddrUnix{Name: name}, "Failed to bind socket to "+a.Path)
	return l, a, err
}

func temporaryName() (string, error) {
	f, err := os.CreateTemp("", "qemu-socket-")
	if err != nil {
		return "", sysError(err, "Failed to make a temporary socket name")
	}
	return f.Name(), f.Close()
}

func (a *UnixAddress) dial(ctx context.Context) (net.Conn, error) {
	name, err := a.name()
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, qerr.WithErrno(unix.ECONNREFUSED, "Failed to connect to ''")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, sysError(err, "Failed to connect to '%s'", a.Path)
	}
	return conn, nil
}

// numberedFD takes a descriptor that the process inherited.
func numberedFD(_ context.Context, name string) (*os.File, error) {
	n, err := strconv.ParseInt(strings.TrimLeft(name, " \t\n\v\f\r"), 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return nil, qerr.WithErrno(unix.ERANGE, "Unable to parse FD number %s", name)
	case err != nil:
		return nil, qerr.New("Unable to parse FD number %s", name)
	case n < 0:
		return nil, errNoSocket(name)
	}
	if _, err := unix.GetsockoptInt(int(n), unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, errNoSocket(name)
	}
	unix.CloseOnExec(int(n))
	return os.NewFile(uintptr(n), "fd "+name), nil
}

func errNoSocket(name string) error { return qerr.New("File descriptor '%s' is not a socket", name) }

// openFD turns a descriptor into a listener or a connection.
func openFD[T any](ctx context.Context, name string, fds fdSource, open func(*os.File) (T, error)) (result T, err error) {
	file, err := fds(ctx, name)
	if err != nil {
		return result, err
	}
	defer file.Close()
	result, err = open(file)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errNoSocket(name)
	}
	return result, err
}

// localAddress describes the address that a socket is bound to.
func localAddress(addr net.Addr) Address {
	switch addr := addr.(type) {
	case *net.TCPAddr:
		ip := addr.AddrPort().Addr().Unmap()
		a := &InetAddress{Host: ip.String(), Port: strconv.Itoa(addr.Port)}
		if ip.Is4() {
			a.IPv4 = new(true)
		} else {
			a.IPv6 = new(true)
		}
		return Address{Inet: a}
	case *net.UnixAddr:
		if name, ok := strings.CutPrefix(addr.Name, "@"); ok { // package net's mark of an abstract name
			return Address{Unix: (&UnixAddress{Path: name, Abstract: new(true)}).bound()}
		}
		return Address{Unix: &UnixAddress{Path: addr.Name}}
	}
	return Address{}
}

// bound returns the address as a listening socket reports it. An abstract name
// that fills all its room does not count as tight (observed).
func (a *UnixAddress) bound() *UnixAddress {
	if !a.abstract() {
		return &UnixAddress{Path: a.Path}
	}
	tight := a.tight() && len(a.Path) < len(unix.RawSockaddrUnix{}.Path)-1
	return &UnixAddress{Path: a.Path, Abstract: new(true), Tight: &tight}
}

// text describes the address as a device that is not connected shows it.
func (a Address) text() string {
	switch {
	case a.Inet != nil:
		return "tcp:" + a.Inet.Host + ":" + a.Inet.Port
	case a.FD != nil:
		return "fd:" + *a.FD
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

// appendJSON appends the address as QAPI's SocketAddress, in output format.
func (a Address) appendJSON(dst []byte) ([]byte, error) {
	var o object
	switch {
	case a.Inet != nil:
		o.str("type", new("inet")).str("host", &a.Inet.Host).str("port", &a.Inet.Port)
		o.bool("ipv4", a.Inet.IPv4).bool("ipv6", a.Inet.IPv6).bool("keep-alive", a.Inet.KeepAlive).bool("numeric", a.Inet.Numeric)
		if a.Inet.To != nil {
			o.member("to", qjson.AppendUint(nil, uint64(*a.Inet.To)))
		}
	case a.Unix != nil:
		o.str("type", new("unix")).str("path", &a.Unix.Path).bool("abstract", a.Unix.Abstract).bool("tight", a.Unix.Tight)
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
