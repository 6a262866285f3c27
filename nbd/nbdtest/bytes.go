package nbdtest

import (
	"encoding/binary"

	"github.com/qmpblock/qmpblock/nbd"
)

// Greeting is a newstyle server's first words.
func Greeting(flags nbd.HandshakeFlags) []byte {
	return binary.BigEndian.AppendUint16([]byte("NBDMAGICIHAVEOPT"), uint16(flags))
}

// Oldstyle is all that an oldstyle server says in the handshake.
func Oldstyle(size uint64, flags uint32) []byte {
	b := append([]byte("NBDMAGIC"), 0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53)
	b = binary.BigEndian.AppendUint64(b, size)
	b = binary.BigEndian.AppendUint32(b, flags)
	return append(b, make([]byte, 124)...)
}

// Reply is a reply to an option.
func Reply(opt nbd.Option, kind nbd.OptionReply, data []byte) []byte {
	return append(ReplyHeader(opt, kind, len(data)), data...)
}

// ReplyHeader is the header of a reply to an option that announces so many
// bytes.
func ReplyHeader(opt nbd.Option, kind nbd.OptionReply, length int) []byte {
	b := binary.BigEndian.AppendUint64(nil, 0x0003e889045565a9)
	b = binary.BigEndian.AppendUint32(b, uint32(opt))
	b = binary.BigEndian.AppendUint32(b, uint32(kind))
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// Info is the reply to GO that tells of the export.
func Info(size uint64, flags nbd.TransmissionFlags) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(nbd.InfoExport))
	b = binary.BigEndian.AppendUint64(b, size)
	return Reply(nbd.OptGo, nbd.RepInfo, binary.BigEndian.AppendUint16(b, uint16(flags)))
}

// Blocks is the reply to GO that tells of the sizes of blocks.
func Blocks(smallest, preferred, largest uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(nbd.InfoBlockSize))
	b = binary.BigEndian.AppendUint32(b, smallest)
	b = binary.BigEndian.AppendUint32(b, preferred)
	return Reply(nbd.OptGo, nbd.RepInfo, binary.BigEndian.AppendUint32(b, largest))
}

// Context is the reply to SET_META_CONTEXT that names one.
func Context(id uint32, name string) []byte {
	return Reply(nbd.OptSetMetaContext, nbd.RepMetaContext, append(binary.BigEndian.AppendUint32(nil, id), name...))
}

// Listed is the reply to LIST that names one export.
func Listed(name, description string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	return Reply(nbd.OptList, nbd.RepServer, append(append(b, name...), description...))
}

// Chunk is a chunk of the reply to r.
func Chunk(mode nbd.Mode, r nbd.Request, kind nbd.ReplyType, flags nbd.ReplyFlags, data []byte) []byte {
	h := nbd.Chunk{Flags: flags, Type: kind, Cookie: r.Cookie, Offset: r.Offset, Length: uint64(len(data))}
	return append(mode.AppendChunk(nil, h), data...)
}

// Data is a chunk with data.
func Data(mode nbd.Mode, r nbd.Request, flags nbd.ReplyFlags, offset uint64, data []byte) []byte {
	return Chunk(mode, r, nbd.ReplyOffsetData, flags, append(binary.BigEndian.AppendUint64(nil, offset), data...))
}

// Hole is a chunk for zeroes.
func Hole(mode nbd.Mode, r nbd.Request, flags nbd.ReplyFlags, offset uint64, bytes uint32) []byte {
	b := binary.BigEndian.AppendUint64(nil, offset)
	return Chunk(mode, r, nbd.ReplyOffsetHole, flags, binary.BigEndian.AppendUint32(b, bytes))
}

// Failure is a reply that reports an error, with a message where the mode has
// room for one.
func Failure(mode nbd.Mode, r nbd.Request, code uint32, message string) []byte {
	if mode == nbd.Simple {
		return nbd.AppendSimpleReply(nil, r.Cookie, code)
	}
	b := binary.BigEndian.AppendUint32(nil, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(message)))
	return Chunk(mode, r, nbd.ReplyError, nbd.ReplyDone, append(b, message...))
}

// Status is a reply with block status.
func Status(mode nbd.Mode, r nbd.Request, context uint32, extents ...nbd.Extent) []byte {
	b := binary.BigEndian.AppendUint32(nil, context)
	kind := nbd.ReplyBlockStatus
	if mode == nbd.Extended {
		kind = nbd.ReplyBlockStatusExt
		b = binary.BigEndian.AppendUint32(b, uint32(len(extents)))
	}
	for _, e := range extents {
		if mode == nbd.Extended {
			b = binary.BigEndian.AppendUint64(b, e.Length)
			b = binary.BigEndian.AppendUint64(b, e.Flags)
		} else {
			b = binary.BigEndian.AppendUint32(b, uint32(e.Length))
			b = binary.BigEndian.AppendUint32(b, uint32(e.Flags))
		}
	}
	return Chunk(mode, r, kind, nbd.ReplyDone, b)
}
