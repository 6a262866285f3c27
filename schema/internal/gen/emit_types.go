package main

import (
	"fmt"
	"slices"
	"strings"
)

func emitEnums(w *writer, s *schema) {
	for _, e := range s.enums {
		if e.off {
			continue
		}
		name := typeName(e)
		w.comment("", describeType(name, e.common))
		w.p("type %s uint8", name)
		w.p("")
		w.p("// The values of [%s].", name)
		w.p("const (")
		for i, v := range e.onValues() {
			w.comment("\t", sentence(fmt.Sprintf("%s is %q: %s", constName(e, v), v.name, v.text)))
			suffix := ""
			if i == 0 {
				suffix = fmt.Sprintf(" %s = iota", name)
			}
			w.p("\t%s%s", constName(e, v), suffix)
		}
		w.p(")")
		w.p("")
		emitEnumTable(w, e)
	}
}

func (e *enum) onValues() []*value {
	var on []*value
	for _, v := range e.values {
		if !v.off {
			on = append(on, v)
		}
	}
	return on
}

func emitEnumTable(w *writer, e *enum) {
	name := typeName(e)
	table := lower(name) + "Values"
	w.p("var %s = enumTable{", table)
	w.p("names: []string{")
	for _, v := range e.onValues() {
		w.p("%q,", v.name)
	}
	w.p("},")
	var since []string
	for i, v := range e.onValues() {
		if guarded(v.since) {
			since = append(since, fmt.Sprintf("%d: %s", i, v.since.constant()))
		}
	}
	if since != nil {
		w.p("since: []Version{%s},", strings.Join(since, ", "))
	}
	w.p("}")
	w.p("")
	w.p("// String returns the value's name in QAPI.")
	w.p("func (v %s) String() string { return %s.name(uint8(v)) }", name, table)
	w.p("")
	w.p("func (v %s) table() *enumTable { return &%s }", name, table)
	w.p("")
}

// describeType is the documentation of a definition, with its version.
func describeType(goName string, c common) string {
	text := c.doc.text
	if goName != c.name {
		text = goName + " is QAPI's " + c.name + ". " + text
	} else {
		text = goName + ": " + lowerFirst(text)
	}
	return text + "\n\nSince QEMU " + c.doc.since.String() + "."
}

func emitTypes(w *writer, s *schema) {
	for _, o := range s.goObjects() {
		emitStruct(w, o, describeObject(s, o))
	}
	for _, a := range s.alternates {
		if a.off {
			continue
		}
		name := typeName(a)
		w.comment("", describeType(name, a.common)+"\n\nExactly one of the fields is set.")
		w.p("type %s struct {", name)
		for _, alt := range a.alternatives {
			w.comment("\t", sentence(alt.text))
			if isNull(alt.typ) {
				w.p("\t%s bool", goName(alt.name))
				continue
			}
			w.p("\t%s *%s", goName(alt.name), typeName(alt.typ))
		}
		w.p("}")
		w.p("")
	}
}

func describeObject(s *schema, o *object) string {
	name := typeName(o)
	if !o.implicit {
		return describeType(name, o.common)
	}
	return fmt.Sprintf("%s are the arguments of [Table.%s].", name, goName(o.src.doc.symbol))
}

// lowerFirst begins a text in lower case, unless with a name.
func lowerFirst(s string) string {
	word, _, _ := strings.Cut(s, " ")
	if strings.ToLower(word[1:]) != word[1:] || slices.Contains(properNames, word) {
		return s
	}
	return lower(s)
}

var properNames = []string{"Ceph", "Linux"}

// sentence gives a member's description a capital and a full stop.
func sentence(s string) string {
	s = strings.ToUpper(s[:1]) + s[1:]
	if strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

func isNull(t typ) bool {
	b, ok := t.(*builtin)
	return ok && b.name == "null"
}

// goObjects are the structs that need a Go type: those that appear in a
// command or event, or on a command line; not those which are bases only.
func (s *schema) goObjects() []*object {
	used := map[typ]bool{}
	var args []*object
	for _, c := range s.commands {
		reach(used, c.ret)
		if c.arg == nil || !c.gen {
			continue
		}
		reach(used, c.arg)
		if c.arg.implicit {
			args = append(args, c.arg)
		}
	}
	for _, e := range s.events {
		if e.arg != nil && !e.arg.implicit {
			reach(used, e.arg)
		}
	}
	var out []*object
	for _, o := range s.objects {
		if !o.off && (used[o] || o.input) {
			out = append(out, o)
		}
	}
	return append(out, args...)
}

func emitStruct(w *writer, o *object, text string) {
	w.comment("", text)
	w.p("type %s struct {", typeName(o))
	for _, m := range o.members() {
		w.comment("\t", sentence(m.text))
		w.p("\t%s %s", goName(m.name), fieldType(m))
	}
	if o.tag != nil {
		w.p("\t// Variant holds the members that depend on %s; nil for values without any.", goName(o.tag.name))
		w.p("\tVariant %sVariant", typeName(o))
	}
	w.p("}")
	w.p("")
	if o.tag != nil {
		emitVariant(w, o)
	}
}

// emitVariant declares the interface of a union's branches.
func emitVariant(w *writer, o *object) {
	name := typeName(o) + "Variant"
	w.comment("", fmt.Sprintf("%s is a branch of [%s]: one of", name, typeName(o)))
	w.p("//")
	types := o.branchTypes()
	for _, t := range types {
		w.p("//   - *[%s]", typeName(t))
	}
	w.p("type %s interface {", name)
	w.p("\tmemberList")
	w.p("\tis%s()", name)
	w.p("}")
	w.p("")
	for _, t := range types {
		w.p("func (*%s) is%s() {}", typeName(t), name)
	}
	w.p("")
}

// branchTypes returns the types of the branches, each once.
func (o *object) branchTypes() []*object {
	var out []*object
	seen := map[*object]bool{}
	for _, v := range o.variants {
		if v.typ != nil && !v.off && !seen[v.typ] {
			seen[v.typ] = true
			out = append(out, v.typ)
		}
	}
	return out
}
