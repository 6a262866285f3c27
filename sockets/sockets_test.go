package sockets

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// within returns a context that ends with the test, or fails it.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func listen(t *testing.T, a Address) (net.Listener, Address) {
	t.Helper()
	l, bound, err := a.Listen(within(t), 1, NoFDs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, bound
}

// expectTalk passes a byte from a client to the server.
func expectTalk(t *testing.T, l net.Listener, a Address) {
	t.Helper()
	client, err := a.Dial(within(t), NoFDs)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func inet(host, port string) *InetAddress { return &InetAddress{Host: host, Port: port} }

// shortDir is a folder whose name leaves room for a socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestUnix(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := Address{Unix: &UnixAddress{Path: path}}
	l, bound := listen(t, a)
	if bound.String() != "unix:"+path {
		t.Error(bound)
	}
	expectTalk(t, l, bound)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is still there:", err)
	}
	_, err := a.Dial(within(t), NoFDs)
	if want := "Failed to connect to '" + path + "': No such file or directory"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestUnixWithoutPath(t *testing.T) {
	t.Parallel()
	l, bound := listen(t, Address{Unix: &UnixAddress{}})
	expectTalk(t, l, bound)
	l.Close()
	if _, err := os.Lstat(bound.Unix.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is still there:", err)
	}
}

func TestAbstract(t *testing.T) {
	t.Parallel()
	for _, tight := range []bool{true, false} {
		a := Address{Unix: &UnixAddress{Path: "qmpblock-" + filepath.Base(t.TempDir()) + t.Name(), Abstract: new(true), Tight: &tight}}
		l, bound := listen(t, a)
		want := "unix:" + a.Unix.Path + ",abstract=on"
		if tight {
			want += ",tight=on"
		}
		if bound.String() != want {
			t.Errorf("%s, want %s", bound, want)
		}
		expectTalk(t, l, a)
		l.Close()
	}
}

// TestAllAddresses listens on any interface: with IPv4 and IPv6, on a port of
// each where none is given, on the same where one is.
func TestAllAddresses(t *testing.T) {
	t.Parallel()
	l, bound := listen(t, Address{Inet: inet("", "0")})
	s, ok := l.(*several)
	if !ok || len(s.all) != 2 {
		t.Skip("the machine has no IPv6")
	}
	if bound.Inet.Host != "0.0.0.0" || !isTrue(bound.Inet.IPv4) {
		t.Errorf("%+v", bound.Inet)
	}
	for _, one := range s.all {
		at := localAddress(one.Addr())
		at.Inet.Host = map[string]string{"0.0.0.0": "127.0.0.1", "::": "::1"}[at.Inet.Host]
		expectTalk(t, l, at)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		waiting <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	_, first := listen(t, Address{Inet: inet("127.0.0.1", "0")})
	busy := *first.Inet
	_, _, err := Address{Inet: &busy}.Listen(within(t), 1, NoFDs)
	if want := "Failed to find an available port: Address already in use"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	busy.To = new(uint16(65535))
	l, second := listen(t, Address{Inet: &busy})
	if second.Inet.Port == first.Inet.Port {
		t.Error(second)
	}
	expectTalk(t, l, second)
}

func TestMultipath(t *testing.T) {
	t.Parallel()
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP); err != nil {
		t.Skip("the kernel has no multi-path TCP")
	} else {
		unix.Close(fd)
	}
	a := inet("127.0.0.1", "0")
	a.MPTCP = new(true)
	l, bound := listen(t, Address{Inet: a})
	bound.Inet.MPTCP = a.MPTCP
	expectTalk(t, l, bound)
}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	source := func(_ context.Context, name string) (*os.File, error) {
		switch name {
		case "listening":
			return l.File()
		case "file":
			return os.Open(os.DevNull)
		}
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.File()
	}
	passed, bound, err := Address{FD: new("listening")}.Listen(within(t), 1, source)
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	if bound.String() != "unix:"+path {
		t.Error(bound)
	}
	client, err := Address{FD: new("connected")}.Dial(within(t), source)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := passed.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	for name, want := range map[string]string{
		"connected": "Failed to listen on fd socket: Invalid argument",
		"file":      "Failed to listen on fd socket: Socket operation on non-socket",
	} {
		if _, _, err := (Address{FD: &name}).Listen(within(t), 1, source); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	_, err = Address{FD: new("file")}.Dial(within(t), source)
	if want := "File descriptor 'file' is not a socket"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestVsock listens, and talks where the machine can reach itself.
func TestVsock(t *testing.T) {
	t.Parallel()
	if fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0); err != nil {
		t.Skip("the kernel has no vsock")
	} else {
		unix.Close(fd)
	}
	const anyCID, anyPort, local = "4294967295", "4294967295", "1"
	l, bound := listen(t, Address{Vsock: &VsockAddress{anyCID, anyPort}})
	if bound.String() != "vsock:"+anyCID+":"+anyPort {
		t.Error(bound)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		waiting <- err
	}()
	l.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (Address{Vsock: &VsockAddress{local, "1"}}).Dial(ctx, NoFDs); err == nil || !strings.HasPrefix(err.Error(), "Failed to connect to '1:1': ") {
		t.Error(err)
	}
}

// TestVsockConn drives the connection's side of the poller over another kind
// of socket.
func TestVsockConn(t *testing.T) {
	t.Parallel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := &vsockConn{File: os.NewFile(uintptr(pair[0]), "a"), remote: vsockAddr("2:1")}
	b := &vsockConn{File: os.NewFile(uintptr(pair[1]), "b"), remote: vsockAddr("2:2")}
	defer a.Close()
	if err := a.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if a.RemoteAddr().String() != "2:1" || a.RemoteAddr().Network() != "vsock" {
		t.Error(a.RemoteAddr())
	}
}

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		a    Address
		want string
	}{
		{Address{Inet: &InetAddress{Host: "h", Port: "1", To: new(uint16(2)), MPTCP: new(true)}},
			`{"port": "1", "mptcp": true, "host": "h", "to": 2, "type": "inet"}`},
		{Address{Vsock: &VsockAddress{"2", "3"}}, `{"port": "3", "cid": "2", "type": "vsock"}`},
		{Address{FD: new("x")}, `{"str": "x", "type": "fd"}`},
		{Address{Unix: &UnixAddress{Path: "p"}}, `{"path": "p", "type": "unix"}`},
	} {
		if got, err := k.a.AppendJSON(nil); err != nil || string(got) != k.want {
			t.Errorf("%s, %v, want %s", got, err, k.want)
		}
	}
}
