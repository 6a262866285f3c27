package nbd_test

import (
	"net"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
)

// TestHangups: what is printed of clients that go, or do not listen any more, at the
// wrong moment.
func TestHangups(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), standardExports...)
	read := nbd.Request{Command: nbd.CmdRead, Length: 512}
	request := func(c *connection) []byte { return c.ends[0].request(read, nil) }
	write := func(c *connection) []byte {
		return c.ends[0].request(nbd.Request{Command: nbd.CmdWrite, Length: 512}, nil)
	}
	greeted := func(t *testing.T) *connection { return p.connect(t) }
	negotiating := func(t *testing.T) *connection {
		c := greeted(t)
		c.send(clientFlags(3))
		return c
	}
	transmitting := func(t *testing.T) *connection { return p.enter(t, nbd.Structured, "x", false) }

	for _, c := range []struct {
		name  string
		begin func(*testing.T) *connection
		deaf  bool // before the last words; else the answers are left unread
		last  func(*connection) []byte
	}{
		{"deaf behind the greeting", greeted, true, func(*connection) []byte { return clientFlags(3) }},
		{"an answer is not read", negotiating, false, func(*connection) []byte { return option(nbd.OptInfo, infoData("nope")) }},
		{"the answer is not read, an option is half sent", negotiating, false, func(*connection) []byte {
			return append(option(nbd.OptInfo, infoData("nope")), option(nbd.OptList, nil)[:9]...)
		}},
		{"no export is entered", negotiating, false, func(*connection) []byte { return option(nbd.OptGo, infoData("nope")) }},
		{"the export is entered, nothing is read", negotiating, false, func(*connection) []byte { return option(nbd.OptGo, infoData("x")) }},
		{"deaf to an answer", negotiating, true, func(*connection) []byte { return option(nbd.OptInfo, infoData("nope")) }},
		{"a reply is not read", transmitting, false, request},
		{"a reply is not read, a request is half sent", transmitting, false, func(c *connection) []byte { return append(request(c), request(c)[:9]...) }},
		{"a reply is not read, data is missing", transmitting, false, func(c *connection) []byte { return append(request(c), write(c)...) }},
		{"deaf to a reply", transmitting, true, request},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := c.begin(t)
			if c.deaf {
				k.shutRead(t)
			}
			k.send(c.last(k))
			p.awaitRest(t)
			k.close()
			p.awaitRest(t)
		})
	}
	p.sameComplaints(t)
}

// shutRead makes writing to the client fail.
func (c *connection) shutRead(t *testing.T) {
	t.Helper()
	for _, w := range c.ends {
		if err := w.Conn.(*net.UnixConn).CloseRead(); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitRest waits until both have done what there was to do.
func (p *pair) awaitRest(t *testing.T) {
	t.Helper()
	for i, d := range p.daemons {
		if err := d.AwaitRest(patience); err != nil {
			t.Fatalf("%s: %v", sides[i], err)
		}
	}
}
