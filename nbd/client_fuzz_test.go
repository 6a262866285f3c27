package nbd_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/nbd/nbdtest"
)

// talkTo gives f a connection to somebody who says all of what, whatever he is
// told, and hangs up.
func talkTo(what []byte, f func(net.Conn)) {
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
	wg.Go(func() {
		_, _ = theirs.Write(what)
		theirs.Close()
	})
	f(ours)
	ours.Close()
	wg.Wait()
}

// FuzzClientHandshake: whatever a server says, the handshake ends, with an
// error or with an export.
func FuzzClientHandshake(f *testing.F) {
	greeting := nbdtest.Greeting(3)
	ack := func(o nbd.Option) []byte { return nbdtest.Reply(o, nbd.RepAck, nil) }
	f.Add(nbdtest.Oldstyle(4096, 3))
	f.Add(append(nbdtest.Greeting(0), make([]byte, 134)...))
	answers := greeting
	answers = append(answers, ack(nbd.OptExtendedHeaders)...)
	answers = append(answers, nbdtest.Context(7, nbd.ContextAllocation)...)
	answers = append(answers, ack(nbd.OptSetMetaContext)...)
	answers = append(answers, nbdtest.Blocks(512, 4096, 65536)...)
	answers = append(answers, nbdtest.Info(4096, 1)...)
	f.Add(append(answers, ack(nbd.OptGo)...))
	for _, l := range lies {
		answers := greeting[:len(greeting):len(greeting)]
		for _, o := range []nbd.Option{nbd.OptExtendedHeaders, nbd.OptStructuredReply, nbd.OptSetMetaContext, nbd.OptGo, nbd.OptList} {
			if b := l.option(o, nil); b != nil {
				answers = append(answers, b...)
			} else {
				answers = append(answers, ack(o)...)
			}
		}
		f.Add(answers)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		talkTo(b, func(conn net.Conn) {
			s, err := nbd.ClientHandshake(conn, wish("exp"))
			if err == nil && s.Conn == nil {
				t.Error("neither an error nor a connection")
			}
		})
		talkTo(b, func(conn net.Conn) { _, _ = nbd.ListExports(conn, nil) })
	})
}

// FuzzClientReplies: whatever a server replies, each request ends, and writes
// only where it may.
func FuzzClientReplies(f *testing.F) {
	first := nbd.Request{Command: nbd.CmdRead, Cookie: 1 << 16, Length: 4096}
	for _, m := range misbehaviour {
		f.Add(uint8(nbd.Structured), m.answer(first))
	}
	f.Add(uint8(nbd.Simple), append(nbd.AppendSimpleReply(nil, 1<<16, 0), make([]byte, 4096)...))
	f.Add(uint8(nbd.Extended), nbdtest.Data(nbd.Extended, first, 1, 0, make([]byte, 4096)))
	f.Fuzz(func(t *testing.T, mode uint8, b []byte) {
		memory := make([]byte, 8192)
		v := [][]byte{memory[1024:2048], memory[2048:5120]}
		talkTo(b, func(conn net.Conn) {
			c := nbd.NewClient(&nbd.ClientSession{Conn: conn, Mode: nbd.Mode(mode) % 3, HasContext: true, ContextID: 7})
			defer c.Close()
			_ = c.Read(0, v)
			_, _ = c.BlockStatus(0, 4096, 0, make([]nbd.Extent, 3))
			_ = c.Write(0, v, 0)
		})
		for at, x := range memory {
			if x != 0 && (at < 1024 || at >= 5120) {
				t.Fatalf("byte %d outside of the request was written", at)
			}
		}
	})
}
