package psk13

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

func testKey() []byte { return []byte("0123456789abcdef") }

func keysOf(name string, key []byte) func(string) []byte {
	return func(identity string) []byte {
		if identity == name {
			return key
		}
		return nil
	}
}

// sockets is a connected pair of the kernel's, which buffers.
func sockets(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// handshake runs both sides.
func handshake(t testing.TB, client, server func() (*Conn, error)) (c, s *Conn, clientErr, serverErr error) {
	t.Helper()
	var both sync.WaitGroup
	both.Go(func() { s, serverErr = server() })
	c, clientErr = client()
	both.Wait()
	return c, s, clientErr, serverErr
}

func pair(t testing.TB) (c, s *Conn) {
	t.Helper()
	a, b := sockets(t)
	c, s, err1, err2 := handshake(t,
		func() (*Conn, error) { return Client(t.Context(), a, "qemu", testKey()) },
		func() (*Conn, error) { return Server(t.Context(), b, keysOf("qemu", testKey())) })
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return c, s
}

func TestTalk(t *testing.T) {
	t.Parallel()
	c, s := pair(t)
	if s.Identity() != "qemu" {
		t.Error(s.Identity())
	}
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	// Both directions at once, each with a reader and a writer.
	var all sync.WaitGroup
	for _, way := range [][2]*Conn{{c, s}, {s, c}} {
		all.Go(func() {
			if _, err := way[0].Write(data); err != nil {
				t.Error(err)
			}
			if err := way[0].CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			got, err := io.ReadAll(way[1])
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestWrongKeys(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string]func(string) []byte{
		"wrong key":    keysOf("qemu", []byte("another")),
		"unknown name": keysOf("alice", testKey()),
	} {
		a, b := sockets(t)
		_, _, clientErr, serverErr := handshake(t,
			func() (*Conn, error) { return Client(t.Context(), a, "qemu", testKey()) },
			func() (*Conn, error) { return Server(t.Context(), b, keys) })
		if !errors.Is(serverErr, ErrWrongKey) {
			t.Errorf("%s: %v", name, serverErr)
		}
		if !errors.Is(clientErr, RemoteError(IllegalParameter)) {
			t.Errorf("%s: %v", name, clientErr)
		}
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	c, s := pair(t)
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Error("reading does not go on after a deadline:", err)
	}
}

// TestClose ends a read and a write that wait for ever.
func TestClose(t *testing.T) {
	t.Parallel()
	c, _ := pair(t)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a read went well")
		}
	})
	waiting.Go(func() {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	c.Close()
	waiting.Wait()
}

func TestUnexpectedEnd(t *testing.T) {
	t.Parallel()
	a, b := sockets(t)
	c, _, err1, err2 := handshake(t,
		func() (*Conn, error) { return Client(t.Context(), a, "qemu", testKey()) },
		func() (*Conn, error) { return Server(t.Context(), b, keysOf("qemu", testKey())) })
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	b.Close() // without a goodbye
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	a, b := sockets(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Server(ctx, b, keysOf("qemu", testKey())); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := a.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

// TestKeyUpdate changes keys in both directions, on request and because of
// their age.
func TestKeyUpdate(t *testing.T) {
	t.Parallel()
	c, s := pair(t)
	exchange := func() {
		t.Helper()
		for _, way := range [][2]*Conn{{c, s}, {s, c}} {
			if _, err := way[0].Write([]byte("data")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(way[1], make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
	}
	exchange()
	c.out.Lock()
	if err := c.send(recordHandshake, []byte{typeKeyUpdate, 0, 0, 1, 1}); err != nil { // and you too
		t.Fatal(err)
	}
	c.out.protection.update()
	c.out.Unlock()
	before := s.out.protection.secret
	exchange()
	if bytes.Equal(before, s.out.protection.secret) {
		t.Error("the server kept its key")
	}
	s.out.protection.seq, c.in.protection.seq = updateAfter, updateAfter
	exchange()
	if s.out.protection.seq != 1 || c.in.protection.seq != 1 {
		t.Error("the old key is still in use")
	}
}

// TestRetry is a client whose first shares the server cannot use.
func TestRetry(t *testing.T) {
	t.Parallel()
	for _, group := range []uint16{groupP384, groupP256, groupX25519} {
		a, b := sockets(t)
		c, s, err1, err2 := handshake(t,
			func() (*Conn, error) { return oddClient(t.Context(), a, group, suiteChaCha20) },
			func() (*Conn, error) { return Server(t.Context(), b, keysOf("qemu", testKey())) })
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// oddClient sends a share of a group that nobody knows first.
func oddClient(ctx context.Context, conn net.Conn, group, suite uint16) (*Conn, error) {
	c := &Conn{conn: conn, isClient: true, identity: "qemu", compatible: true}
	return c, c.handshake(ctx, func() error {
		h := &clientHandshake{c: c, secrets: newSecrets(testKey()), transcript: newTranscript()}
		h.hello = &clientHello{
			sessionID: make([]byte, 32), suites: []uint16{suite}, versions: []uint16{version13}, groups: []uint16{0x9999, group},
			modes: []byte{modeDHEKE}, identities: [][]byte{[]byte("other"), []byte("qemu")}[1:], shares: []keyShare{{0x9999, []byte("x")}},
		}
		if err := h.sendHello(); err != nil {
			return err
		}
		server, msg, err := h.serverHello()
		if err != nil {
			return err
		}
		if server, msg, err = h.retry(server, msg); err != nil {
			return err
		}
		if err := h.agree(server, msg); err != nil {
			return err
		}
		return h.finish(server.suite)
	})
}

// TestTampering changes each byte that the server sends, in turn.
func TestTampering(t *testing.T) {
	t.Parallel()
	for at := range 200 {
		if at == 2 || at == 135 {
			continue // the version in the header of a record in the clear means nothing
		}
		a, b := sockets(t)
		// A longer record is waited for.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, _, err, _ := handshake(t,
			func() (*Conn, error) { return Client(ctx, &flipper{Conn: a, at: at}, "qemu", testKey()) },
			func() (*Conn, error) { return Server(ctx, b, keysOf("qemu", testKey())) })
		cancel()
		if err == nil {
			t.Errorf("byte %d: a changed handshake was taken", at)
		}
	}
}

// flipper changes a byte of what comes.
type flipper struct {
	net.Conn
	at int
}

func (f *flipper) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if f.at >= 0 && f.at < n {
		p[f.at] ^= 0x55
	}
	f.at -= n
	return n, err
}

func BenchmarkWrite(b *testing.B) {
	c, s := pair(b)
	go func() { _, _ = io.Copy(io.Discard, s) }()
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(data); err != nil {
			b.Fatal(err)
		}
	}
}
