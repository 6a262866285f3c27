package export

import (
	"encoding/binary"
	"fmt"

	"github.com/qmpblock/qmpblock/nbd"
)

// answer builds the reply. Everything that is not data stands in head, whose
// memory must not move once a part of the reply lies in it.
func (r *request) answer() {
	r.head, r.reply = r.head[:0], r.reply[:0]
	mode := r.client.mode
	switch {
	case r.err != nil && r.half:
		//lint:ignore ST1005 These are the reference's words.
		r.client.blame(fmt.Errorf("Failed to send reply: %s: %w", r.failure, r.err))
	case r.err != nil && mode == nbd.Simple:
		r.answerSimple(nbd.ErrorCode(errno(r.err)))
	case r.err != nil:
		r.answerError()
	case r.sparse():
		r.answerExtents()
	case r.Command == nbd.CmdBlockStatus:
		r.add(r.status)
	case r.Command == nbd.CmdRead && mode >= nbd.Structured:
		r.answerData()
	case mode == nbd.Extended:
		r.chunk(nbd.ReplyNone, nbd.ReplyDone, 0)
		r.add(r.head)
	default:
		r.answerSimple(0)
	}
}

// add appends a part to the reply.
func (r *request) add(part []byte) { r.reply = append(r.reply, part) }

// answerSimple is a header, in front of the data if there is some.
func (r *request) answerSimple(code uint32) {
	r.head = nbd.AppendSimpleReply(r.head, r.Cookie, code)
	if code == 0 && r.Command == nbd.CmdRead && r.Length > 0 {
		r.add(r.data.prefixed(r.head, r.Length))
		return
	}
	r.add(r.head)
}

// chunk appends a chunk's header to head.
func (r *request) chunk(t nbd.ReplyType, flags nbd.ReplyFlags, length uint64) {
	r.head = r.client.mode.AppendChunk(r.head, nbd.Chunk{Flags: flags, Type: t, Cookie: r.Cookie, Offset: r.Offset, Length: length})
}

func (r *request) answerError() {
	r.chunk(nbd.ReplyError, nbd.ReplyDone, uint64(6+len(r.failure)))
	r.head = binary.BigEndian.AppendUint32(r.head, nbd.ErrorCode(errno(r.err)))
	r.head = binary.BigEndian.AppendUint16(r.head, uint16(len(r.failure)))
	r.head = append(r.head, r.failure...)
	r.add(r.head)
}

// answerData is all data in one chunk.
func (r *request) answerData() {
	if r.Length == 0 {
		r.chunk(nbd.ReplyNone, nbd.ReplyDone, 0)
		r.add(r.head)
		return
	}
	r.chunk(nbd.ReplyOffsetData, nbd.ReplyDone, 8+r.Length)
	r.head = binary.BigEndian.AppendUint64(r.head, r.Offset)
	r.add(r.data.prefixed(r.head, r.Length))
}

// maxChunkHeader is the most that a chunk of a read has before its data, in
// bytes.
const maxChunkHeader = nbd.ExtendedChunkSize + 12

// answerExtents has a chunk for each extent.
func (r *request) answerExtents() {
	if need := len(r.extents) * maxChunkHeader; cap(r.head) < need {
		r.head = make([]byte, 0, need)
	}
	offset := uint64(0)
	for i, e := range r.extents {
		var flags nbd.ReplyFlags
		if i == len(r.extents)-1 {
			flags = nbd.ReplyDone
		}
		from := len(r.head)
		if e.hole() {
			r.chunk(nbd.ReplyOffsetHole, flags, 12)
			r.head = binary.BigEndian.AppendUint64(r.head, r.Offset+offset)
			r.head = binary.BigEndian.AppendUint32(r.head, uint32(e.length))
			r.add(r.head[from:])
		} else {
			r.chunk(nbd.ReplyOffsetData, flags, 8+e.length)
			r.head = binary.BigEndian.AppendUint64(r.head, r.Offset+offset)
			r.addPrefixed(r.head[from:], offset, e.length)
		}
		offset += e.length
	}
}

// addPrefixed adds data with its header, in one piece where there is room in
// front of the data.
func (r *request) addPrefixed(header []byte, offset, size uint64) {
	if offset == 0 {
		r.add(r.data.prefixed(header, size))
		return
	}
	r.add(header)
	r.add(r.data.data(r.Length)[offset : offset+size])
}
