package chardev

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qom"
	"github.com/qmpblock/qmpblock/sockets"
)

// shortDir is a folder whose name leaves room for socket names.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newSet(t *testing.T, cfg Config) *Set {
	t.Helper()
	s := NewSet(qom.NewTree(qom.Hooks{}, qom.StorageDaemonTypes()...), cfg)
	t.Cleanup(s.Close)
	return s
}

// within gives every wait of a test an end.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func add(t *testing.T, s *Set, label string, b Backend) *Chardev {
	t.Helper()
	if _, err := s.Add(within(t), label, b); err != nil {
		t.Fatal(err)
	}
	return s.Get(label)
}

func attach(t *testing.T, c *Chardev) *Frontend {
	t.Helper()
	f, err := c.Attach()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func accept(t *testing.T, f *Frontend) Conn {
	t.Helper()
	conn, err := f.Accept(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func expectRead(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := w.Write([]byte(text)); err != nil {
		t.Error(err)
	}
}

func expectError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestOneFrontend(t *testing.T) {
	t.Parallel()
	s := newSet(t, Config{})
	c := add(t, s, "c0", &Null{})
	f := attach(t, c)
	_, err := c.Attach()
	expectError(t, err, "chardev 'c0' is already in use")
	expectError(t, s.Remove("c0"), "Chardev 'c0' is busy")
	_, err = s.Change(within(t), "c0", &Null{})
	expectError(t, err, "Chardev user does not support chardev hotswap")
	if !slices.Equal(s.List(), []Info{{"c0", "null", true}}) {
		t.Errorf("%+v", s.List())
	}
	f.Detach()
	if err := s.Remove("c0"); err != nil || len(s.List()) != 0 {
		t.Errorf("%v, %+v", err, s.List())
	}
}

func TestAcceptEnds(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	for name, b := range map[string]Backend{
		"server": &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: filepath.Join(dir, "s")}}},
		"client": &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: filepath.Join(dir, "nobody")}}, Server: new(false), ReconnectMS: new(int64(1000))},
		"hub":    &Mux{Chardev: "h"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t, Config{})
			add(t, s, "n", &Null{})
			add(t, s, "h", &Hub{Chardevs: []string{"n"}})
			f := attach(t, add(t, s, "c", b))
			ctx, cancel := context.WithCancel(context.Background())
			result := make(chan error)
			go func() {
				_, err := f.Accept(ctx)
				result <- err
			}()
			cancel()
			if err := <-result; !errors.Is(err, context.Canceled) {
				t.Errorf("after cancel: %v", err)
			}
			go func() {
				_, err := f.Accept(context.Background())
				result <- err
			}()
			s.Close()
			if err := <-result; !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestUnixServer(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := filepath.Join(dir, "s.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // stale: it is replaced
		t.Fatal(err)
	}
	s := newSet(t, Config{})
	c := add(t, s, "c", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}})
	if got, want := c.Filename(), "disconnected:unix:"+path+",server=on"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	f := attach(t, c)
	for _, text := range []string{"first", "second"} {
		client := dial(t, path)
		conn := accept(t, f)
		if got, want := c.Filename(), "unix:"+path+",server=on"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		write(t, client, text)
		expectRead(t, conn, text)
		write(t, conn, "reply")
		expectRead(t, client, "reply")
		client.Close()
		if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read %d, %v after the client closed", n, err)
		}
		conn.Close()
	}
	s.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket's file: %v", err)
	}
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// TestBacklog shows what the reference's clients see: one is served, two wait,
// one more is refused; who waits is served when the first has gone.
func TestBacklog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s.sock")
	s := newSet(t, Config{})
	f := attach(t, add(t, s, "c", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}}))
	first := dial(t, path)
	conn := accept(t, f)
	second := dial(t, path)
	write(t, second, "early")
	dial(t, path)
	if _, err := net.Dial("unix", path); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a fourth client: %v", err)
	}
	write(t, conn, "hello")
	expectRead(t, first, "hello")
	conn.Close()
	expectRead(t, accept(t, f), "early")
}

// TestNoFrontend: a client is accepted, and noticed when it goes.
func TestNoFrontend(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s.sock")
	s := newSet(t, Config{})
	server := add(t, s, "server", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}, Wait: new(false)})
	client := add(t, s, "client", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}, Server: new(false)})
	if got, want := client.Filename(), "unix:"+path; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if err := server.dev.(*socket).waitConnected(within(t)); err != nil {
		t.Fatal(err)
	}
	if got, want := server.Filename(), "unix:"+path+",server=on"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, err := s.tree.Get("/chardevs/server", "connected"); err != nil || string(got) != "true" {
		t.Errorf("connected: %s, %v", got, err)
	}
	if err := s.Remove("client"); err != nil {
		t.Fatal(err)
	}
	if got, want := server.Filename(), "disconnected:unix:"+path+",server=on"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	write(t, dial(t, path), "x")
	expectRead(t, accept(t, attach(t, server)), "x")
}

func TestReceiveFDs(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	path := filepath.Join(dir, "s.sock")
	s := newSet(t, Config{})
	f := attach(t, add(t, s, "c", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}}))
	client := dial(t, path)
	conn := accept(t, f)
	if fds := conn.TakeFDs(); len(fds) != 0 {
		t.Errorf("%d descriptors out of nowhere", len(fds))
	}
	send := func(names ...string) {
		var fds []int
		for _, name := range names {
			file, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			write(t, file, name)
			fds = append(fds, int(file.Fd()))
		}
		if _, _, err := client.WriteMsgUnix([]byte("x"), unix.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		expectRead(t, conn, "x")
	}
	content := func(file *os.File) string {
		defer file.Close()
		data := make([]byte, 10)
		n, err := file.ReadAt(data, 0)
		if err != io.EOF {
			t.Error(err)
		}
		return string(data[:n])
	}
	send("a", "b")
	fds := conn.TakeFDs()
	if len(fds) != 2 || content(fds[0]) != "a" || content(fds[1]) != "b" {
		t.Errorf("%d descriptors", len(fds))
	}
	if len(conn.TakeFDs()) != 0 {
		t.Error("descriptors can be taken twice")
	}
	// Those of a later message replace those that nobody took.
	send("a")
	send("b")
	if fds = conn.TakeFDs(); len(fds) != 1 || content(fds[0]) != "b" {
		t.Errorf("%d descriptors", len(fds))
	}
}

func TestCloseUnblocks(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s.sock")
	for name, b := range map[string]Backend{
		"null":    &Null{},
		"file":    &File{Out: filepath.Join(dir, "out")},
		"pipe":    &Pipe{Device: fifo},
		"pty":     &PTY{},
		"ringbuf": &Ringbuf{},
		"udp":     &UDP{Remote: sockets.Address{Inet: &sockets.InetAddress{Host: "127.0.0.1", Port: "9"}}},
		"socket":  &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t, Config{})
			f := attach(t, add(t, s, "c", b))
			for range 3 {
				if name == "socket" {
					dial(t, path)
				}
				conn := accept(t, f)
				result := make(chan error)
				go func() {
					_, err := conn.Read(make([]byte, 1))
					result <- err
				}()
				conn.Close()
				if err := <-result; err == nil {
					t.Error("Read returned without an error")
				}
				if _, err := conn.Write([]byte("x")); err == nil {
					t.Error("a closed connection can be written")
				}
			}
		})
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s.sock")
	lines := make(chan string, 1)
	s := newSet(t, Config{Info: func(line string) { lines <- line }})
	b := &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}, Wait: new(true)}
	result := make(chan error)
	go func() {
		_, err := s.Add(within(t), "c", b)
		result <- err
	}()
	if got, want := <-lines, "QEMU waiting for connection on: disconnected:unix:"+path+",server=on"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	client := dial(t, path)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	write(t, client, "x")
	expectRead(t, accept(t, attach(t, s.Get("c"))), "x")

	b.Addr.Unix.Path += "2"
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, err := s.Add(ctx, "c2", b)
		result <- err
	}()
	<-lines
	cancel()
	if err := <-result; err == nil || s.Get("c2") != nil {
		t.Errorf("cancelled: %v", err)
	}
}

func TestReconnect(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s.sock")
	s := newSet(t, Config{})
	c := add(t, s, "c", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}, Server: new(false), ReconnectMS: new(int64(1))})
	f := attach(t, c)
	for range 3 {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		conn := accept(t, f)
		write(t, server, "x")
		expectRead(t, conn, "x")
		server.Close()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		conn.Close()
	}
}

func TestClientWithoutReconnect(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s := newSet(t, Config{})
	c := add(t, s, "c", &Socket{Addr: sockets.Address{Inet: &sockets.InetAddress{Host: "127.0.0.1", Port: port}}, Server: new(false)})
	f := attach(t, c)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := accept(t, f)
	if got, want := c.Filename(), "tcp:"+server.RemoteAddr().String()+" <-> "+l.Addr().String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	write(t, server, "x")
	expectRead(t, conn, "x")
	conn.Close()
	if got, want := c.Filename(), "disconnected:tcp:127.0.0.1:"+port; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTCPServer(t *testing.T) {
	t.Parallel()
	s := newSet(t, Config{})
	c := add(t, s, "c", &Socket{Addr: sockets.Address{Inet: &sockets.InetAddress{Host: "127.0.0.1", Port: "0"}}})
	at := c.dev.(*socket).addr.Inet
	client, err := net.Dial("tcp", net.JoinHostPort(at.Host, at.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn := accept(t, attach(t, c))
	if got, want := c.Filename(), "tcp:127.0.0.1:"+at.Port+",server=on <-> "+client.LocalAddr().String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	write(t, client, "x")
	expectRead(t, conn, "x")
	if conn.TakeFDs() != nil {
		t.Error("descriptors over TCP")
	}

	// The same port is taken, the next is not.
	busy := *at
	_, err = s.Add(within(t), "d", &Socket{Addr: sockets.Address{Inet: &busy}})
	expectError(t, err, "Failed to add chardev 'd': Failed to find an available port: Address already in use")
	busy.To = new(uint16(65535))
	if _, err := s.Add(within(t), "d", &Socket{Addr: sockets.Address{Inet: &busy}}); err != nil {
		t.Error(err)
	}
}

// TestInheritedSockets passes a listening and a connected socket by number, as
// --chardev does.
func TestInheritedSockets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	listening, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := newSet(t, Config{})
	legacy := func(label, options string, file *os.File) *Chardev {
		t.Helper()
		// The number is taken over, so a duplicate is passed.
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		parsed, err := ParseLegacy("socket,id=" + label + options + ",fd=" + itoa(fd))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.AddLegacy(within(t), parsed); err != nil {
			t.Fatal(err)
		}
		return s.Get(label)
	}
	server := legacy("server", ",server=on,wait=off", listening)
	if got, want := server.Filename(), "disconnected:unix:"+path+",server=on"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	connected, err := dial(t, path).File()
	if err != nil {
		t.Fatal(err)
	}
	client := legacy("client", "", connected)
	if got, want := client.Filename(), "unix:"+path; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	a, b := accept(t, attach(t, server)), accept(t, attach(t, client))
	write(t, a, "x")
	expectRead(t, b, "x")
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

func TestNamedFD(t *testing.T) {
	t.Parallel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(pair[0]), "ours")
	defer ours.Close()
	s := newSet(t, Config{NamedFD: func(_ context.Context, name string) (*os.File, error) {
		if name != "pair" {
			return nil, fs.ErrNotExist
		}
		return os.NewFile(uintptr(pair[1]), "theirs"), nil
	}})
	c := add(t, s, "c", &Socket{Addr: sockets.Address{FD: new("pair")}, Server: new(false)})
	if got := c.Filename(); got != "unix:" {
		t.Error(got)
	}
	write(t, accept(t, attach(t, c)), "x")
	expectRead(t, ours, "x")
	if _, err := s.Add(within(t), "d", &Socket{Addr: sockets.Address{FD: new("other")}}); !errors.Is(err, fs.ErrNotExist) && err == nil {
		t.Error(err)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, in, log := filepath.Join(dir, "out"), filepath.Join(dir, "in"), filepath.Join(dir, "log")
	for _, name := range []string{out, in, log} {
		if err := os.WriteFile(name, []byte("old\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newSet(t, Config{})
	f := attach(t, add(t, s, "c", &File{Out: out, In: &in, Append: true, Common: Common{LogFile: &log}}))
	conn := accept(t, f)
	write(t, conn, "new\n")
	if got, err := io.ReadAll(conn); err != nil || string(got) != "old\n" {
		t.Errorf("%q, %v", got, err)
	}
	conn.Close()
	for name, want := range map[string]string{out: "old\nnew\n", log: "new\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// The input has ended, so there is no other connection.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestPipes(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "p")
	for _, suffix := range []string{".in", ".out"} {
		if err := unix.Mkfifo(base+suffix, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := newSet(t, Config{})
	conn := accept(t, attach(t, add(t, s, "c", &Pipe{Device: base})))
	in, err := os.OpenFile(base+".in", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(base+".out", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	write(t, in, "there")
	expectRead(t, conn, "there")
	write(t, conn, "back")
	expectRead(t, out, "back")
}

func TestPTY(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	s := newSet(t, Config{})
	r, err := s.Add(within(t), "c", &PTY{Path: &link})
	if err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != r.PTY || s.Get("c").Filename() != "pty:"+r.PTY {
		t.Errorf("%s, %v, %s, %s", target, err, r.PTY, s.Get("c").Filename())
	}
	conn := accept(t, attach(t, s.Get("c")))
	write(t, conn, "early\r\n")
	tty, err := os.OpenFile(link, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	expectRead(t, tty, "early\r\n") // raw, so nothing is changed or echoed
	write(t, tty, "\x03\n")
	expectRead(t, conn, "\x03\n")
	s.Close()
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the link: %v", err)
	}
}

func TestStdio(t *testing.T) {
	t.Parallel()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{inR, inW, outR, outW} {
		defer f.Close()
	}
	s := newSet(t, Config{Stdin: inR, Stdout: outW})
	f := attach(t, add(t, s, "c", &Stdio{}))
	_, err = s.Add(within(t), "d", &Stdio{})
	expectError(t, err, "Failed to add chardev 'd': cannot use stdio by multiple character devices")
	conn := accept(t, f)
	write(t, inW, "in")
	expectRead(t, conn, "in")
	write(t, conn, "out")
	expectRead(t, outR, "out")
	f.Detach()
	if err := s.Remove("c"); err != nil {
		t.Fatal(err)
	}
	add(t, s, "d", &Stdio{})
}

// TestStdioTerminal checks that echo is off while the device exists.
func TestStdioTerminal(t *testing.T) {
	t.Parallel()
	s := newSet(t, Config{})
	r, err := s.Add(within(t), "pty", &PTY{})
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(r.PTY, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	flags := func() (lflag uint32, nonblock bool) {
		err := control(tty, func(fd int) error {
			termios, err := unix.IoctlGetTermios(fd, unix.TCGETS)
			if err != nil {
				return err
			}
			fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			lflag, nonblock = termios.Lflag, fl&unix.O_NONBLOCK != 0
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return lflag, nonblock
	}
	err = control(tty, func(fd int) error {
		termios, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		termios.Lflag |= unix.ECHO | unix.ICANON | unix.ISIG
		return unix.IoctlSetTermios(fd, unix.TCSETS, termios)
	})
	if err != nil {
		t.Fatal(err)
	}
	before, blocking := flags()
	other := newSet(t, Config{Stdin: tty, Stdout: tty})
	for _, signal := range []bool{true, false} {
		add(t, other, "c", &Stdio{Signal: &signal})
		if now, _ := flags(); now&(unix.ECHO|unix.ICANON) != 0 || now&unix.ISIG != 0 != signal {
			t.Errorf("signal %v: flags %#x", signal, now)
		}
		if err := other.Remove("c"); err != nil {
			t.Fatal(err)
		}
		if now, nonblock := flags(); now != before || nonblock != blocking {
			t.Errorf("flags %#x, %v afterwards, %#x, %v before", now, nonblock, before, blocking)
		}
	}
}

func TestRingbuf(t *testing.T) {
	t.Parallel()
	s := newSet(t, Config{})
	for label, size := range map[string]int64{"r0": 0, "r1": 1, "r4": 4, "r16": 16} {
		add(t, s, label, &Ringbuf{Size: &size})
	}
	put := func(label, text string) {
		t.Helper()
		if err := s.RingbufWrite(label, text, false); err != nil {
			t.Error(err)
		}
	}
	get := func(label string, size int64, want string) {
		t.Helper()
		if got, err := s.RingbufRead(label, size, false); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", label, got, err, want)
		}
	}
	put("r16", "hello")
	get("r16", 2, "he")
	put("r16", "0123456789abcdefXYZ")
	get("r16", 100, "3456789abcdefXYZ")
	get("r16", 100, "")
	put("r4", "abcdef")
	get("r4", 3, "cde")
	get("r4", 3, "f")
	put("r4", "gh")
	put("r4", "ijk")
	get("r4", 9, "hijk")
	put("r1", "xyz")
	get("r1", 9, "z")
	put("r0", "xyz")
	get("r0", 9, "")
	put("r16", "ab\x00cd")
	get("r16", 9, "ab")
	put("r16", "ab\x00cd")
	if got, err := s.RingbufRead("r16", 9, true); err != nil || got != "YWIAY2Q=" {
		t.Errorf("%q, %v", got, err)
	}
	if err := s.RingbufWrite("r16", "aGVsbG8=", true); err != nil {
		t.Error(err)
	}
	get("r16", 9, "hello")
	conn := accept(t, attach(t, s.Get("r16")))
	write(t, conn, "from a frontend")
	get("r16", 90, "from a frontend")
}

// TestRingbufModel compares with a plain slice.
func TestRingbufModel(t *testing.T) {
	t.Parallel()
	r := &ringbuf{size: 8}
	var model []byte
	next := byte(0)
	for step := range 2000 {
		p := make([]byte, step*7%13)
		for i := range p {
			next++
			p[i] = next
		}
		if n, err := r.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
		model = append(model, p...)
		model = model[max(0, len(model)-8):]
		k := min(step*5%11, len(model))
		if got := r.read(int64(step * 5 % 11)); !bytes.Equal(got, model[:k]) {
			t.Fatalf("step %d: %v, want %v", step, got, model[:k])
		}
		model = model[k:]
	}
}

func TestUDP(t *testing.T) {
	t.Parallel()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.LocalAddr().String())
	s := newSet(t, Config{})
	conn := accept(t, attach(t, add(t, s, "c", &UDP{
		Remote: sockets.Address{Inet: &sockets.InetAddress{Host: "127.0.0.1", Port: port}},
		Local:  &sockets.Address{Inet: &sockets.InetAddress{Host: "", Port: "0"}},
	})))
	write(t, conn, "there")
	buf := make([]byte, 10)
	n, from, err := server.ReadFromUDP(buf)
	if err != nil || string(buf[:n]) != "there" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if _, err := server.WriteToUDP([]byte("back"), from); err != nil {
		t.Fatal(err)
	}
	expectRead(t, conn, "back")
}

func TestMux(t *testing.T) {
	t.Parallel()
	s := newSet(t, Config{})
	l, err := ParseLegacy("ringbuf,id=c,mux=on")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddLegacy(within(t), l); err != nil {
		t.Fatal(err)
	}
	write(t, accept(t, attach(t, s.Get("c"))), "through")
	if got, err := s.RingbufRead("c-base", 10, false); err != nil || got != "through" {
		t.Errorf("%q, %v", got, err)
	}
	_, err = s.Get("c-base").Attach()
	expectError(t, err, "chardev 'c-base' is already in use")
	want := []Info{{"c", "mux", true}, {"c-base", "ringbuf", false}}
	if got := s.List(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if _, err = s.AddLegacy(within(t), &Legacy{ID: "c0", Mux: true, Backend: &Null{}}); err != nil {
		t.Error(err)
	}
	_, err = s.AddLegacy(within(t), &Legacy{ID: "c0", Mux: true, Backend: &Null{}})
	expectError(t, err, "attempt to add duplicate property 'c0-base' to object (type 'container')")
}

func TestChange(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s.sock")
	s := newSet(t, Config{})
	add(t, s, "c", &Null{})
	if _, err := s.Change(within(t), "c", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}}); err != nil {
		t.Fatal(err)
	}
	// The old device goes before the new one comes, so that both can listen
	// at the same place.
	if _, err := s.Change(within(t), "c", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}}); err != nil {
		t.Fatal(err)
	}
	write(t, dial(t, path), "x")
	expectRead(t, accept(t, attach(t, s.Get("c"))), "x")
}

func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSet(t, Config{})
	add(t, s, "n", &Null{})
	add(t, s, "h", &Hub{Chardevs: []string{"n"}})
	_, err := s.Get("h").Attach()
	expectError(t, err, "chardev 'h' is a hub, which cannot have a frontend")
	unixAddr := sockets.Address{Unix: &sockets.UnixAddress{Path: filepath.Join(shortDir(t), "s")}}
	for _, tt := range []struct {
		b    Backend
		want string
	}{
		{&Socket{Addr: unixAddr, Telnet: true}, "telnet, tn3270 and websocket are not supported for socket chardevs"},
		{&Socket{Addr: sockets.Address{Vsock: &sockets.VsockAddress{CID: "1", Port: "2"}}}, "vsock addresses are not supported for socket chardevs"},
		{&Ringbuf{Size: new(int64(1 << 40))}, "size of ringbuf chardev must be at most 1073741824"},
	} {
		_, err := s.Add(within(t), "c", tt.b)
		expectError(t, err, "Failed to add chardev 'c': "+tt.want)
	}
}
