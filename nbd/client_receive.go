package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveReply reads one simple reply or one chunk and gives it to its
// request.
func (c *Client) receiveReply() error {
	r, err := c.receiveHeader()
	if err != nil {
		return err
	}
	k := c.find(r.Chunk.Cookie)
	if k == nil {
		return violated("reply to a request that nobody made, cookie %#x", r.Chunk.Cookie)
	}
	done, err := c.take(k, r)
	if err != nil {
		c.blame(k, err)
		return err
	}
	if done {
		c.finish(k, nil)
	}
	return nil
}

// blame ends a request whose reply broke the rules before all others.
func (c *Client) blame(k *call, err error) {
	var v violation
	if errors.As(err, &v) {
		c.finish(k, &LostError{Errno: syscall.EINVAL, Cause: err})
	}
}

func (c *Client) receiveHeader() (Reply, error) {
	b, err := c.in.peek(ReplyHeaderSize)
	if err != nil {
		return Reply{}, err
	}
	rest, err := c.session.Mode.ReplyRest(b)
	if err != nil {
		return Reply{}, err
	}
	if b, err = c.in.peek(ReplyHeaderSize + rest); err != nil {
		return Reply{}, err
	}
	r := c.session.Mode.ParseReply(b)
	c.in.drop(ReplyHeaderSize + rest)
	return r, nil
}

// take reads what belongs to a reply behind its header. The result tells
// whether it was all of the reply.
func (c *Client) take(k *call, r Reply) (done bool, err error) {
	if r.Simple {
		return true, c.takeSimple(k, r.Code)
	}
	if err := c.takeChunk(k, r.Chunk); err != nil {
		return false, err
	}
	if r.Chunk.Flags&ReplyDone == 0 {
		return false, nil
	}
	if k.req.Command == CmdRead && k.err == nil && !k.filled.complete(k.req.Length) {
		return false, violated("a read of %d bytes at %d has ended before all data have come", k.req.Length, k.req.Offset)
	}
	return true, nil
}

func (c *Client) takeSimple(k *call, code uint32) error {
	switch {
	case k.req.Command == CmdRead && c.session.Mode != Simple:
		return violated("simple reply to a read in structured mode")
	case code != 0:
		k.err = Errno(code)
	case k.req.Command == CmdRead:
		return c.in.readVec(k.vec, 0, k.req.Length)
	}
	return nil
}

// takeChunk checks a chunk by the rules of section "Structured reply types".
func (c *Client) takeChunk(k *call, h Chunk) error {
	switch {
	case h.Type.IsError():
		return c.takeError(k, h)
	case h.Type == ReplyNone:
		if h.Length != 0 || h.Flags&ReplyDone == 0 {
			return violated("empty chunk with %d bytes and flags %#x", h.Length, h.Flags)
		}
		return nil
	case h.Type == ReplyOffsetData && k.req.Command == CmdRead:
		return c.takeData(k, h.Length)
	case h.Type == ReplyOffsetHole && k.req.Command == CmdRead:
		return c.takeHole(k, h.Length)
	case k.req.Command == CmdBlockStatus && h.Type == c.statusType():
		return c.takeStatus(k, h.Length)
	}
	return violated("unexpected chunk of type %d in the reply to a %v request", h.Type, k.req.Command)
}

func (c *Client) takeData(k *call, length uint64) error {
	if length <= 8 {
		return violated("data chunk of %d bytes", length)
	}
	b, err := c.in.take(8)
	if err != nil {
		return err
	}
	at, err := k.fill(binary.BigEndian.Uint64(b), length-8)
	if err != nil {
		return err
	}
	return c.in.readVec(k.vec, at, length-8)
}

func (c *Client) takeHole(k *call, length uint64) error {
	if length != 12 {
		return violated("hole chunk of %d bytes", length)
	}
	b, err := c.in.take(12)
	if err != nil {
		return err
	}
	bytes := uint64(binary.BigEndian.Uint32(b[8:]))
	at, err := k.fill(binary.BigEndian.Uint64(b), bytes)
	if err != nil {
		return err
	}
	window(k.vec, at, bytes, func(part []byte) { clear(part) })
	return nil
}

// fill notes that an area of the export comes, which must be part of the
// request and must not have come before. The result is where in the request
// the area begins.
func (k *call) fill(offset, bytes uint64) (at uint64, err error) {
	at = offset - k.req.Offset
	if bytes == 0 || offset < k.req.Offset || at > k.req.Length || bytes > k.req.Length-at {
		return 0, violated("%d bytes at %d in the reply to a read of %d bytes at %d", bytes, offset, k.req.Length, k.req.Offset)
	}
	if !k.filled.add(at, bytes) {
		return 0, violated("%d bytes at %d have come twice, or in too many pieces", bytes, offset)
	}
	return at, nil
}

// takeError reads an error chunk. The first error of a reply counts.
func (c *Client) takeError(k *call, h Chunk) error {
	if h.Length < 6 || h.Length > 6+MaxString+8 {
		return violated("error chunk of %d bytes", h.Length)
	}
	b, err := c.in.take(6)
	if err != nil {
		return err
	}
	code, message := binary.BigEndian.Uint32(b), uint64(binary.BigEndian.Uint16(b[4:]))
	switch {
	case code == 0:
		return violated("error chunk without an error")
	case message > h.Length-6 || message > MaxString:
		return violated("error chunk of %d bytes with a message of %d", h.Length, message)
	}
	if k.err == nil {
		k.err = Errno(code)
	}
	return c.in.skip(h.Length - 6)
}

// statusType is the kind of chunk that brings block status.
func (c *Client) statusType() ReplyType {
	if c.session.Mode == Extended {
		return ReplyBlockStatusExt
	}
	return ReplyBlockStatus
}

// maxStatus bounds a chunk with block status, in bytes.
const maxStatus = 1 << 20

func (c *Client) takeStatus(k *call, length uint64) error {
	head, size := uint64(4), uint64(8)
	if c.session.Mode == Extended {
		head, size = 8, 16
	}
	if k.chunks++; k.chunks > 1 {
		return violated("more than one chunk with block status")
	}
	if length < head+size || length > maxStatus {
		return violated("block status of %d bytes", length)
	}
	b, err := c.in.take(int(head))
	if err != nil {
		return err
	}
	if id := binary.BigEndian.Uint32(b); id != c.session.ContextID {
		return violated("block status of context %d in place of %d", id, c.session.ContextID)
	}
	length -= head
	for ; length >= size; length -= size {
		if b, err = c.in.take(int(size)); err != nil {
			return err
		}
		e := parseExtent(b)
		if e.Length == 0 {
			return violated("block status of nothing")
		}
		if k.found < len(k.extents) {
			k.extents[k.found] = e
			k.found++
		}
	}
	return c.in.skip(length)
}

func parseExtent(b []byte) Extent {
	if len(b) == 16 {
		return Extent{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	}
	return Extent{uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))}
}

// window calls f for the parts of v from at on, bytes long in all.
func window(v [][]byte, at, bytes uint64, f func([]byte)) {
	for _, b := range v {
		if bytes == 0 {
			return
		}
		if at >= uint64(len(b)) {
			at -= uint64(len(b))
			continue
		}
		b = b[at:]
		at = 0
		if uint64(len(b)) > bytes {
			b = b[:bytes]
		}
		f(b)
		bytes -= uint64(len(b))
	}
}

// coverage is the set of bytes of a read that have come, as areas in order that
// neither overlap nor touch.
type coverage struct{ areas []area }

type area struct{ begin, end uint64 }

// maxAreas bounds the pieces in which a reply can be at any time: a chunk for
// each page of the longest read, every other one missing.
const maxAreas = MaxPayload / 4096 / 2

func (c *coverage) reset() { c.areas = c.areas[:0] }

// add adds an area; false if a part of it was there, or there are too many.
func (c *coverage) add(at, bytes uint64) bool {
	end := at + bytes
	i := len(c.areas)
	for i > 0 && c.areas[i-1].begin >= end {
		i--
	}
	before, after := i > 0 && c.areas[i-1].end == at, i < len(c.areas) && c.areas[i].begin == end
	switch {
	case i > 0 && c.areas[i-1].end > at:
		return false
	case before && after:
		c.areas[i-1].end = c.areas[i].end
		c.areas = append(c.areas[:i], c.areas[i+1:]...)
	case before:
		c.areas[i-1].end = end
	case after:
		c.areas[i].begin = at
	case len(c.areas) == maxAreas:
		return false
	default:
		c.areas = append(c.areas, area{})
		copy(c.areas[i+1:], c.areas[i:])
		c.areas[i] = area{at, end}
	}
	return true
}

func (c *coverage) complete(bytes uint64) bool {
	return len(c.areas) == 1 && c.areas[0] == area{0, bytes}
}

// replyReader reads replies. A small buffer saves a call for headers, and for
// small data the copy out of it costs less than the call; what is longer goes
// directly where it belongs, and the next header with it into the buffer.
type replyReader struct {
	conn net.Conn
	buf  []byte
	r, w int // what is in buf

	raw    syscall.RawConn       // nil: not a socket
	readv  func(fd uintptr) bool // kept, so that a read makes no closure
	iov    []unix.Iovec
	batch  []unix.Iovec // what readv fills
	n      int          // its results
	failed error
}

const receiveBuffer = 8 << 10

func (r *replyReader) init(conn net.Conn) {
	r.conn = conn
	r.buf = make([]byte, receiveBuffer)
	switch conn := conn.(type) {
	case *net.UnixConn:
		r.raw, _ = conn.SyscallConn()
	case *net.TCPConn:
		r.raw, _ = conn.SyscallConn()
	}
	r.readv = r.tryReadv
}

// peek returns the next n bytes, at most the buffer's length, without taking
// them.
func (r *replyReader) peek(n int) ([]byte, error) {
	if r.r > 0 && r.r+n > len(r.buf) {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for r.w-r.r < n {
		got, err := r.conn.Read(r.buf[r.w:])
		if err != nil && r.w-r.r+got < n {
			return nil, err
		}
		r.w += got
	}
	return r.buf[r.r : r.r+n], nil
}

// drop takes n bytes that were peeked at.
func (r *replyReader) drop(n int) {
	if r.r += n; r.r == r.w {
		r.r, r.w = 0, 0
	}
}

// take returns the next n bytes; they are good until the next call.
func (r *replyReader) take(n int) ([]byte, error) {
	b, err := r.peek(n)
	if err == nil {
		r.drop(n)
	}
	return b, err
}

func (r *replyReader) skip(n uint64) error {
	for n > 0 {
		part := min(n, uint64(len(r.buf)))
		if _, err := r.take(int(part)); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// readVec fills the part of v from at on, bytes long.
func (r *replyReader) readVec(v [][]byte, at, bytes uint64) (err error) {
	r.iov = r.iov[:0]
	for _, b := range v {
		if at >= uint64(len(b)) {
			at -= uint64(len(b))
			continue
		}
		if bytes == 0 {
			break
		}
		b = b[at:]
		b = b[:min(uint64(len(b)), bytes)]
		at = 0
		bytes -= uint64(len(b))
		n := copy(b, r.buf[r.r:r.w])
		r.drop(n)
		switch b = b[n:]; {
		case len(b) == 0:
		case r.raw != nil:
			r.iov = append(r.iov, iovec(b))
		default:
			if _, err = io.ReadFull(r.conn, b); err != nil {
				return err
			}
		}
	}
	return r.readDirectly()
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}

// readDirectly fills the memory in iov. The buffer is empty then, and takes
// what comes behind.
func (r *replyReader) readDirectly() error {
	if len(r.iov) == 0 {
		return nil
	}
	r.iov = append(r.iov, iovec(r.buf))
	defer clear(r.iov)
	left := r.iov
	for len(left) > 1 {
		n, err := r.read(left[:min(len(left), maxIov)])
		if err != nil {
			return err
		}
		for len(left) > 1 && n >= int(left[0].Len) {
			n -= int(left[0].Len)
			left = left[1:]
		}
		if len(left) == 1 {
			r.w = n
			break
		}
		left[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(left[0].Base), n))
		left[0].SetLen(int(left[0].Len) - n)
	}
	return nil
}

// maxIov is the number of buffers that the system takes at once.
const maxIov = 1024

func (r *replyReader) read(iov []unix.Iovec) (int, error) {
	r.batch = iov
	err := r.raw.Read(r.readv)
	r.batch = nil
	switch {
	case err != nil:
		return 0, err
	case r.failed != nil:
		return 0, r.failed
	case r.n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return r.n, nil
}

// tryReadv is called when the socket may have something; false: it has not.
func (r *replyReader) tryReadv(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(r.batch))), uintptr(len(r.batch)))
		r.n, r.failed = int(n), nil
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		default:
			r.failed = errno
		}
		return true
	}
}
