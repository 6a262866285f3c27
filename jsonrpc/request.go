package jsonrpc

import (
	"bytes"
	"math"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/qmpblock/qmpblock/qjson"
)

// accept checks that a text is a request and keeps it. It returns the request
// without its params for the library, which would read them by rules of its
// own, or the answer to what is no request, or neither for an empty line.
func (c *conn) accept(text []byte, err error) (envelope, refusal []byte) {
	if err != nil {
		return nil, refuse(qjson.Value{}, jsonrpc2.CodeInvalidRequest, err.Error())
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil, nil
	}
	v, err := qjson.Parse(text)
	if err != nil {
		return nil, refuse(qjson.Value{}, jsonrpc2.CodeParseError, err.Error())
	}
	if wrong := mistake(v); wrong != "" {
		return nil, refuse(v.Get("id"), jsonrpc2.CodeInvalidRequest, wrong)
	}
	c.request = v
	envelope = qjson.AppendString([]byte(`{"jsonrpc": "2.0", "method": `), v.Get("method").Bytes())
	if id := v.Get("id"); id.Exists() {
		envelope = qjson.AppendValue(append(envelope, `, "id": `...), id)
	}
	return append(envelope, '}'), nil
}

// mistake says why a value is no request, "" if it is one.
func mistake(v qjson.Value) string {
	switch {
	case v.Kind() == qjson.Array:
		return "batches are not supported: send request after request, they are answered in order"
	case v.Kind() != qjson.Object:
		return "a request must be an object"
	case !v.Get("jsonrpc").Is("2.0"):
		return `member 'jsonrpc' must be "2.0"`
	case v.Get("method").Kind() != qjson.String:
		return "member 'method' must be a string"
	case v.Get("id").Exists() && !isID(v.Get("id")):
		return "member 'id' must be a string or an integer from 0 to 2^63-1"
	}
	return ""
}

// isID holds for what the library can send back unchanged.
func isID(v qjson.Value) bool {
	return v.Kind() == qjson.String || v.Kind() == qjson.Int && v.Uint() <= math.MaxInt64
}

// refuse words the answer to what is no request. Its id is null if there was
// none to be found, which is what the library cannot send.
func refuse(id qjson.Value, code int64, why string) []byte {
	answer := []byte(`{"jsonrpc":"2.0","id":`)
	if isID(id) {
		answer = qjson.AppendValue(answer, id)
	} else {
		answer = qjson.AppendNull(answer)
	}
	answer = qjson.AppendInt(append(answer, `,"error":{"code":`...), code)
	answer = qjson.AppendString(append(answer, `,"message":`...), why)
	return append(answer, "}}"...)
}
