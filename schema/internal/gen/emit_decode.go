package main

import (
	"fmt"
	"strings"
)

func emitDecoders(w *writer, s *schema) {
	for _, o := range s.goObjects() {
		if o.input {
			emitObjectDecoder(w, o)
		}
	}
	for _, a := range s.alternates {
		if a.input && !a.off {
			w.use("github.com/qmpblock/qmpblock/qjson")
			emitAlternateDecoder(w, a)
		}
	}
}

func emitObjectDecoder(w *writer, o *object) {
	var steps []string
	for _, m := range o.members() {
		steps = append(steps, decodeStep(m))
	}
	if o.tag != nil {
		steps = append(steps, "x.decodeVariant(d)")
	}
	if len(steps) == 0 {
		steps = []string{"true"}
	}
	name := typeName(o)
	w.p("func (x *%s) decodeMembers(d *decoder) bool {", name)
	w.p("return %s", strings.Join(steps, " &&\n\t"))
	w.p("}")
	w.p("")
	if !o.implicit {
		w.p("// Decode%s is [Decode] for [%s].", name, name)
		w.p("func Decode%s(v qjson.Value, mode Mode) (*%s, error) { return Decode[%s](v, mode) }", name, name, name)
		w.p("")
		w.use("github.com/qmpblock/qmpblock/qjson")
	}
	if o.tag == nil {
		return
	}
	tag := o.tag.typ.(*enum)
	w.p("func (x *%s) decodeVariant(d *decoder) bool {", name)
	w.p("switch x.%s {", goName(o.tag.name))
	for _, v := range o.variants {
		if v.typ == nil || v.off {
			continue
		}
		w.p("case %s:", constName(tag, v.value))
		w.p("v := new(%s)", typeName(v.typ))
		w.p("x.Variant = v")
		w.p("return v.decodeMembers(d)")
	}
	w.p("}")
	w.p("return true")
	w.p("}")
	w.p("")
}

// decodeStep is the expression that reads one member.
func decodeStep(m *member) string {
	how := "required"
	switch {
	case m.optional && nilable(m.typ):
		how = "optionalSlice"
	case m.optional:
		how = "optional"
	}
	step := fmt.Sprintf("%s(d, %q, &x.%s, %s)", how, m.name, goName(m.name), reader(m.typ))
	if guarded(m.since) {
		return fmt.Sprintf("(d.version < %s || %s)", m.since.constant(), step)
	}
	return step
}

// reader is the function that reads a value of the type.
func reader(t typ) string {
	switch t := t.(type) {
	case *builtin:
		return t.read
	case *enum:
		return fmt.Sprintf("readEnum[%s]", typeName(t))
	case *object:
		return fmt.Sprintf("readObject[%s]", typeName(t))
	case *alternate:
		return fmt.Sprintf("readAlternate[%s]", typeName(t))
	case *array:
		switch elem := t.elem.(type) {
		case *builtin:
			return elem.read + "s"
		case *enum:
			return fmt.Sprintf("readEnums[%s]", typeName(elem))
		case *object:
			return fmt.Sprintf("readObjects[%s]", typeName(elem))
		case *alternate:
			return fmt.Sprintf("readAlternates[%s]", typeName(elem))
		}
	}
	return ""
}

// emitAlternateDecoder writes the choice by JSON type.
func emitAlternateDecoder(w *writer, a *alternate) {
	name := typeName(a)
	w.p("func (x *%s) qapiName() string { return %q }", name, a.name)
	w.p("")
	w.p("func (x *%s) decodeValue(d *decoder, v qjson.Value) (known, ok bool) {", name)
	w.p("switch v.Kind() {")
	for _, alt := range a.alternatives {
		field := goName(alt.name)
		w.p("case %s:", kinds(alt.typ))
		if isNull(alt.typ) {
			w.p("x.%s = true", field)
			w.p("return true, true")
			continue
		}
		w.p("x.%s = new(%s)", field, typeName(alt.typ))
		w.p("return true, %s", readCall(alt.typ, "x."+field))
	}
	w.p("}")
	w.p("return false, false")
	w.p("}")
	w.p("")
}

func readCall(t typ, target string) string {
	return fmt.Sprintf("%s(d, v, %s)", reader(t), target)
}

// kinds are the JSON kinds that choose an alternative.
func kinds(t typ) string {
	switch t := t.(type) {
	case *enum:
		return "qjson.String"
	case *builtin:
		switch t.json {
		case "string":
			return "qjson.String"
		case "boolean":
			return "qjson.Bool"
		case "null":
			return "qjson.Null"
		default:
			return "qjson.Int, qjson.Uint, qjson.Double"
		}
	case *array:
		return "qjson.Array"
	}
	return "qjson.Object"
}
