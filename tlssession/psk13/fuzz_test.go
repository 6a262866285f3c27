package psk13

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// replay is a connection on which somebody else has said it all already.
type replay struct{ *bytes.Reader }

func (replay) Write(p []byte) (int, error)      { return len(p), nil }
func (replay) Close() error                     { return nil }
func (replay) LocalAddr() net.Addr              { return nil }
func (replay) RemoteAddr() net.Addr             { return nil }
func (replay) SetDeadline(time.Time) error      { return nil }
func (replay) SetReadDeadline(time.Time) error  { return nil }
func (replay) SetWriteDeadline(time.Time) error { return nil }

func sampleHello(t testing.TB) []byte {
	t.Helper()
	m := &clientHello{
		sessionID: make([]byte, 32), suites: suites(), versions: []uint16{version13}, groups: groups(), modes: []byte{modeDHEKE},
		shares: []keyShare{{groupX25519, bytes.Repeat([]byte{9}, 32)}}, identities: [][]byte{[]byte("qemu")}, cookie: []byte("c"),
	}
	msg, err := m.marshal()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func record(typ byte, body []byte) []byte {
	return append([]byte{typ, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

// FuzzServer lets a server read anything.
func FuzzServer(f *testing.F) {
	hello := sampleHello(f)
	f.Add(record(recordHandshake, hello))
	f.Add(append(record(recordHandshake, hello[:50]), record(recordHandshake, hello[50:])...))
	f.Add(append(record(recordChangeCipherSpec, []byte{1}), record(recordAlert, []byte{2, 40})...))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		if _, err := Server(t.Context(), replay{bytes.NewReader(input)}, keysOf("qemu", testKey())); err == nil {
			t.Error("a handshake went well")
		}
	})
}

// FuzzClient lets a client read anything.
func FuzzClient(f *testing.F) {
	for _, m := range []*serverHello{
		{sessionID: make([]byte, 32), suite: suiteAES128GCM, share: keyShare{groupX25519, bytes.Repeat([]byte{9}, 32)}, hasPSK: true},
		{retry: true, suite: suiteChaCha20, share: keyShare{group: groupP384}},
	} {
		msg, err := m.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(record(recordHandshake, msg))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if _, err := Client(t.Context(), replay{bytes.NewReader(input)}, "qemu", testKey()); err == nil {
			t.Error("a handshake went well")
		}
	})
}

// FuzzMessages reads messages; what can be read is consistent.
func FuzzMessages(f *testing.F) {
	f.Add(sampleHello(f))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if m, err := parseClientHello(msg); err == nil && m.identities != nil {
			if len(m.binders) != len(m.identities) || m.truncated <= 0 || m.truncated >= len(msg) {
				t.Errorf("%+v", m)
			}
		}
		_, _ = parseServerHello(msg)
		_ = parseEncryptedExtensions(msg)
	})
}
