package sockets

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// reference is the reference daemon, asked over its monitor.
type reference struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func newReference(t *testing.T) *reference {
	t.Helper()
	program, dir := daemon.Reference(t), shortDir(t)
	path := filepath.Join(dir, "qmp")
	command := slices.Concat(program.Storage, []string{"--chardev", "socket,id=c,server=on,wait=off,path=" + path, "--monitor", "c"})
	p, err := daemon.Start(command, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.AwaitSocket(path, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &reference{t, conn, bufio.NewReader(conn)}
	if _, err := r.in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.ask("qmp_capabilities", nil)
	return r
}

// ask returns the text of the error that a command leads to, "" for none.
func (r *reference) ask(command string, args map[string]any) string {
	r.t.Helper()
	if args == nil {
		args = map[string]any{}
	}
	text, err := json.Marshal(map[string]any{"execute": command, "arguments": args})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.conn.Write(text); err != nil {
		r.t.Fatal(err)
	}
	line, err := r.in.ReadBytes('\n')
	if err != nil {
		r.t.Fatal(err)
	}
	var answer struct{ Error struct{ Desc string } }
	if err := json.Unmarshal(line, &answer); err != nil {
		r.t.Fatal(err)
	}
	return answer.Error.Desc
}

// TestReferenceListen compares what starting an NBD server says.
func TestReferenceListen(t *testing.T) {
	t.Parallel()
	r := newReference(t)
	for _, a := range addresses(shortDir(t)) {
		theirs := r.ask("nbd-server-start", map[string]any{"addr": map[string]any{"type": a.kind(), "data": a.members(t)}})
		if theirs == "" {
			r.ask("nbd-server-stop", nil)
		}
		l, _, err := a.Listen(within(t), 1, NoFDs)
		if err == nil {
			l.Close()
		}
		compare(t, a, theirs, err)
	}
}

// TestReferenceDial compares what an NBD client says that has nobody to
// connect to.
func TestReferenceDial(t *testing.T) {
	t.Parallel()
	r := newReference(t)
	for _, a := range addresses(shortDir(t)) {
		if a.Vsock != nil && a.Vsock.CID == a.Vsock.Port {
			continue // a valid one takes seconds to fail
		}
		server := a.members(t)
		server["type"] = a.kind()
		theirs := r.ask("blockdev-add", map[string]any{"driver": "nbd", "node-name": "n", "server": server})
		conn, err := a.Dial(within(t), NoFDs)
		if err == nil {
			conn.Close()
		}
		compare(t, a, theirs, err)
	}
}

func compare(t *testing.T, a Address, theirs string, err error) {
	t.Helper()
	ours := ""
	if err != nil {
		ours = err.Error()
	}
	if stale, ok := strings.CutPrefix(theirs, "Failed to create a socket: "); ok && a.Inet != nil && a.Inet.To != nil {
		// The error of whatever call came before.
		theirs, ours = "", strings.TrimPrefix(ours, "Failed to create a socket: ")
		if stale == "" || ours == "" {
			t.Errorf("%s: ours %q, theirs %q", a, ours, stale)
		}
		return
	}
	if ours != theirs {
		t.Errorf("%s: ours %q, theirs %q", a, ours, theirs)
	}
}

func (a Address) members(t *testing.T) map[string]any {
	t.Helper()
	text, err := a.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "type")
	return m
}

func (a Address) kind() string {
	switch {
	case a.Inet != nil:
		return "inet"
	case a.Unix != nil:
		return "unix"
	case a.Vsock != nil:
		return "vsock"
	}
	return "fd"
}

// addresses are mostly ones with a mistake; nobody listens on the others.
func addresses(dir string) []Address {
	yes, no := new(true), new(false)
	var all []Address
	for _, a := range []InetAddress{
		{Host: "nohost.invalid", Port: "1"},
		{Host: "127.0.0.1", Port: "-1"},
		{Host: "127.0.0.1", Port: "nope"},
		{Host: "127.0.0.1", Port: ""},
		{Host: "127.0.0.1", Port: "65536"},
		{Host: "127.0.0.1", Port: "1", IPv4: no},
		{Host: "127.0.0.1", Port: "1", IPv6: yes},
		{Host: "127.0.0.1", Port: "0", IPv4: yes, IPv6: yes},
		{Host: "127.0.0.1", Port: "0", IPv4: no, IPv6: no},
		{Host: "localhost", Port: "0", Numeric: yes},
		{Host: "127.0.0.1", Port: "http", Numeric: yes},
		{Host: "localhost", Port: "0", IPv4: yes},
		{Host: "::1", Port: "1", IPv6: no},
		{Host: "::1", Port: "1", IPv4: yes},
		{Host: "::1", Port: "0"},
		{Host: "127.0.0.1", Port: "3", To: new(uint16(2))},
		{Host: "127.0.0.1", Port: "0", MPTCP: yes},
	} {
		all = append(all, Address{Inet: &a})
	}
	long := strings.Repeat("x", 109)
	for _, a := range []UnixAddress{
		{Path: filepath.Join(dir, "no", "s")},
		{Path: dir},
		{Path: long},
		{Path: long[1:], Abstract: yes},
		{Path: "qmpblock" + dir, Abstract: yes},
		{Path: "qmpblock" + dir, Abstract: yes, Tight: no},
	} {
		all = append(all, Address{Unix: &a})
	}
	for _, a := range []VsockAddress{
		{"x", "1"}, {"2", "x"}, {"4294967296", "1"}, {"1", "-1"}, {"", "1"}, {"4294967294", "4294967294"},
	} {
		all = append(all, Address{Vsock: &a})
	}
	return append(all, Address{FD: new("5")}, Address{FD: new("")})
}
