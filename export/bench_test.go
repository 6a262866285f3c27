package export_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/export"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/sockets"
)

// BenchmarkNBD is the way of a request from a client's socket through a raw
// image in the page cache and back. The client is in the same process and
// allocates nothing, so that what is reported is the server's.
func BenchmarkNBD(b *testing.B) {
	for _, mode := range []nbd.Mode{nbd.Simple, nbd.Structured} {
		for _, command := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite} {
			for _, load := range []struct{ length, depth int }{{4 << 10, 1}, {4 << 10, 16}, {1 << 20, 4}} {
				name := fmt.Sprintf("mode=%s/%s/length=%d/depth=%d", modeName(mode), command, load.length, load.depth)
				b.Run(name, func(b *testing.B) { benchmarkNBD(b, mode, command, load.length, load.depth) })
			}
		}
	}
}

func modeName(m nbd.Mode) string {
	if m == nbd.Structured {
		return "structured"
	}
	return "simple"
}

// benchmarkNBD keeps depth requests under way.
func benchmarkNBD(b *testing.B, mode nbd.Mode, command nbd.Command, length, depth int) {
	c := &pipeline{conn: exported(b), mode: mode, length: length}
	if err := c.open(command); err != nil {
		b.Fatal(err)
	}
	for range depth - 1 {
		c.send()
	}
	b.SetBytes(int64(length))
	b.ReportAllocs()
	for b.Loop() {
		c.send()
		c.receive()
	}
	for range depth - 1 {
		c.receive()
	}
	if c.err != nil {
		b.Fatal(c.err)
	}
}

// exported serves a raw image and returns a connection to the server.
func exported(b *testing.B) net.Conn {
	b.Helper()
	bench := drivertest.New(b, raw.Driver(), file.Driver())
	dir := b.TempDir()
	image, socket := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "nbd.sock")
	if err := os.WriteFile(image, bytes.Repeat([]byte("qmpblock"), imageSize/8), 0o600); err != nil {
		b.Fatal(err)
	}
	bench.Add(fmt.Sprintf(`{"driver": "file", "node-name": "f", "filename": %q}`, image))
	bench.Add(`{"driver": "raw", "node-name": "r", "file": "f"}`)
	name := "x"
	set := export.NewSet(export.Config{
		Graph:    bench.Graph,
		Deleted:  func(string) {},
		Panicked: func(p *aio.PanicError) { b.Error(p) },
		Complain: func(line string) { b.Error(line) },
	})
	b.Cleanup(func() { bench.Main(set.Close) })
	var err error
	bench.Main(func(l *aio.Lock) {
		addr := sockets.Address{Unix: &sockets.UnixAddress{Path: socket}}
		if err = set.StartServer(l, &export.ServerOptions{Context: b.Context(), Addr: addr}); err != nil {
			return
		}
		err = set.Add(l, &export.Options{Type: export.NBD, ID: "e", NodeName: "r", Writable: true, NBD: &export.NBDOptions{Name: &name}})
	})
	if err != nil {
		b.Fatal(err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

const imageSize = 16 << 20

// pipeline is a client that sends the same kind of request again and again.
// The first error stays.
type pipeline struct {
	conn    net.Conn
	mode    nbd.Mode
	length  int
	request nbd.Request
	data    []byte // of a write
	head    []byte
	in      *bufio.Reader
	out     *bufio.Writer
	err     error
}

// open enters the export "x".
func (c *pipeline) open(command nbd.Command) error {
	c.request = nbd.Request{Command: command, Length: uint64(c.length)}
	if command == nbd.CmdWrite {
		c.data = make([]byte, c.length)
	}
	c.in, c.out = bufio.NewReaderSize(c.conn, 64<<10), bufio.NewWriterSize(c.conn, 64<<10)
	hello := binary.BigEndian.AppendUint32(nil, uint32(nbd.HandshakeFixedNewstyle|nbd.HandshakeNoZeroes))
	answer := 8 + 8 + 2 // the greeting
	if c.mode == nbd.Structured {
		hello = appendOption(hello, nbd.OptStructuredReply, "")
		answer += 8 + 4 + 4 + 4
	}
	hello = appendOption(hello, nbd.OptExportName, "x")
	answer += 8 + 2 // size and flags
	if _, err := c.conn.Write(hello); err != nil {
		return err
	}
	_, err := c.in.Discard(answer)
	return err
}

func appendOption(dst []byte, o nbd.Option, data string) []byte {
	dst = append(dst, "IHAVEOPT"...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(o))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)))
	return append(dst, data...)
}

// send adds a request to what leaves before a reply is waited for.
func (c *pipeline) send() {
	if c.err != nil {
		return
	}
	c.request.Cookie++
	c.request.Offset = (c.request.Offset + uint64(c.length)) % imageSize
	c.head = c.mode.AppendRequest(c.head[:0], c.request)
	_, c.err = c.out.Write(c.head)
	if c.err == nil {
		_, c.err = c.out.Write(c.data)
	}
}

// receive takes a reply: all data, and no error.
func (c *pipeline) receive() {
	if c.err == nil && c.in.Buffered() == 0 {
		c.err = c.out.Flush()
	}
	if c.err == nil {
		c.err = c.reply()
	}
}

func (c *pipeline) reply() error {
	head, err := c.in.Peek(nbd.ReplyHeaderSize)
	if err != nil {
		return err
	}
	rest, err := c.mode.ReplyRest(head)
	if err != nil {
		return err
	}
	if head, err = c.in.Peek(nbd.ReplyHeaderSize + rest); err != nil {
		return err
	}
	r := c.mode.ParseReply(head)
	payload := 0
	switch {
	case r.Simple && r.Code != 0, !r.Simple && r.Chunk.Type.IsError():
		return fmt.Errorf("the server failed: %+v", r)
	case r.Simple && c.request.Command == nbd.CmdRead:
		payload = c.length
	case !r.Simple:
		payload = int(r.Chunk.Length)
		if r.Chunk.Flags&nbd.ReplyDone == 0 || c.request.Command == nbd.CmdRead && payload != 8+c.length {
			return fmt.Errorf("the server sent more or less than one chunk of data: %+v", r)
		}
	}
	_, err = c.in.Discard(len(head) + payload)
	return err
}
