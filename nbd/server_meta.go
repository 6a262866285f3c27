package nbd

import (
	"encoding/binary"
	"strings"
)

// metaContexts answers LIST_META_CONTEXT, which tells what there is, and
// SET_META_CONTEXT, which chooses (section "Metadata querying").
func (h *serverHandshake) metaContexts(opt Option, d *decoder) error {
	set := opt == OptSetMetaContext
	if set {
		// Whatever comes of it, what was set before counts no more.
		h.s.MetaContexts, h.metaExport = nil, ""
	}
	if set && h.s.Mode < Structured {
		h.refuse(opt, RepErrInvalid, "request option '%v' when structured reply is not negotiated", opt)
		return d.drop()
	}
	name := d.string()
	if d.failed() {
		return h.refuseMistake(opt, d)
	}
	o := h.cfg.Find(name)
	if o == nil {
		h.refuseName(opt, name)
		return d.drop()
	}
	asked := decodeQueries(d, o.MetaContexts(), set)
	if d.failed() {
		return h.refuseMistake(opt, d)
	}
	for _, c := range asked {
		id := uint32(0) // listed contexts have none yet
		if set {
			id = c.ID
			h.s.MetaContexts = append(h.s.MetaContexts, c)
		}
		h.reply(opt, RepMetaContext, binary.BigEndian.AppendUint32(nil, id), []byte(c.Name))
	}
	h.metaExport = name
	h.ack(opt)
	// What is left of the data is taken for the next option (observed; the
	// reference dies if it makes a good one).
	return nil
}

// decodeQueries returns the contexts that are meant. Lists can be asked for
// without a query, for all there is.
func decodeQueries(d *decoder, contexts []MetaContext, set bool) []MetaContext {
	n := d.uint32()
	if n == 0 && !set {
		return contexts
	}
	meant := make([]bool, len(contexts))
	for ; n > 0 && !d.failed(); n-- {
		length := d.uint32()
		if length > MaxString {
			d.skip(length) // it is longer than any name, and fits nothing
			continue
		}
		query := d.text(length)
		for i, c := range contexts {
			meant[i] = meant[i] || c.meant(query, set)
			if query == c.Name {
				break // another one of the name cannot be reached
			}
		}
	}
	var chosen []MetaContext
	for i, c := range contexts {
		if meant[i] {
			chosen = append(chosen, c)
		}
	}
	return chosen
}

// meant tells whether a query means the context. Lists can be asked for whole
// namespaces.
func (c MetaContext) meant(query string, set bool) bool {
	return query == c.Name || !set && strings.HasSuffix(query, ":") && strings.HasPrefix(c.Name, query)
}
