package nbd

import (
	"encoding/binary"
	"strings"
)

// metaContexts answers LIST_META_CONTEXT, which tells what there is, and
// SET_META_CONTEXT, which chooses (section "Metadata querying").
func (h *serverHandshake) metaContexts(opt Option, data []byte) {
	set := opt == OptSetMetaContext
	if set {
		// Whatever comes of it, what was set before counts no more.
		h.s.MetaContexts, h.metaExport = nil, ""
	}
	if set && h.s.Mode < Structured {
		h.refuse(opt, RepErrInvalid, "request option '%v' when structured reply is not negotiated", opt)
		return
	}
	d := decoder{b: data}
	name := d.string()
	queries := decodeQueries(&d)
	if !h.decoded(opt, &d) {
		return
	}
	o := h.cfg.Find(name)
	if o == nil {
		h.refuseName(opt, name)
		return
	}
	for _, c := range o.MetaContexts() {
		if !c.asked(queries, set) {
			continue
		}
		id := uint32(0) // listed contexts have none yet
		if set {
			id = c.ID
			h.s.MetaContexts = append(h.s.MetaContexts, c)
		}
		h.reply(opt, RepMetaContext, binary.BigEndian.AppendUint32(nil, id), []byte(c.Name))
	}
	h.metaExport = name
	h.ack(opt)
}

func decodeQueries(d *decoder) []string {
	var queries []string
	for n := d.uint32(); n > 0 && !d.short; n-- {
		// One that is longer than any name fits nothing.
		if q := d.bytes(d.uint32()); !d.short {
			queries = append(queries, string(q))
		}
	}
	return queries
}

// asked tells whether one of the queries means the context. Lists can be asked
// for whole namespaces, or without a query for all there is.
func (c MetaContext) asked(queries []string, set bool) bool {
	if !set && len(queries) == 0 {
		return true
	}
	for _, q := range queries {
		if q == c.Name || !set && strings.HasSuffix(q, ":") && strings.HasPrefix(c.Name, q) {
			return true
		}
	}
	return false
}
