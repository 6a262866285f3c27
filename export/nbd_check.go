package export

import (
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qerr"
)

// allowedFlags are the flags that a command has in every mode, besides FUA.
func allowedFlags(c nbd.Command) nbd.CommandFlags {
	switch c {
	case nbd.CmdWriteZeroes:
		return nbd.CmdFlagNoHole | nbd.CmdFlagFastZero
	case nbd.CmdBlockStatus:
		return nbd.CmdFlagReqOne
	}
	return 0
}

// refuse makes the request fail for a mistake of the client.
func (r *request) refuse(format string, args ...any) {
	if r.failure != "" {
		return
	}
	r.err, r.failure = qerr.From(syscall.EINVAL), fmt.Sprintf(format, args...)
	r.answer()
}

// check refuses what breaks the rules (observed, mistake by mistake: order,
// words, and EINVAL for everything).
func (r *request) check() {
	switch r.Command {
	case nbd.CmdRead, nbd.CmdCache:
		if r.Length > nbd.MaxPayload {
			r.refuse("len (%d) is larger than max len (%d)", r.Length, nbd.MaxPayload)
		}
	case nbd.CmdWrite, nbd.CmdTrim, nbd.CmdWriteZeroes:
		if !r.client.export.writable {
			r.refuse("Export is read-only")
		}
	case nbd.CmdBlockStatus:
		r.checkBlockStatus()
	case nbd.CmdFlush:
		r.checkFlags()
		return
	default:
		r.refuse("invalid request type (%d) received", uint16(r.Command))
		return
	}
	if !r.isSelection() {
		r.checkArea()
	}
	r.checkFlags()
}

// isSelection tells whether the request's length is that of a list of
// contexts, which holds the true one.
func (r *request) isSelection() bool {
	return r.Command == nbd.CmdBlockStatus && r.Flags&nbd.CmdFlagPayloadLen != 0
}

func (r *request) checkArea() {
	size := uint64(r.client.export.size)
	switch {
	case r.Offset > size || r.Length > size-r.Offset:
		r.refuse("operation past EOF; From: %d, Len: %d, Size: %d", r.Offset, r.Length, size)
	case (r.Offset|r.Length)&(r.client.align-1) != 0:
		r.refuse("client sent unaligned request")
	}
}

func (r *request) checkFlags() {
	c := r.client
	allowed := allowedFlags(r.Command) | nbd.CmdFlagFUA
	switch {
	case r.Command == nbd.CmdRead && c.mode >= nbd.Structured:
		allowed |= nbd.CmdFlagDF
	case c.mode == nbd.Extended && (r.Command == nbd.CmdWrite || r.Command == nbd.CmdBlockStatus):
		allowed |= nbd.CmdFlagPayloadLen
	}
	if r.Flags&^allowed != 0 {
		r.refuse("unsupported flags for command %v (got %#x)", r.Command, uint16(r.Flags))
	}
}

func (r *request) checkBlockStatus() {
	switch {
	case !r.isSelection() && r.Length == 0:
		r.refuse("need non-zero length")
	case len(r.client.metas) == 0:
		r.refuse("CMD_BLOCK_STATUS not negotiated")
	}
	r.metas = append(r.metas[:0], r.client.metas...)
}

// selectContexts takes the length in question and the ids of contexts out of
// the payload of a block status: only these are answered.
func (r *request) selectContexts() {
	data := r.data.data(r.Length)
	if !r.chooseContexts(data) {
		r.refuse("CMD_BLOCK_STATUS payload not valid")
		return
	}
	r.Length = binary.BigEndian.Uint64(data)
	r.checkArea()
}

// chooseContexts reads the ids; false if they are not what they must be.
func (r *request) chooseContexts(data []byte) bool {
	if len(data) < 12 || len(data)%4 != 0 {
		return false
	}
	r.metas = r.metas[:0]
	for ids := data[8:]; len(ids) > 0; ids = ids[4:] {
		id := binary.BigEndian.Uint32(ids)
		i := slices.IndexFunc(r.client.metas, func(m nbd.MetaContext) bool { return m.ID == id })
		if i < 0 || slices.Contains(r.metas, r.client.metas[i]) {
			return false
		}
		r.metas = append(r.metas, r.client.metas[i])
	}
	return true
}
