package qmp

import (
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// request is what a client asks for. The parts are absent when they were not
// in the text.
type request struct {
	name qjson.Value // a string
	args qjson.Value // an object
	id   qjson.Value
	oob  bool // exec-oob in place of execute
}

// readRequest takes a message apart. When the message is wrong, the id is
// there nevertheless, to be sent back.
func readRequest(v qjson.Value, oob bool) (request, error) {
	if v.Kind() != qjson.Object {
		return request{}, qerr.New("QMP input must be a JSON object")
	}
	r := request{name: v.Get("execute"), args: v.Get("arguments"), id: v.Get("id")}
	known := 0
	for _, m := range [...]qjson.Value{r.name, r.args, r.id} {
		if m.Exists() {
			known++
		}
	}
	right := r.name.Kind() == qjson.String && known == v.Len()
	if right && (!r.args.Exists() || r.args.Kind() == qjson.Object) {
		return r, nil
	}
	return r, r.inspect(v, oob)
}

// inspect goes through the members in the order in which the reference looks
// at them, and stops at the first mistake (observed: the order of the dict).
func (r *request) inspect(v qjson.Value, oob bool) error {
	var command qjson.Value
	for key, m := range v.DictOrder() {
		switch name := string(key); {
		case name == "id":
		case name == "arguments":
			if m.Kind() != qjson.Object {
				return qerr.New("QMP input member 'arguments' must be an object")
			}
		case name == "execute", name == "exec-oob" && oob:
			if m.Kind() != qjson.String {
				return qerr.New("QMP input member '%s' must be a string", name)
			}
			if command.Exists() {
				return qerr.New("QMP input member 'execute' clashes with 'exec-oob'")
			}
			command, r.oob = m, name == "exec-oob"
		default:
			return qerr.New("QMP input member '%s' is unexpected", name)
		}
	}
	if !command.Exists() {
		return qerr.New("QMP input lacks member 'execute'")
	}
	r.name = command
	return nil
}

// overtakes reports whether a message is to be executed, or refused, before
// what was sent earlier and is still waiting.
func overtakes(v qjson.Value) bool {
	return v.Get("exec-oob").Exists() && !v.Get("execute").Exists()
}

// The frames of replies. Members stand in dict order, which puts the id
// behind "return" but in front of "error".

func appendReturn(dst []byte) []byte { return append(dst, `{"return": `...) }

func appendReturnEnd(dst []byte, id qjson.Value) []byte {
	if id.Exists() {
		dst = append(dst, `, "id": `...)
		dst = qjson.AppendValue(dst, id)
	}
	return append(dst, '}', '\r', '\n')
}

func appendError(dst []byte, err error, id qjson.Value) []byte {
	e := qerr.From(err)
	dst = append(dst, '{')
	if id.Exists() {
		dst = append(dst, `"id": `...)
		dst = qjson.AppendValue(dst, id)
		dst = append(dst, ", "...)
	}
	dst = append(dst, `"error": {"class": `...)
	dst = qjson.AppendString(dst, string(e.Class))
	dst = append(dst, `, "desc": `...)
	dst = qjson.AppendString(dst, e.Desc)
	return append(dst, '}', '}', '\r', '\n')
}
