package main

import (
	"fmt"
	"strings"
)

// introspection collects the tables behind query-qmp-schema. Types are
// numbered in the order in which they are met; their names in an answer are
// made when it is built, since they depend on what is registered.
type introspection struct {
	index map[string]int
	queue []typ
}

func emitIntrospection(w *writer, s *schema) {
	in := &introspection{index: map[string]int{}}
	w.p("// schemaTops describes the commands and events in the order of the schema.")
	w.p("var schemaTops = [...]schemaTop{")
	for _, top := range s.tops {
		w.p("{%s},", in.top(s, top))
	}
	w.p("}")
	w.p("")
	w.p("// schemaTypes describes the types they reach.")
	w.p("var schemaTypes = [...]schemaType{")
	for i := 0; i < len(in.queue); i++ {
		w.p("%d: {%s},", i, in.entity(s, in.queue[i]))
	}
	w.p("}")
}

// ref returns the index of a type. Introspection knows one integer type.
func (in *introspection) ref(s *schema, t typ) int {
	if b, ok := t.(*builtin); ok && b.json == "int" {
		t = s.types["int"]
	}
	if a, ok := t.(*array); ok {
		if b, ok := a.elem.(*builtin); ok && b.json == "int" {
			t = &array{s.types["int"]}
		}
	}
	key := t.qapi()
	if i, ok := in.index[key]; ok {
		return i
	}
	i := len(in.queue)
	in.index[key] = i
	in.queue = append(in.queue, t)
	return i
}

func (in *introspection) top(s *schema, top any) string {
	switch t := top.(type) {
	case *command:
		ret := t.ret
		if ret == nil {
			ret = s.nothing
		}
		parts := in.head("Command", t.common)
		parts = append(parts, fmt.Sprintf("arg: %d", in.ref(s, orNothing(s, t.arg))), fmt.Sprintf("ret: %d", in.ref(s, ret)))
		if t.oob {
			parts = append(parts, "oob: true")
		}
		return strings.Join(parts, ", ")
	case *event:
		parts := in.head("Event", t.common)
		parts = append(parts, fmt.Sprintf("arg: %d", in.ref(s, orNothing(s, t.arg))))
		return strings.Join(parts, ", ")
	}
	return ""
}

func orNothing(s *schema, o *object) typ {
	if o == nil {
		return s.nothing
	}
	return o
}

func (in *introspection) head(meta string, c common) []string {
	parts := []string{
		fmt.Sprintf("name: %q", c.name),
		"meta: SchemaMetaType" + meta,
		"since: " + c.doc.since.literal(),
	}
	return append(parts, features(c.features)...)
}

func features(fs []feature) []string {
	if len(fs) == 0 {
		return nil
	}
	var list []string
	for _, f := range fs {
		since := ""
		if f.since != 0 {
			since = ", " + f.since.literal()
		}
		if since == "" {
			since = ", 0"
		}
		list = append(list, fmt.Sprintf("{%q%s}", f.name, since))
	}
	return []string{"features: []schemaFeature{" + strings.Join(list, ", ") + "}"}
}

func (in *introspection) entity(s *schema, t typ) string {
	switch t := t.(type) {
	case *builtin:
		return fmt.Sprintf("name: %q, meta: SchemaMetaTypeBuiltin, json: JSONType%s", t.name, goName(t.json))
	case *array:
		return fmt.Sprintf("meta: SchemaMetaTypeArray, element: %d", in.ref(s, t.elem))
	case *enum:
		return in.enum(t)
	case *alternate:
		return in.alternate(s, t)
	case *object:
		return in.object(s, t)
	}
	return ""
}

func off(c common) []string {
	if c.off {
		return []string{"off: true"}
	}
	return nil
}

func (in *introspection) enum(e *enum) string {
	parts := append([]string{"meta: SchemaMetaTypeEnum"}, off(e.common)...)
	parts = append(parts, features(e.features)...)
	var vs []string
	for _, v := range e.onValues() {
		fields := append([]string{fmt.Sprintf("name: %q, since: %s", v.name, v.since.literal())}, features(v.features)...)
		vs = append(vs, "{"+strings.Join(fields, ", ")+"}")
	}
	return strings.Join(append(parts, "members: []schemaMember{\n"+strings.Join(vs, ",\n")+",\n}"), ", ")
}

func (in *introspection) alternate(s *schema, a *alternate) string {
	parts := append([]string{"meta: SchemaMetaTypeAlternate"}, off(a.common)...)
	parts = append(parts, features(a.features)...)
	return strings.Join(append(parts, in.members(s, a.alternatives)...), ", ")
}

func (in *introspection) members(s *schema, ms []*member) []string {
	if len(ms) == 0 {
		return nil
	}
	var list []string
	for _, m := range ms {
		fields := []string{fmt.Sprintf("name: %q, typ: %d, since: %s", m.name, in.ref(s, m.typ), m.since.literal())}
		if m.optional {
			fields = append(fields, "optional: true")
		}
		fields = append(fields, features(m.features)...)
		list = append(list, "{"+strings.Join(fields, ", ")+"}")
	}
	return []string{"members: []schemaMember{\n" + strings.Join(list, ",\n") + ",\n}"}
}

func (in *introspection) object(s *schema, o *object) string {
	parts := append([]string{"meta: SchemaMetaTypeObject"}, off(o.common)...)
	parts = append(parts, features(o.features)...)
	parts = append(parts, in.members(s, o.members())...)
	if o.tag == nil {
		return strings.Join(parts, ", ")
	}
	parts = append(parts, fmt.Sprintf("tag: %q", o.tag.name))
	var list []string
	for _, v := range o.variants {
		fields := fmt.Sprintf("name: %q, typ: %d, since: %s", v.value.name, in.ref(s, orNothing(s, v.typ)), v.value.since.literal())
		if v.off {
			fields += ", off: true"
		}
		list = append(list, "{"+fields+"}")
	}
	return strings.Join(append(parts, "variants: []schemaVariant{\n"+strings.Join(list, ",\n")+",\n}"), ", ")
}
