package export

import (
	"encoding/binary"
	"fmt"
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
		r.metas = append(r.metas[:0], r.client.metas...)
	}
	if !r.isSelection() {
		r.checkArea()
		r.checkFlags()
	}
	switch {
	case r.Command > nbd.CmdBlockStatus:
		r.refuse("invalid request type (%d) received", uint16(r.Command))
	case r.Command == nbd.CmdBlockStatus && len(r.metas) == 0:
		// With a selection the reference would die of it.
		r.refuse("CMD_BLOCK_STATUS not negotiated")
	case r.Command == nbd.CmdBlockStatus && r.Length == 0 && !r.isSelection():
		r.refuse("need non-zero length")
	}
}

// isSelection tells whether the request's length is that of a list of
// contexts, which holds the true one.
func (r *request) isSelection() bool {
	return r.client.mode == nbd.Extended && r.Command == nbd.CmdBlockStatus && r.Flags&nbd.CmdFlagPayloadLen != 0
}

// checkArea refuses what is not all within the export. Unaligned requests are
// served, whatever the client has promised (observed).
func (r *request) checkArea() {
	if size := uint64(r.client.export.size); r.Offset > size || r.Length > size-r.Offset {
		r.refuse("operation past EOF; From: %d, Len: %d, Size: %d", r.Offset, r.Length, size)
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

// selectContexts takes the length in question and the ids of contexts out of
// the payload of a block status: only these are answered.
func (r *request) selectContexts() {
	var data []byte
	if r.data != nil {
		data = r.data.data(r.Length)
	}
	r.Length = 0
	if r.chooseContexts(data) {
		r.Length = binary.BigEndian.Uint64(data)
	}
	r.checkArea()
	r.checkFlags()
	switch {
	case len(r.metas) == 0:
		r.refuse("CMD_BLOCK_STATUS payload not valid")
	case r.Length == 0:
		r.refuse("need non-zero length")
	}
}

// chooseContexts reads the ids; false if the payload is not what it must be,
// and then none is chosen. The answers come in the contexts' own order.
func (r *request) chooseContexts(data []byte) bool {
	r.metas = r.metas[:0]
	if len(data) < 8 || len(data)%4 != 0 {
		return false
	}
	ids := data[8:]
	for _, m := range r.client.metas {
		switch count(ids, m.ID) {
		case 0:
		case 1:
			r.metas = append(r.metas, m)
		default:
			r.metas = r.metas[:0]
			return false
		}
	}
	if 4*len(r.metas) < len(ids) {
		r.metas = r.metas[:0] // one is unknown
		return false
	}
	return true
}

// count tells how often an id is in a list.
func count(ids []byte, id uint32) (n int) {
	for ; len(ids) > 0; ids = ids[4:] {
		if binary.BigEndian.Uint32(ids) == id {
			n++
		}
	}
	return n
}
