package sockets

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
)

// UnixAddress is an address of a UNIX socket.
type UnixAddress struct {
	Path     string // server: "" for a new name in the folder for temporary files
	Abstract *bool  // the name is no file
	Tight    *bool  // abstract: do not pad the name with zeroes; default true
}

func (a *UnixAddress) abstract() bool { return isTrue(a.Abstract) }
func (a *UnixAddress) tight() bool    { return !isFalse(a.Tight) }

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
func (a *UnixAddress) listen(backlog int) (net.Listener, *UnixAddress, error) {
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
	file, err := newSocket(unix.AF_UNIX, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close() // FileListener makes a duplicate
	if err := bindTo(file, &syscall.SockaddrUnix{Name: name}); err != nil {
		return nil, nil, sysError(err, "Failed to bind socket to %s", a.Path)
	}
	l, err := listener(file, backlog)
	return l, a.bound(), err
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

// localUnix describes the address of a listening socket.
func localUnix(addr *net.UnixAddr) *UnixAddress {
	if name, ok := strings.CutPrefix(addr.Name, "@"); ok { // package net's mark of an abstract name
		return (&UnixAddress{Path: name, Abstract: new(true)}).bound()
	}
	return &UnixAddress{Path: addr.Name}
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
