package main

import (
	"fmt"
	"strings"
)

// emitCommands writes the table of commands and the methods of Table which
// register their handlers.
func emitCommands(w *writer, s *schema) {
	w.use("context")
	w.p("// The commands and events, numbered in the order of the schema.")
	w.p("const (")
	for i, top := range s.tops {
		suffix := ""
		if i == 0 {
			suffix = " ordinal = iota"
		}
		w.p("%s%s", ordinal(top), suffix)
	}
	w.p("ordinals = iota")
	w.p(")")
	w.p("")
	w.p("var commandInfos = [...]commandInfo{")
	for _, c := range s.commands {
		w.p("{%s},", commandLiteral(c))
	}
	w.p("}")
	w.p("")
	for i, c := range s.commands {
		emitRegister(w, c, i)
	}
}

func ordinal(top any) string {
	switch t := top.(type) {
	case *command:
		return "command" + goName(t.name)
	case *event:
		return "event" + goName(t.name)
	}
	return ""
}

func commandLiteral(c *command) string {
	parts := []string{
		fmt.Sprintf("name: %q", c.name),
		"order: " + ordinal(c),
		"since: " + c.doc.since.literal(),
	}
	if c.oob {
		parts = append(parts, "allowOOB: true")
	}
	if c.preconfig {
		parts = append(parts, "allowPreconfig: true")
	}
	var names []string
	for _, f := range c.features {
		names = append(names, fmt.Sprintf("%q", f.name))
	}
	if names != nil {
		parts = append(parts, "features: []string{"+strings.Join(names, ", ")+"}")
	}
	return strings.Join(parts, ", ")
}

// emitRegister writes the method that registers a command's handler.
func emitRegister(w *writer, c *command, index int) {
	name := goName(c.name)
	text := fmt.Sprintf("%s registers the handler of %s. %s", name, c.name, c.doc.text)
	if c.doc.returns != "" {
		text += "\n\nIt returns " + lowerFirst(c.doc.returns)
	}
	text += "\n\nSince QEMU " + c.doc.since.String() + "."
	w.comment("", text)
	if !c.gen {
		w.p("//")
		w.p("// The arguments are not checked: the handler does that.")
		w.p("func (t *Table) %s(h RawHandler) {", name)
		w.p("t.register(%d, h)", index)
		w.p("}")
		w.p("")
		return
	}
	params := "context.Context"
	if c.arg != nil {
		params += ", *" + typeName(c.arg)
	}
	result, answer := "error", ""
	if c.ret != nil {
		t := typeName(c.ret)
		if isComplex(c.ret) {
			t = "*" + t
		}
		result, answer = "("+t+", error)", returnWriter(c.ret)
	}
	w.p("func (t *Table) %s(h func(%s) %s) {", name, params, result)
	args := fmt.Sprintf("t, %d, h", index)
	if answer != "" {
		args += ", " + answer
	}
	w.p("%s(%s)", registerFunc(c), args)
	w.p("}")
	w.p("")
}

// registerFunc chooses the runtime's function by the shape of the handler.
func registerFunc(c *command) string {
	switch {
	case c.arg == nil && c.ret == nil:
		return "registerAction"
	case c.arg == nil:
		return "registerQuery"
	case c.ret == nil:
		return "registerActionWith"
	}
	return "registerQueryWith"
}

// returnWriter is the function that encodes a command's answer.
func returnWriter(t typ) string {
	switch t := t.(type) {
	case *builtin:
		return "returnScalar(" + t.write + ")"
	case *array:
		if isComplex(t.elem) {
			return "returnList"
		}
	}
	return "returnObject"
}
