package sockets

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// VsockAddress is an address of a virtual machine's socket: a context's number
// and a port's, of 32 bits each.
//
// Package net knows no such sockets. Here they are non-blocking files in the
// runtime's poller, which gives them deadlines and parks goroutines that wait.
type VsockAddress struct{ CID, Port string }

func (a *VsockAddress) sockaddr() (*unix.SockaddrVM, error) {
	cid, err := strconv.ParseUint(a.CID, 10, 32)
	if err != nil {
		return nil, qerr.New("Failed to parse cid '%s'", a.CID)
	}
	port, err := strconv.ParseUint(a.Port, 10, 32)
	if err != nil {
		return nil, qerr.New("Failed to parse port '%s'", a.Port)
	}
	return &unix.SockaddrVM{CID: uint32(cid), Port: uint32(port)}, nil
}

func (a *VsockAddress) listen(backlog int) (net.Listener, error) {
	addr, err := a.sockaddr()
	if err != nil {
		return nil, err
	}
	file, err := newSocket(unix.AF_VSOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := control(file, func(fd int) error { return unix.Bind(fd, addr) }); err != nil {
		file.Close()
		return nil, sysError(err, "Failed to bind socket")
	}
	if err := control(file, func(fd int) error { return unix.Listen(fd, backlog) }); err != nil {
		file.Close()
		return nil, sysError(err, "Failed to listen on socket")
	}
	return &vsockListener{file, a.netAddr()}, nil
}

func (a *VsockAddress) dial(ctx context.Context) (net.Conn, error) {
	addr, err := a.sockaddr()
	if err != nil {
		return nil, err
	}
	file, err := newSocket(unix.AF_VSOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, file, addr); err != nil {
		file.Close()
		return nil, sysError(err, "Failed to connect to '%s:%s'", a.CID, a.Port)
	}
	return &vsockConn{File: file, remote: a.netAddr()}, nil
}

// connect connects a non-blocking socket.
func connect(ctx context.Context, file *os.File, addr unix.Sockaddr) error {
	err := control(file, func(fd int) error { return unix.Connect(fd, addr) })
	if !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		result = connected(int(fd))
		return !errors.Is(result, unix.EINPROGRESS)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return result
}

// connected tells how an attempt to connect ended, EINPROGRESS if it has not.
func connected(fd int) error {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
	switch {
	case errors.Is(err, unix.EINTR), err == nil && n == 0:
		return unix.EINPROGRESS
	case err != nil:
		return err
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = syscall.Errno(code)
	}
	return err
}

// vsockAddr is an address as package net wants it.
type vsockAddr string

func (vsockAddr) Network() string  { return "vsock" }
func (a vsockAddr) String() string { return string(a) }

func (a *VsockAddress) netAddr() net.Addr { return vsockAddr(a.CID + ":" + a.Port) }

func vsockName(addr unix.Sockaddr) net.Addr {
	vm, ok := addr.(*unix.SockaddrVM)
	if !ok {
		return vsockAddr("")
	}
	return (&VsockAddress{strconv.FormatUint(uint64(vm.CID), 10), strconv.FormatUint(uint64(vm.Port), 10)}).netAddr()
}

type vsockListener struct {
	file *os.File
	addr net.Addr
}

// Accept implements net.Listener.
func (l *vsockListener) Accept() (net.Conn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var peer unix.Sockaddr
	var result error
	err = raw.Read(func(listening uintptr) bool {
		fd, peer, result = unix.Accept4(int(listening), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return !errors.Is(result, unix.EAGAIN) && !errors.Is(result, unix.EINTR)
	})
	if err != nil {
		return nil, net.ErrClosed // there is no deadline, so nothing else can end the wait
	}
	if result != nil {
		return nil, result
	}
	return &vsockConn{File: os.NewFile(uintptr(fd), "vsock"), remote: vsockName(peer)}, nil
}

// Close implements net.Listener.
func (l *vsockListener) Close() error { return l.file.Close() }

// Addr implements net.Listener.
func (l *vsockListener) Addr() net.Addr { return l.addr }

// vsockConn is a connection; its file does the work.
type vsockConn struct {
	*os.File
	remote net.Addr
}

// LocalAddr implements net.Conn.
func (c *vsockConn) LocalAddr() net.Addr {
	var local unix.Sockaddr
	_ = control(c.File, func(fd int) (err error) {
		local, err = unix.Getsockname(fd)
		return err
	})
	return vsockName(local)
}

// RemoteAddr implements net.Conn.
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }
