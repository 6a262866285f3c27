package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/qjson"
)

// dictOrder sorts members as the reference's dict prints them: by bucket,
// inside a bucket the one inserted last first.
func dictOrder(ms []*member) []*member {
	out := slices.Clone(ms)
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b *member) int { return qjson.Bucket(a.name) - qjson.Bucket(b.name) })
	return out
}

func emitEncoders(w *writer, s *schema) {
	for _, o := range s.goObjects() {
		emitObjectEncoder(w, o)
	}
	for _, a := range s.alternates {
		if !a.off {
			emitAlternateEncoder(w, a)
		}
	}
}

func emitObjectEncoder(w *writer, o *object) {
	name := typeName(o)
	w.p("// AppendJSON appends the value as a monitor prints it.")
	w.p("func (x *%s) AppendJSON(dst []byte) []byte { return x.appendJSON(dst, Newest) }", name)
	w.p("")
	if o.tag == nil && !o.branch {
		emitStraight(w, o)
		return
	}
	emitMemberList(w, o)
	w.p("func (x *%s) appendJSON(dst []byte, version Version) []byte {", name)
	if o.tag == nil {
		w.p("return appendMembers(dst, x, version)")
		w.p("}")
		w.p("")
		return
	}
	w.p("if x.Variant == nil {")
	w.p("return appendMembers(dst, x, version)")
	w.p("}")
	w.p("return appendUnion(dst, x, x.Variant, version)")
	w.p("}")
	w.p("")
}

// emitStraight encodes an ordinary struct, member after member.
func emitStraight(w *writer, o *object) {
	ms := dictOrder(o.members())
	version := "version"
	if !usesVersion(ms) {
		version = "_"
	}
	w.p("func (x *%s) appendJSON(dst []byte, %s Version) []byte {", typeName(o), version)
	emitBody(w, ms, "return append(dst, '}')")
	w.p("}")
	w.p("")
}

// emitBody appends an object's members to dst.
func emitBody(w *writer, ms []*member, last string) {
	w.p("dst = append(dst, '{')")
	for _, m := range ms {
		emitMember(w, m, func(format string, args ...any) { w.p("dst = "+format, args...) })
	}
	w.p("%s", last)
}

// emitMember appends one member, if it is there and the version has it.
func emitMember(w *writer, m *member, result func(string, ...any)) {
	var conds []string
	if guarded(m.since) {
		conds = append(conds, "version >= "+m.since.constant())
	}
	if m.optional {
		conds = append(conds, "x."+goName(m.name)+" != nil")
	}
	if conds != nil {
		w.p("if %s {", strings.Join(conds, " && "))
	}
	key := fmt.Sprintf("appendKey(dst, `%q: `)", m.name)
	result("%s", writeCall(m.typ, key, "x."+goName(m.name), m.optional && !nilable(m.typ)))
	if conds != nil {
		w.p("}")
	}
}

// writeCall appends a value to dst; pointer says that expr points to it.
func writeCall(t typ, dst, expr string, pointer bool) string {
	deref := expr
	if pointer {
		deref = "*" + expr
	}
	switch t := t.(type) {
	case *builtin:
		if strings.HasPrefix(t.write, "appendSigned") {
			return fmt.Sprintf("qjson.AppendInt(%s, int64(%s))", dst, deref)
		}
		if strings.HasPrefix(t.write, "appendUnsigned") {
			return fmt.Sprintf("qjson.AppendUint(%s, uint64(%s))", dst, deref)
		}
		return fmt.Sprintf("%s(%s, %s)", t.write, dst, deref)
	case *enum:
		return fmt.Sprintf("appendEnum(%s, %s)", dst, deref)
	case *array:
		switch elem := t.elem.(type) {
		case *builtin:
			return fmt.Sprintf("%ss(%s, %s)", localWriter(elem), dst, deref)
		case *enum:
			return fmt.Sprintf("appendEnums(%s, %s)", dst, deref)
		default:
			return fmt.Sprintf("appendList(%s, %s, version)", dst, deref)
		}
	}
	return fmt.Sprintf("%s.appendJSON(%s, version)", expr, dst)
}

// localWriter is the name from which that for a list is made.
func localWriter(b *builtin) string {
	switch b.json {
	case "int":
		return "appendInt"
	case "string":
		return "appendString"
	}
	return "append" + exported(b.name)
}

// usesVersion says that encoding the members asks for the version.
func usesVersion(ms []*member) bool {
	return slices.ContainsFunc(ms, func(m *member) bool {
		t := m.typ
		if a, ok := t.(*array); ok {
			t = a.elem
		}
		return guarded(m.since) || isComplex(t)
	})
}

// emitMemberList gives a union or branch the methods by which both are
// merged.
func emitMemberList(w *writer, o *object) {
	name := typeName(o)
	ms := dictOrder(o.members())
	var buckets []string
	for _, m := range ms {
		buckets = append(buckets, strconv.Itoa(qjson.Bucket(m.name)))
	}
	if len(ms) == 0 {
		w.p("func (x *%s) buckets() []uint16 { return nil }", name)
		w.p("")
		w.p("func (x *%s) appendMember(dst []byte, _ int, _ Version) []byte { return dst }", name)
		w.p("")
		return
	}
	version := "version"
	if !usesVersion(ms) {
		version = "_"
	}
	w.p("var %sBuckets = []uint16{%s}", lower(name), strings.Join(buckets, ", "))
	w.p("")
	w.p("func (x *%s) buckets() []uint16 { return %sBuckets }", name, lower(name))
	w.p("")
	w.p("func (x *%s) appendMember(dst []byte, i int, %s Version) []byte {", name, version)
	w.p("switch i {")
	for i, m := range ms {
		w.p("case %d: // %s", i, m.name)
		emitMember(w, m, func(format string, args ...any) { w.p("return "+format, args...) })
	}
	w.p("}")
	w.p("return dst")
	w.p("}")
	w.p("")
}

func emitAlternateEncoder(w *writer, a *alternate) {
	name := typeName(a)
	var plain []*member
	version := "_"
	for _, alt := range a.alternatives {
		if isComplex(alt.typ) {
			version = "version"
		}
		plain = append(plain, alt)
	}
	w.p("// AppendJSON appends the alternative that is set; null when none is.")
	w.p("func (x *%s) AppendJSON(dst []byte) []byte { return x.appendJSON(dst, Newest) }", name)
	w.p("")
	w.p("func (x *%s) appendJSON(dst []byte, %s Version) []byte {", name, version)
	w.p("switch {")
	for _, alt := range plain {
		if isNull(alt.typ) {
			continue
		}
		field := "x." + goName(alt.name)
		w.p("case %s != nil:", field)
		w.p("return %s", writeCall(alt.typ, "dst", field, true))
	}
	w.p("}")
	w.p("return qjson.AppendNull(dst)")
	w.p("}")
	w.p("")
	w.use("github.com/qmpblock/qmpblock/qjson")
}
