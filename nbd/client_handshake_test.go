package nbd_test

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/nbd/nbdtest"
	"github.com/qmpblock/qmpblock/qerr"
)

const refuse nbd.OptionReply = 1 << 31

// handshake leads the client's side against a server.
func handshake(s *nbdtest.Server, cfg nbd.ClientConfig) (*nbd.ClientSession, error) {
	conn := s.Dial()
	session, err := nbd.ClientHandshake(conn, cfg)
	if err != nil {
		conn.Close()
	}
	return session, err
}

// wish is what a client asks for that knows everything.
func wish(export string) nbd.ClientConfig {
	return nbd.ClientConfig{Export: export, MetaContext: nbd.ContextAllocation, Mode: nbd.Extended}
}

// on answers one option, and leaves the others to the server.
func on(opt nbd.Option, answer ...[]byte) func(nbd.Option, []byte) []byte {
	return func(o nbd.Option, _ []byte) []byte {
		if o != opt {
			return nil
		}
		return append([]byte{}, slices.Concat(answer...)...)
	}
}

func refuses(opt nbd.Option) []byte { return nbdtest.Reply(opt, nbd.RepErrUnsupported, nil) }

func info(kind nbd.InfoType, data string) []byte {
	return nbdtest.Reply(nbd.OptGo, nbd.RepInfo, append(binary.BigEndian.AppendUint16(nil, uint16(kind)), data...))
}

func TestHandshakeModes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script nbdtest.Script
		want   nbd.Mode
		log    string
	}{
		{nbdtest.Script{Mode: nbd.Extended, Context: nbd.ContextAllocation}, nbd.Extended, "connect,extended headers,set meta context,go"},
		{nbdtest.Script{Mode: nbd.Structured, Context: nbd.ContextAllocation}, nbd.Structured, "connect,extended headers,structured reply,set meta context,go"},
		{nbdtest.Script{}, nbd.Simple, "connect,extended headers,structured reply,go"},
		{nbdtest.Script{Option: on(nbd.OptGo, refuses(nbd.OptGo))}, nbd.Simple, "connect,extended headers,structured reply,go,list,export name"},
	} {
		if c.script.Option != nil {
			c.script.Option = func(o nbd.Option, _ []byte) []byte {
				if o == nbd.OptExportName {
					return append(binary.BigEndian.AppendUint64(nil, 1<<20), 0, 9)
				}
				return refuses(o)
			}
		}
		c.script.Flags = nbd.FlagSendFUA
		s := nbdtest.Listen(t, 1<<20, c.script)
		session, err := handshake(s, wish("x"))
		if err != nil {
			t.Fatal(err)
		}
		session.Conn.Close()
		want := nbd.Export{Name: "x", Size: 1 << 20, Flags: nbd.FlagHasFlags | nbd.FlagSendFUA}
		if session.Mode != c.want || session.HasContext != (c.want > nbd.Simple) || session.Export != want {
			t.Errorf("%+v", session)
		}
		if got := strings.Join(s.TakeLog(), ","); got != c.log {
			t.Errorf("%s, want %s", got, c.log)
		}
	}
}

// TestHandshakeOld is with servers that answer no options.
func TestHandshakeOld(t *testing.T) {
	t.Parallel()
	export := append(binary.BigEndian.AppendUint64(nil, 4096), 0, 3)
	zeroes := make([]byte, 124)
	for name, c := range map[string]struct {
		says   [][]byte // the second behind the client's flags and option
		export string
		err    string
	}{
		"oldstyle":           {says: [][]byte{nbdtest.Oldstyle(4096, 3)}},
		"oldstyle with name": {says: [][]byte{nbdtest.Oldstyle(4096, 3)}, export: "x", err: "Server does not support non-empty export names"},
		"oldstyle, flags":    {says: [][]byte{nbdtest.Oldstyle(4096, 0x10001)}, err: "Unexpected export flags 10001x"},
		"newstyle":           {says: [][]byte{nbdtest.Greeting(0), append(export, zeroes...)}, export: "x"},
		"without zeroes":     {says: [][]byte{nbdtest.Greeting(nbd.HandshakeNoZeroes), export}, export: "x"},
		"short oldstyle": {
			says: [][]byte{nbdtest.Oldstyle(4096, 3)[:100]},
			err:  "Failed to read reserved block: Unexpected end-of-file before all data were read",
		},
		"short newstyle": {
			says: [][]byte{nbdtest.Greeting(0), export}, export: "x",
			err: "Failed to read reserved block: Unexpected end-of-file before all data were read",
		},
		"no such export": {
			says: [][]byte{nbdtest.Greeting(0)}, export: "x",
			err: "Failed to read export length: Unexpected end-of-file before all data were read",
		},
		"nothing":    {says: [][]byte{{}}, err: "Failed to read initial magic: Unexpected end-of-file before all data were read"},
		"magic only": {says: [][]byte{[]byte("NBDMAGIC")}, err: "Failed to read server magic: Unexpected end-of-file before all data were read"},
		"no flags":   {says: [][]byte{[]byte("NBDMAGICIHAVEOPT")}, err: "Failed to read server flags: Unexpected end-of-file before all data were read"},
		"http":       {says: [][]byte{[]byte("HTTP/1.0 400 Bad")}, err: "Bad initial magic received: 0x485454502f312e30"},
		"half":       {says: [][]byte{[]byte("NBDMAGICNBDMAGIC")}, err: "Bad server magic received: 0x4e42444d41474943"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				defer theirs.Close()
				_, _ = theirs.Write(c.says[0])
				if strings.Contains(string(c.says[0]), "IHAVEOPT") && len(c.says[0]) == 18 {
					buf := make([]byte, 4+16+len(c.export))
					_, _ = theirs.Read(buf)
					_, _ = theirs.Read(buf)
				}
				if len(c.says) > 1 {
					_, _ = theirs.Write(c.says[1])
				}
			}()
			session, err := nbd.ClientHandshake(ours, wish(c.export))
			ours.Close()
			<-ended
			if text(err) != c.err {
				t.Fatalf("%v, want %q", err, c.err)
			}
			want := nbd.Export{Name: c.export, Size: 4096, Flags: 3}
			if err == nil && (session.Export != want || session.Mode != nbd.Simple) {
				t.Errorf("%+v", session)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// lies are answers to one option, with the error that the reference reports;
// see drivers/nbd, where the reference is asked. The server's other answers are
// true.
var lies = []struct {
	name   string
	mode   nbd.Mode
	option func(nbd.Option, []byte) []byte
	err    string
}{
	{"magic", nbd.Extended, on(nbd.OptExtendedHeaders, make([]byte, 20)), "Unexpected option reply magic"},
	{
		"other option", nbd.Extended, on(nbd.OptExtendedHeaders, nbdtest.Reply(77, nbd.RepAck, nil)),
		"Unexpected option type 77 (<unknown>), expected 11 (extended headers)",
	},
	{
		"payload", nbd.Structured, on(nbd.OptStructuredReply, nbdtest.Reply(nbd.OptStructuredReply, nbd.RepAck, []byte("abc"))),
		"Option 8 ('structured reply') response length is 3 (it should be zero)",
	},
	{
		"kind", nbd.Structured, on(nbd.OptStructuredReply, nbdtest.Reply(nbd.OptStructuredReply, nbd.RepServer, nil)),
		"Server answered option 8 (structured reply) with unexpected reply 2 (server)",
	},
	{
		"huge error", nbd.Structured, on(nbd.OptStructuredReply, nbdtest.ReplyHeader(nbd.OptStructuredReply, nbd.RepErrTooBig, 1<<30)),
		"server error 2147483657 (option payload too big) message is too long",
	},
	{"no answer", nbd.Simple, on(nbd.OptGo), "Failed to read option reply: Unexpected end-of-file before all data were read"},
	{"policy", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepErrPolicy, nil)), "Denied by server for option 7 (go)"},
	{"invalid", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepErrInvalid, nil)), "Invalid parameters for option 7 (go)"},
	{"platform", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepErrPlatform, nil)), "Server lacks support for option 7 (go)"},
	{"TLS", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepErrTLSRequired, nil)), "TLS negotiation required before option 7 (go)"},
	{"unknown", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepErrUnknown, nil)), "Requested export not available"},
	{"shutdown", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepErrShutdown, nil)), "Server shutting down before option 7 (go)"},
	{
		"block size", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepErrBlockSizeRequired, nil)),
		"Server requires INFO_BLOCK_SIZE for option 7 (go)",
	},
	{"new error", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, refuse+77, nil)), "Unknown error code when asking for option 7 (go)"},
	{"ack only", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepAck, nil)), "broken server omitted NBD_INFO_EXPORT"},
	{"flags", nbd.Simple, on(nbd.OptGo, nbdtest.Info(512, 0), nbdtest.Reply(nbd.OptGo, nbd.RepAck, nil)), "broken server omitted NBD_INFO_EXPORT"},
	{"long ack", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepAck, []byte("x"))), "server sent invalid NBD_REP_ACK"},
	{"go kind", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepServer, nil)), "unexpected reply type 2 (server), expected 3 (info)"},
	{"short info", nbd.Simple, on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, nbd.RepInfo, []byte("x"))), "NBD_REP_INFO length 1 is too short"},
	{"export", nbd.Simple, on(nbd.OptGo, info(nbd.InfoExport, "123456789")), "remaining export info len 9 is unexpected size"},
	{"blocks", nbd.Simple, on(nbd.OptGo, info(nbd.InfoBlockSize, "1234567890123")), "remaining export info len 13 is unexpected size"},
	{"min", nbd.Simple, on(nbd.OptGo, nbdtest.Blocks(3, 4096, 8192)), "server minimum block size 3 is not a power of two"},
	{"preferred", nbd.Simple, on(nbd.OptGo, nbdtest.Blocks(512, 513, 8192)), "server preferred block size 513 is not valid"},
	{"preferred less", nbd.Simple, on(nbd.OptGo, nbdtest.Blocks(512, 256, 8192)), "server preferred block size 256 is not valid"},
	{"max", nbd.Simple, on(nbd.OptGo, nbdtest.Blocks(512, 512, 256)), "server maximum block size 256 is not valid"},
	{
		"size", nbd.Simple, on(nbd.OptGo, nbdtest.Blocks(4096, 4096, 4096), nbdtest.Info(5000, 1)),
		"export size 5000 is not multiple of minimum block size 4096",
	},
	{
		"context", nbd.Structured, on(nbd.OptSetMetaContext, nbdtest.Context(1, "base:other")),
		"Failed to negotiate meta context 'base:allocation', server answered with different context 'base:other'",
	},
	{
		"contexts", nbd.Structured, on(nbd.OptSetMetaContext, nbdtest.Context(1, "base:allocation"), nbdtest.Context(2, "base:allocation")),
		"Server answered with more than one context",
	},
	{
		"short context", nbd.Structured, on(nbd.OptSetMetaContext, nbdtest.Context(1, "")),
		"Failed to negotiate meta context, server answered with unexpected length 4",
	},
	{
		"long context", nbd.Structured, on(nbd.OptSetMetaContext, nbdtest.ReplyHeader(nbd.OptSetMetaContext, nbd.RepMetaContext, 1<<30)),
		"Failed to negotiate meta context, server answered with unexpected length 1073741824",
	},
	{
		"context ack", nbd.Structured, on(nbd.OptSetMetaContext, nbdtest.Reply(nbd.OptSetMetaContext, nbd.RepAck, []byte("x"))),
		"Unexpected length to ACK response",
	},
	{
		"context kind", nbd.Structured, on(nbd.OptSetMetaContext, nbdtest.Reply(nbd.OptSetMetaContext, nbd.RepInfo, nil)),
		"Unexpected reply type 3 (info), expected 4 (meta context)",
	},
	{"list", nbd.Simple, list(nbdtest.Listed("foo", "")), "No export with name 'exp' available"},
	{"list denied", nbd.Simple, list(nbdtest.Reply(nbd.OptList, nbd.RepErrPolicy, nil)), "Denied by server for option 3 (list)"},
	{"list kind", nbd.Simple, list(nbdtest.Reply(nbd.OptList, 99, nil)), "Unexpected reply type 99 (<unknown>), expected 2 (server)"},
	{"list ack", nbd.Simple, list(nbdtest.Reply(nbd.OptList, nbd.RepAck, []byte("x"))), "length too long for option end"},
	{"list length", nbd.Simple, list(nbdtest.Reply(nbd.OptList, nbd.RepServer, []byte("x"))), "incorrect option length 1"},
	{
		"list name", nbd.Simple, list(nbdtest.Reply(nbd.OptList, nbd.RepServer, []byte{0, 0, 0, 99, 'x'})),
		"incorrect name length in server's list response",
	},
}

// list is a server without GO that answers LIST.
func list(answer []byte) func(nbd.Option, []byte) []byte {
	return func(o nbd.Option, _ []byte) []byte {
		switch o {
		case nbd.OptGo:
			return refuses(o)
		case nbd.OptList:
			return append(answer, nbdtest.Reply(nbd.OptList, nbd.RepAck, nil)...)
		}
		return nil
	}
}

func TestHandshakeLies(t *testing.T) {
	t.Parallel()
	for _, c := range lies {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := nbdtest.Listen(t, 4096, nbdtest.Script{Mode: c.mode, Option: c.option})
			if _, err := handshake(s, wish("exp")); text(err) != c.err {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

// TestHandshakeForgives is what a server may do wrong without harm.
func TestHandshakeForgives(t *testing.T) {
	t.Parallel()
	ack := func(opt nbd.Option) []byte { return nbdtest.Reply(opt, nbd.RepAck, nil) }
	for name, option := range map[string]func(nbd.Option, []byte) []byte{
		"no structured replies": on(nbd.OptStructuredReply, nbdtest.Reply(nbd.OptStructuredReply, nbd.RepErrPolicy, []byte("sorry"))),
		"no contexts":           on(nbd.OptSetMetaContext, nbdtest.Reply(nbd.OptSetMetaContext, nbd.RepErrInvalid, nil)),
		"context unknown":       on(nbd.OptSetMetaContext, ack(nbd.OptSetMetaContext)),
		"error behind context":  on(nbd.OptSetMetaContext, nbdtest.Context(1, "base:allocation"), refuses(nbd.OptSetMetaContext)),
	} {
		s := nbdtest.Listen(t, 4096, nbdtest.Script{Mode: nbd.Structured, Option: option})
		session, err := handshake(s, wish(""))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		session.Conn.Close()
		if session.HasContext {
			t.Errorf("%s: there is a context", name)
		}
	}
}

// TestHandshakeInfo is what a server may tell besides; the largest block is
// rounded down to whole smallest ones.
func TestHandshakeInfo(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	s := nbdtest.Listen(t, 4096, nbdtest.Script{Option: func(o nbd.Option, _ []byte) []byte {
		if o != nbd.OptGo {
			return nil
		}
		return slices.Concat(info(nbd.InfoName, "other"), info(nbd.InfoDescription, long), info(77, long), nbdtest.Blocks(512, 4096, 5000),
			nbdtest.Info(8192, 5), nbdtest.Reply(o, nbd.RepAck, nil))
	}})
	session, err := handshake(s, wish("me"))
	if err != nil {
		t.Fatal(err)
	}
	session.Conn.Close()
	want := nbd.Export{Name: "me", Size: 8192, Flags: 5, MinBlock: 512, PreferredBlock: 4096, MaxBlock: 4608}
	if diff := cmp.Diff(want, session.Export); diff != "" {
		t.Error(diff)
	}
}

// TestHandshakeHint: what the server says is for command lines.
func TestHandshakeHint(t *testing.T) {
	t.Parallel()
	for kind, want := range map[nbd.OptionReply]string{
		nbd.RepErrUnknown:     "server reported: so sorry\n",
		nbd.RepErrTLSRequired: "Did you forget a valid tls-creds?\nserver reported: so sorry\n",
	} {
		s := nbdtest.Listen(t, 4096, nbdtest.Script{Option: on(nbd.OptGo, nbdtest.Reply(nbd.OptGo, kind, []byte("so sorry")))})
		_, err := handshake(s, wish(""))
		var e *qerr.Error
		if !errors.As(err, &e) || e.Hint != want {
			t.Errorf("%v: %+v", kind, e)
		}
		if log := s.TakeLog(); log[len(log)-1] != "abort" && log[len(log)-1] != "go" { // it need not have arrived yet
			t.Errorf("the handshake ended with %q", log)
		}
	}
}

func TestHandshakeTooLong(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, 4096, nbdtest.Script{})
	if _, err := handshake(s, wish(strings.Repeat("x", 4097))); text(err) != "export name too long to send to server" {
		t.Error(err)
	}
	if _, err := handshake(s, nbd.ClientConfig{MetaContext: strings.Repeat("x", 4097)}); text(err) != "x-dirty-bitmap query too long to send to server" {
		t.Error(err)
	}
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	const opt = nbd.OptStartTLS
	for name, c := range map[string]struct {
		script nbdtest.Script
		err    string
	}{
		"granted": {nbdtest.Script{Option: on(opt, nbdtest.Reply(opt, nbd.RepAck, nil))}, ""},
		"unknown": {nbdtest.Script{}, "Server don't support STARTTLS option"},
		"denied":  {nbdtest.Script{Option: on(opt, nbdtest.Reply(opt, nbd.RepErrPolicy, nil))}, "Denied by server for option 5 (starttls)"},
		"payload": {nbdtest.Script{Option: on(opt, nbdtest.Reply(opt, nbd.RepAck, []byte("x")))}, "Option 5 ('starttls') response length is 1 (it should be zero)"},
		"old":     {nbdtest.Script{Greeting: nbdtest.Oldstyle(512, 1)}, "Server does not support STARTTLS"},
	} {
		s := nbdtest.Listen(t, 4096, c.script)
		calls := 0
		cfg := wish("")
		cfg.StartTLS = func(conn net.Conn) (net.Conn, error) { calls++; return wrapped{conn}, nil }
		session, err := handshake(s, cfg)
		if text(err) != c.err {
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
		if err != nil {
			continue
		}
		session.Conn.Close()
		if _, ok := session.Conn.(wrapped); !ok || calls != 1 {
			t.Errorf("%s: the connection is %T", name, session.Conn)
		}
	}
	failed := errors.New("no")
	cfg := wish("")
	cfg.StartTLS = func(net.Conn) (net.Conn, error) { return nil, failed }
	s := nbdtest.Listen(t, 4096, nbdtest.Script{Option: on(opt, nbdtest.Reply(opt, nbd.RepAck, nil))})
	if _, err := handshake(s, cfg); !errors.Is(err, failed) {
		t.Error(err)
	}
}

// wrapped is a connection that is no socket, as one with TLS.
type wrapped struct{ net.Conn }

func TestListExports(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, 4096, nbdtest.Script{Option: on(nbd.OptList,
		nbdtest.Listed("a", ""), nbdtest.Listed("", "the default"), nbdtest.Reply(nbd.OptList, nbd.RepAck, nil))})
	conn := s.Dial()
	defer conn.Close()
	exports, err := nbd.ListExports(conn, nil)
	if diff := cmp.Diff([]nbd.Export{{Name: "a"}, {Description: "the default"}}, exports); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	s = nbdtest.Listen(t, 4096, nbdtest.Script{})
	conn = s.Dial()
	defer conn.Close()
	if _, err := nbd.ListExports(conn, nil); text(err) != "Server does not support listing exports" {
		t.Error(err)
	}
}
