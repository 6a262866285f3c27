package schema

import "github.com/qmpblock/qmpblock/qjson"

// Any is a value of any type, kept as a monitor prints it: canonical JSON, the
// members of objects in dict order. Nil is "absent".
type Any []byte

// AnyOf keeps a value beyond the life of its document.
func AnyOf(v qjson.Value) Any { return qjson.AppendValue(nil, v) }

// Value parses it.
func (a Any) Value() (qjson.Value, error) { return qjson.Parse(a) }
