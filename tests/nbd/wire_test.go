package nbd_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
)

// wire is a client that says what it is told to, also what no client should.
type wire struct {
	net.Conn
	in   *bufio.Reader
	mode nbd.Mode
	// size is the export's, once it is entered.
	size uint64
}

func newWire(conn net.Conn) *wire { return &wire{Conn: conn, in: bufio.NewReaderSize(conn, 128<<10)} }

// dial connects, and the greeting is read. Where many wait to be accepted it
// waits as well.
func dial(network, addr string) (*wire, error) {
	conn, err := net.Dial(network, addr)
	for end := time.Now().Add(patience); errors.Is(err, syscall.EAGAIN) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		conn, err = net.Dial(network, addr)
	}
	if err != nil {
		return nil, err
	}
	w := newWire(conn)
	if err := w.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if _, err := w.bytes(18); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// bytes reads exactly n bytes; fewer come with an error.
func (w *wire) bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := io.ReadFull(w.in, b)
	return b[:got], err
}

var be = binary.BigEndian

// clientFlags are the client's first word.
func clientFlags(flags uint32) []byte { return be.AppendUint32(nil, flags) }

// option is an option with its data.
func option(opt nbd.Option, data []byte) []byte { return optionOf(opt, uint32(len(data)), data) }

// optionOf is an option that may lie about its length.
func optionOf(opt nbd.Option, length uint32, data []byte) []byte {
	b := []byte("IHAVEOPT")
	b = be.AppendUint32(b, uint32(opt))
	b = be.AppendUint32(b, length)
	return append(b, data...)
}

func lengthAnd(s string) []byte { return append(be.AppendUint32(nil, uint32(len(s))), s...) }

// infoData is the data of INFO and GO.
func infoData(name string, infos ...nbd.InfoType) []byte {
	b := be.AppendUint16(lengthAnd(name), uint16(len(infos)))
	for _, i := range infos {
		b = be.AppendUint16(b, uint16(i))
	}
	return b
}

// metaData is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func metaData(name string, queries ...string) []byte {
	b := be.AppendUint32(lengthAnd(name), uint32(len(queries)))
	for _, q := range queries {
		b = append(b, lengthAnd(q)...)
	}
	return b
}

// optionReply reads one reply to an option.
func (w *wire) optionReply() (raw []byte, typ nbd.OptionReply, err error) {
	raw, err = w.bytes(20)
	if err != nil {
		return raw, 0, err
	}
	data, err := w.bytes(int(be.Uint32(raw[16:])))
	return append(raw, data...), nbd.OptionReply(be.Uint32(raw[12:])), err
}

// optionReplies reads replies up to the last one to an option.
func (w *wire) optionReplies() (raw []byte, last nbd.OptionReply, err error) {
	for {
		one, typ, err := w.optionReply()
		raw = append(raw, one...)
		if err != nil || typ == nbd.RepAck || typ.IsError() {
			return raw, typ, err
		}
	}
}

// ask sends an option that must be granted.
func (w *wire) ask(opt nbd.Option, data []byte) ([]byte, error) {
	if _, err := w.Write(option(opt, data)); err != nil {
		return nil, err
	}
	raw, last, err := w.optionReplies()
	if err == nil && last != nbd.RepAck {
		err = fmt.Errorf("option %v: %#x %q", opt, uint32(last), raw)
	}
	return raw, err
}

// enter haggles as a well-behaved client does. Contexts are asked for if the
// mode has them.
func (w *wire) enter(mode nbd.Mode, name string, contexts ...string) error {
	if _, err := w.Write(clientFlags(3)); err != nil {
		return err
	}
	if mode > nbd.Simple {
		opt := nbd.OptStructuredReply
		if mode == nbd.Extended {
			opt = nbd.OptExtendedHeaders
		}
		if _, err := w.ask(opt, nil); err != nil {
			return err
		}
		if len(contexts) > 0 {
			if _, err := w.ask(nbd.OptSetMetaContext, metaData(name, contexts...)); err != nil {
				return err
			}
		}
	}
	raw, err := w.ask(nbd.OptGo, infoData(name, nbd.InfoBlockSize))
	if err != nil {
		return err
	}
	w.mode = mode
	return w.learnSize(raw)
}

// learnSize finds the export's size in the replies to GO.
func (w *wire) learnSize(raw []byte) error {
	for len(raw) >= 20 {
		length := int(be.Uint32(raw[16:]))
		if data := raw[20 : 20+length]; be.Uint32(raw[12:]) == uint32(nbd.RepInfo) && be.Uint16(data) == uint16(nbd.InfoExport) {
			w.size = be.Uint64(data[2:])
			return nil
		}
		raw = raw[20+length:]
	}
	return errors.New("no size in the replies to GO")
}

// client is a well-behaved client of an export.
func client(tb testing.TB, network, addr string, mode nbd.Mode, name string, contexts ...string) *wire {
	tb.Helper()
	w, err := dial(network, addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.Close() })
	if err := w.enter(mode, name, contexts...); err != nil {
		tb.Fatal(err)
	}
	return w
}

// request is a request with its data, in the mode of the client.
func (w *wire) request(r nbd.Request, data []byte) []byte {
	return append(w.mode.AppendRequest(nil, r), data...)
}

// frame is one message of a reply.
type frame struct {
	nbd.Reply
	data []byte
}

// last tells whether the reply is complete with this frame.
func (f frame) last() bool { return f.Simple || f.Chunk.Flags&nbd.ReplyDone != 0 }

// code is the error that the frame tells of, 0 for none.
func (f frame) code() uint32 {
	switch {
	case f.Simple:
		return f.Code
	case f.Chunk.Type.IsError() && len(f.data) >= 4:
		return be.Uint32(f.data)
	}
	return 0
}

// frame reads one message. A simple reply to a read has simpleData bytes of
// data.
func (w *wire) frame(simpleData func(cookie uint64) uint64) (f frame, raw []byte, err error) {
	if raw, err = w.bytes(nbd.ReplyHeaderSize); err != nil {
		return f, raw, err
	}
	rest, err := w.mode.ReplyRest(raw)
	if err != nil {
		return f, raw, err
	}
	more, err := w.bytes(rest)
	raw = append(raw, more...)
	if err != nil {
		return f, raw, err
	}
	f.Reply = w.mode.ParseReply(raw)
	length := f.Chunk.Length
	if f.Simple {
		length = 0
		if f.Code == 0 {
			length = simpleData(f.Chunk.Cookie)
		}
	}
	if length > 64<<20 {
		return f, raw, fmt.Errorf("a frame of %d bytes", length)
	}
	f.data, err = w.bytes(int(length))
	return f, append(raw, f.data...), err
}

// reply reads the whole reply to the only request under way.
func (w *wire) reply(r nbd.Request) (raw []byte, frames []frame, err error) {
	data := func(uint64) uint64 {
		if r.Command == nbd.CmdRead {
			return r.Length
		}
		return 0
	}
	for {
		f, one, err := w.frame(data)
		raw = append(raw, one...)
		if err != nil {
			return raw, frames, err
		}
		frames = append(frames, f)
		if f.last() {
			return raw, frames, nil
		}
	}
}

// do sends a request and returns the data of its reply: what was read, or the
// payload of the chunks of a status.
func (w *wire) do(r nbd.Request, data []byte) ([]byte, error) {
	if r.Command == nbd.CmdWrite && w.mode == nbd.Extended {
		r.Flags |= nbd.CmdFlagPayloadLen
	}
	if _, err := w.Write(w.request(r, data)); err != nil {
		return nil, err
	}
	_, frames, err := w.reply(r)
	if err != nil {
		return nil, err
	}
	return assemble(r, frames)
}

// assemble makes the result of a request out of the frames of its reply.
func assemble(r nbd.Request, frames []frame) ([]byte, error) {
	for _, f := range frames {
		if f.Chunk.Cookie != r.Cookie {
			return nil, fmt.Errorf("a reply to %d, not %d", f.Chunk.Cookie, r.Cookie)
		}
		if code := f.code(); code != 0 {
			return nil, nbd.Errno(code)
		}
	}
	if r.Command == nbd.CmdRead {
		return assembleRead(r, frames)
	}
	var out []byte
	for _, f := range frames {
		out = append(out, f.data...)
	}
	return out, nil
}

// assembleRead wants every byte exactly once.
func assembleRead(r nbd.Request, frames []frame) ([]byte, error) {
	out, got := make([]byte, r.Length), uint64(0)
	for _, f := range frames {
		data := f.data
		length := uint64(len(data))
		var at uint64
		switch {
		case f.Simple:
		case f.Chunk.Type == nbd.ReplyNone:
			continue
		case f.Chunk.Type == nbd.ReplyOffsetData:
			at, data, length = be.Uint64(data)-r.Offset, data[8:], length-8
		case f.Chunk.Type == nbd.ReplyOffsetHole:
			at, data, length = be.Uint64(data)-r.Offset, nil, uint64(be.Uint32(data[8:]))
		default:
			return nil, fmt.Errorf("a read is answered with %+v", f.Chunk)
		}
		if at > r.Length || length > r.Length-at {
			return nil, fmt.Errorf("a chunk of %d bytes at %d in a read of %d", length, at, r.Length)
		}
		copy(out[at:], data)
		got += length
	}
	if got != r.Length {
		return nil, fmt.Errorf("a read of %d bytes is answered with %d", r.Length, got)
	}
	return out, nil
}

func (w *wire) read(offset, length uint64) ([]byte, error) {
	return w.do(nbd.Request{Command: nbd.CmdRead, Cookie: offset, Offset: offset, Length: length}, nil)
}

func (w *wire) write(offset uint64, data []byte, flags nbd.CommandFlags) error {
	_, err := w.do(nbd.Request{Command: nbd.CmdWrite, Flags: flags, Cookie: offset, Offset: offset, Length: uint64(len(data))}, data)
	return err
}

func (w *wire) flush() error {
	_, err := w.do(nbd.Request{Command: nbd.CmdFlush, Cookie: 1 << 60}, nil)
	return err
}

// disconnect ends the connection in due form.
func (w *wire) disconnect() error {
	_, err := w.Write(w.request(nbd.Request{Command: nbd.CmdDisconnect}, nil))
	return errors.Join(err, w.Close())
}
