package main

import (
	"fmt"
	"strings"
)

// goName turns a QAPI name into an exported Go name: "node-name" → NodeName,
// "bps_rd" → BpsRd, "BLOCK_IO_ERROR" → BlockIoError. CamelCase names stay.
func goName(name string) string {
	if strings.ToUpper(name) == name && len(name) > 1 && strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		name = strings.ToLower(name)
	}
	var b strings.Builder
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// typeName is the Go name of a definition's type. Type names keep their
// spelling but for the first letter.
func typeName(t typ) string {
	switch t := t.(type) {
	case *builtin:
		return t.goType
	case *object:
		if t.implicit {
			// Arguments of a command; those of an event are the event itself.
			name := strings.TrimSuffix(strings.TrimPrefix(t.name, "q_obj_"), "-arg")
			if strings.ToUpper(name) == name {
				return goName(name) + "Event"
			}
			return goName(name) + "Arguments"
		}
		return exported(t.name)
	case *array:
		if isComplex(t.elem) {
			return "[]*" + typeName(t.elem)
		}
		return "[]" + typeName(t.elem)
	}
	return exported(t.qapi())
}

// exported makes the first letter of a type's name upper case.
func exported(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// isComplex says that values are structs in Go.
func isComplex(t typ) bool {
	switch t.(type) {
	case *object, *alternate:
		return true
	}
	return false
}

// fieldType is the Go type of a member: optional ones are pointers, but for
// slices, whose nil says "absent".
func fieldType(m *member) string {
	name := typeName(m.typ)
	if m.optional && !nilable(m.typ) {
		return "*" + name
	}
	return name
}

// nilable says that a Go value of the type can itself say "absent".
func nilable(t typ) bool {
	if _, ok := t.(*array); ok {
		return true
	}
	b, ok := t.(*builtin)
	return ok && b.name == "any"
}

// oldest is the oldest of the versions one binary can answer as: what is older
// needs no check.
const oldest = version(7<<8 | 2)

func (v version) String() string { return fmt.Sprintf("%d.%d", v>>8, v&0xff) }

// constant is the name of the version in the runtime.
func (v version) constant() string { return fmt.Sprintf("V%d_%d", v>>8, v&0xff) }

func (v version) literal() string { return fmt.Sprintf("%#04x", uint16(v)) }

// guarded says that code for the member must ask for the version.
func guarded(v version) bool { return v > oldest }

// lower makes the first letter lower case.
func lower(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// constName is the Go constant of an enumeration's value.
func constName(e *enum, v *value) string { return typeName(e) + goName(v.name) }
