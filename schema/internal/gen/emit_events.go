package main

// emitEvents writes a type for each event.
func emitEvents(w *writer, s *schema) {
	w.p("var eventNames = [...]string{")
	for _, e := range s.events {
		w.p("%s: %q,", ordinal(e), e.name)
	}
	w.p("}")
	w.p("")
	for _, e := range s.events {
		emitEvent(w, e)
	}
}

func emitEvent(w *writer, e *event) {
	name := goName(e.name) + "Event"
	text := name + " is the event " + e.name + ". " + e.doc.text + "\n\nSince QEMU " + e.doc.since.String() + "."
	var ms []*member
	if e.arg != nil {
		ms = e.arg.members()
	}
	w.comment("", text)
	w.p("type %s struct {", name)
	for _, m := range ms {
		w.comment("\t", sentence(m.text))
		w.p("\t%s %s", goName(m.name), fieldType(m))
	}
	w.p("}")
	w.p("")
	w.p("// EventName returns %q.", e.name)
	w.p("func (*%s) EventName() string { return %q }", name, e.name)
	w.p("")
	w.p("func (*%s) order() ordinal { return %s }", name, ordinal(e))
	w.p("")
	if len(ms) == 0 {
		w.p("// AppendData appends nothing: the event has no data.")
		w.p("func (*%s) AppendData(dst []byte) []byte { return dst }", name)
		w.p("")
		w.p("func (*%s) appendData(dst []byte, _ Version) []byte { return dst }", name)
		w.p("")
		return
	}
	w.p("// AppendData appends the event's data as a monitor prints it.")
	w.p("func (x *%s) AppendData(dst []byte) []byte { return x.appendData(dst, Newest) }", name)
	w.p("")
	ordered := dictOrder(ms)
	version := "version"
	if !usesVersion(ordered) {
		version = "_"
	}
	w.p("func (x *%s) appendData(dst []byte, %s Version) []byte {", name, version)
	emitBody(w, ordered, "return append(dst, '}')")
	w.p("}")
	w.p("")
	for _, m := range ms {
		if b, ok := m.typ.(*builtin); ok && b.json == "int" || ok && b.json == "boolean" {
			w.use("github.com/qmpblock/qmpblock/qjson")
		}
	}
}
