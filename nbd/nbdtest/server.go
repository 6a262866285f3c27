// Package nbdtest is an NBD server for tests of clients: a disk in memory
// behind the simplest handshake that does what it is told, and lies where it is
// told to.
//
// It answers one request after the other. A [Script] says what the server
// knows; its hooks can answer an option or a request in place of the server.
package nbdtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
)

// Script is what a server does.
type Script struct {
	Mode  nbd.Mode
	Flags nbd.TransmissionFlags // [nbd.FlagHasFlags] is added
	// Blocks are the smallest, preferred and largest block; not told if zero.
	Blocks [3]uint32
	// Context is the meta context that the server knows, "" for none.
	Context string
	// Greeting replaces the server's first words, and the connection ends
	// behind it.
	Greeting []byte
	// Option answers an option; nil leaves it to the server. The connection
	// ends behind an empty answer that is not nil.
	Option func(opt nbd.Option, data []byte) []byte
	// Request answers a request; nil leaves it to the server. The connection
	// ends behind an empty answer that is not nil.
	Request func(r nbd.Request, data []byte) []byte
}

// ContextID is how the server calls its meta context.
const ContextID = 7

// Server is a server for one test.
type Server struct {
	tb     testing.TB
	script Script
	// Path is that of the socket it listens on.
	Path string

	mu       sync.Mutex
	disk     []byte
	log      []string
	conns    map[net.Conn]bool
	listener net.Listener
	serving  sync.WaitGroup
}

// New makes a server with a disk of the given size, in bytes, that listens
// nowhere yet.
func New(tb testing.TB, size int, script Script) *Server {
	s := &Server{tb: tb, script: script, disk: make([]byte, size), conns: make(map[net.Conn]bool)}
	tb.Cleanup(s.Stop)
	return s
}

// Listen serves clients of a socket in a folder of its own.
func Listen(tb testing.TB, size int, script Script) *Server {
	tb.Helper()
	s := New(tb, size, script)
	dir, err := os.MkdirTemp("", "q") // a socket's path must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	s.Path = filepath.Join(dir, "s")
	s.Start()
	return s
}

// Start listens, again after [Server.Stop].
func (s *Server) Start() {
	s.tb.Helper()
	l, err := net.Listen("unix", s.Path)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
	s.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serving.Go(func() { s.Serve(conn) })
		}
	})
}

// Stop ends everything.
func (s *Server) Stop() {
	s.Unlisten()
	s.Drop()
	s.serving.Wait()
}

// Unlisten takes no more clients.
func (s *Server) Unlisten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// Finish waits until every client has gone by itself.
func (s *Server) Finish() {
	s.Unlisten()
	s.serving.Wait()
}

// Drop ends all connections.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}

// Change changes the script, for connections to come and requests to come.
func (s *Server) Change(f func(*Script)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.script)
}

func (s *Server) now() Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.script
}

// Resize changes the disk's size, for connections to come.
func (s *Server) Resize(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	disk := make([]byte, size)
	copy(disk, s.disk)
	s.disk = disk
}

// Bytes is a copy of the disk.
func (s *Server) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.disk)
}

// Fill sets a part of the disk.
func (s *Server) Fill(offset int, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.disk[offset:], data)
}

// TakeLog returns what clients have asked for since the last time: "connect",
// options' names, and requests as "read 0+4096", with flags "write/1 0+512".
func (s *Server) TakeLog() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

func (s *Server) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// Dial returns the client's side of a new connection, a socket.
func (s *Server) Dial() net.Conn {
	s.tb.Helper()
	conn, err := net.Dial("unix", s.Path)
	if err != nil {
		s.tb.Fatal(err)
	}
	return conn
}

// Serve serves one client until it goes or is sent away.
func (s *Server) Serve(conn net.Conn) {
	s.mu.Lock()
	s.conns[conn] = true
	s.mu.Unlock()
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	c := &client{s: s, conn: conn}
	err := c.handshake()
	for err == nil {
		err = c.serveRequest()
	}
}

var errEnd = errors.New("the script ends the connection")

type client struct {
	s    *Server
	conn net.Conn
	mode nbd.Mode
	zero bool // EXPORT_NAME is followed by zeroes
}

func (c *client) send(b []byte) error {
	if len(b) == 0 {
		return errEnd
	}
	_, err := c.conn.Write(b)
	return err
}

func (c *client) handshake() error {
	c.s.note("connect")
	if b := c.s.now().Greeting; b != nil {
		_ = c.send(b)
		return errEnd
	}
	if err := c.send(Greeting(nbd.HandshakeFixedNewstyle | nbd.HandshakeNoZeroes)); err != nil {
		return err
	}
	var b [16]byte
	if _, err := io.ReadFull(c.conn, b[:4]); err != nil {
		return err
	}
	c.zero = b[3]&byte(nbd.HandshakeNoZeroes) == 0
	for {
		if _, err := io.ReadFull(c.conn, b[:]); err != nil {
			return err
		}
		opt := nbd.Option(binary.BigEndian.Uint32(b[8:]))
		data := make([]byte, binary.BigEndian.Uint32(b[12:]))
		if _, err := io.ReadFull(c.conn, data); err != nil {
			return err
		}
		c.s.note("%v", opt)
		answer := []byte(nil)
		if hook := c.s.now().Option; hook != nil {
			answer = hook(opt, data)
		}
		entered := opt == nbd.OptExportName
		if answer == nil {
			answer, entered = c.answer(opt)
		}
		if err := c.send(answer); err != nil {
			return err
		}
		if entered {
			return nil
		}
		if opt == nbd.OptAbort {
			return errEnd
		}
	}
}

func (c *client) answer(opt nbd.Option) (b []byte, entered bool) {
	script := c.s.now()
	switch {
	case opt == nbd.OptAbort:
		return Reply(opt, nbd.RepAck, nil), false
	case opt == nbd.OptExtendedHeaders && script.Mode == nbd.Extended, opt == nbd.OptStructuredReply && script.Mode == nbd.Structured:
		c.mode = script.Mode
		return Reply(opt, nbd.RepAck, nil), false
	case opt == nbd.OptSetMetaContext && script.Context != "":
		return append(Context(ContextID, script.Context), Reply(opt, nbd.RepAck, nil)...), false
	case opt == nbd.OptGo:
		if script.Blocks != [3]uint32{} {
			b = Blocks(script.Blocks[0], script.Blocks[1], script.Blocks[2])
		}
		b = append(b, c.export()...)
		return append(b, Reply(opt, nbd.RepAck, nil)...), true
	}
	return Reply(opt, nbd.RepErrUnsupported, nil), false
}

func (c *client) export() []byte {
	return Info(uint64(len(c.s.Bytes())), c.s.now().Flags|nbd.FlagHasFlags)
}

func (c *client) serveRequest() error {
	head := make([]byte, c.mode.RequestHeaderSize())
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return err
	}
	r, err := c.mode.ParseRequest(head)
	if err != nil {
		c.s.tb.Errorf("a client sent %x", head)
		return err
	}
	var data []byte
	if r.Command == nbd.CmdWrite {
		data = make([]byte, r.Length)
		if _, err := io.ReadFull(c.conn, data); err != nil {
			return err
		}
	}
	name := r.Command.String()
	if r.Flags != 0 {
		name += fmt.Sprintf("/%x", uint16(r.Flags))
	}
	c.s.note("%s %d+%d", name, r.Offset, r.Length)
	if r.Command == nbd.CmdDisconnect {
		return errEnd
	}
	if hook := c.s.now().Request; hook != nil {
		if answer := hook(r, data); answer != nil {
			return c.send(answer)
		}
	}
	return c.send(c.carryOut(r, data))
}

func (c *client) carryOut(r nbd.Request, data []byte) []byte {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if r.Offset+r.Length > uint64(len(c.s.disk)) {
		return Failure(c.mode, r, 22, "")
	}
	area := c.s.disk[r.Offset : r.Offset+r.Length]
	switch r.Command {
	case nbd.CmdRead:
		if c.mode == nbd.Simple {
			return append(nbd.AppendSimpleReply(nil, r.Cookie, 0), area...)
		}
		return Data(c.mode, r, nbd.ReplyDone, r.Offset, area)
	case nbd.CmdWrite:
		copy(area, data)
	case nbd.CmdWriteZeroes, nbd.CmdTrim:
		clear(area)
	case nbd.CmdBlockStatus:
		return Status(c.mode, r, ContextID, nbd.Extent{Length: r.Length})
	}
	if c.mode == nbd.Extended {
		return Chunk(c.mode, r, nbd.ReplyNone, nbd.ReplyDone, nil)
	}
	return nbd.AppendSimpleReply(nil, r.Cookie, 0)
}
