package nbd

import (
	"encoding/binary"
	"fmt"
)

// The sizes of headers, in bytes.
const (
	RequestSize         = 28
	ExtendedRequestSize = 32
	SimpleReplySize     = 16
	ChunkSize           = 20
	ExtendedChunkSize   = 32
)

// ErrMagic is returned for what does not begin as it must: the two sides have
// lost each other, and the connection is of no use any more.
var ErrMagic = complain("Bad magic received")

// MagicError is [ErrMagic] for a request.
type MagicError struct{ Got, Want uint32 }

func (e *MagicError) Error() string {
	return fmt.Sprintf("invalid magic (got %#x, expected %#x)", e.Got, e.Want)
}

// Request is a request's header. The cookie comes back in the reply.
type Request struct {
	Flags   CommandFlags
	Command Command
	Cookie  uint64
	Offset  uint64
	Length  uint64
}

// RequestHeaderSize is the size of a request's header in this mode, in bytes.
func (m Mode) RequestHeaderSize() int {
	if m == Extended {
		return ExtendedRequestSize
	}
	return RequestSize
}

// ParseRequest reads a request's header, which must be complete. With a
// [*MagicError] the result is what the header would say.
func (m Mode) ParseRequest(b []byte) (r Request, err error) {
	magic := uint32(magicRequest)
	if m == Extended {
		magic = magicExtRequest
	}
	if got := binary.BigEndian.Uint32(b); got != magic {
		err = &MagicError{got, magic}
	}
	r.Flags = CommandFlags(binary.BigEndian.Uint16(b[4:]))
	r.Command = Command(binary.BigEndian.Uint16(b[6:]))
	r.Cookie = binary.BigEndian.Uint64(b[8:])
	r.Offset = binary.BigEndian.Uint64(b[16:])
	if m == Extended {
		r.Length = binary.BigEndian.Uint64(b[24:])
	} else {
		r.Length = uint64(binary.BigEndian.Uint32(b[24:]))
	}
	return r, err
}

// AppendRequest appends a request's header. Without extended headers the
// length must fit into 32 bits.
func (m Mode) AppendRequest(dst []byte, r Request) []byte {
	magic := uint32(magicRequest)
	if m == Extended {
		magic = magicExtRequest
	}
	dst = binary.BigEndian.AppendUint32(dst, magic)
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Flags))
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Command))
	dst = binary.BigEndian.AppendUint64(dst, r.Cookie)
	dst = binary.BigEndian.AppendUint64(dst, r.Offset)
	if m == Extended {
		return binary.BigEndian.AppendUint64(dst, r.Length)
	}
	return binary.BigEndian.AppendUint32(dst, uint32(r.Length))
}

// AppendSimpleReply appends the header of a simple reply; a read's data
// follows it if code is 0.
func AppendSimpleReply(dst []byte, cookie uint64, code uint32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, magicSimple)
	dst = binary.BigEndian.AppendUint32(dst, code)
	return binary.BigEndian.AppendUint64(dst, cookie)
}

// Chunk is the header of a chunk of a structured reply.
type Chunk struct {
	Flags  ReplyFlags
	Type   ReplyType
	Cookie uint64
	// Offset is the request's own, only there with extended headers.
	Offset uint64
	// Length is that of the payload, in bytes.
	Length uint64
}

// AppendChunk appends the header of a chunk, for the modes that have chunks.
func (m Mode) AppendChunk(dst []byte, c Chunk) []byte {
	magic := uint32(magicStructured)
	if m == Extended {
		magic = magicExtReply
	}
	dst = binary.BigEndian.AppendUint32(dst, magic)
	dst = binary.BigEndian.AppendUint16(dst, uint16(c.Flags))
	dst = binary.BigEndian.AppendUint16(dst, uint16(c.Type))
	dst = binary.BigEndian.AppendUint64(dst, c.Cookie)
	if m == Extended {
		dst = binary.BigEndian.AppendUint64(dst, c.Offset)
		return binary.BigEndian.AppendUint64(dst, c.Length)
	}
	return binary.BigEndian.AppendUint32(dst, uint32(c.Length))
}

// Reply is a reply's header as a client reads it: a simple reply has an error
// code and no chunk type.
type Reply struct {
	Simple bool
	Code   uint32 // of a simple reply
	Chunk  Chunk  // of a structured one; its cookie in both cases
}

// ReplyHeaderSize is the number of bytes that tell how long a reply's header
// is: any header has at least as many.
const ReplyHeaderSize = SimpleReplySize

// ReplyRest tells how many bytes of the header follow the first
// [ReplyHeaderSize], by its magic number and the mode: simple replies may come
// in structured mode too, but only chunks of the mode's own kind.
func (m Mode) ReplyRest(b []byte) (int, error) {
	switch magic := binary.BigEndian.Uint32(b); {
	case magic == magicSimple && m != Extended:
		return 0, nil
	case magic == magicStructured && m == Structured:
		return ChunkSize - ReplyHeaderSize, nil
	case magic == magicExtReply && m == Extended:
		return ExtendedChunkSize - ReplyHeaderSize, nil
	}
	return 0, ErrMagic
}

// ParseReply reads a complete reply header, see [Mode.ReplyRest].
func (m Mode) ParseReply(b []byte) Reply {
	if binary.BigEndian.Uint32(b) == magicSimple {
		return Reply{Simple: true, Code: binary.BigEndian.Uint32(b[4:]), Chunk: Chunk{Cookie: binary.BigEndian.Uint64(b[8:])}}
	}
	c := Chunk{
		Flags:  ReplyFlags(binary.BigEndian.Uint16(b[4:])),
		Type:   ReplyType(binary.BigEndian.Uint16(b[6:])),
		Cookie: binary.BigEndian.Uint64(b[8:]),
	}
	if m == Extended {
		c.Offset = binary.BigEndian.Uint64(b[16:])
		c.Length = binary.BigEndian.Uint64(b[24:])
	} else {
		c.Length = uint64(binary.BigEndian.Uint32(b[16:]))
	}
	return Reply{Chunk: c}
}
