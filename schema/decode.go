package schema

import (
	"strconv"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// Mode says where a value comes from, which decides what scalars look like and
// the words of errors.
type Mode uint8

const (
	// QMP reads JSON: scalars have JSON's types.
	QMP Mode = iota
	// Keyval reads options of a command line in their dotted form, parsed
	// into a document whose leaves are strings: a number, size or switch is a
	// string here. A command line option in JSON form is read as QMP.
	Keyval
)

// decodable is implemented by every input struct and union.
type decodable interface {
	decodeMembers(d *decoder) bool
}

// Decode reads a T from a request or a command line. Its error is the one the
// reference would give.
func Decode[T any, P interface {
	*T
	decodable
}](v qjson.Value, mode Mode) (*T, error) {
	return DecodeAs[T, P](v, mode, Newest)
}

// DecodeAs is [Decode] as an older release does it: what is newer than that
// is unknown.
func DecodeAs[T any, P interface {
	*T
	decodable
}](v qjson.Value, mode Mode, version Version) (*T, error) {
	d := newDecoder()
	d.mode, d.version = mode, version
	x := new(T)
	if !readObject[T, P](d, v, x) {
		return nil, d.err
	}
	return x, nil
}

// decoder visits a value in the order of the schema, as the reference does,
// and stops at the first mistake.
type decoder struct {
	mode    Mode
	version Version
	err     *qerr.Error

	// obj is the object whose members are being read. The names of those
	// which the schema knows are used[first:]; what lies before belongs to
	// the objects around it.
	obj   qjson.Value
	used  []string
	first int

	// path leads from the outermost object to the value being read.
	path []step
}

// newDecoder returns a decoder with room for what most requests need.
func newDecoder() *decoder {
	return &decoder{used: make([]string, 0, 16), path: make([]step, 0, 8)}
}

// reset makes a decoder fit for the next request.
func (d *decoder) reset() {
	*d = decoder{used: d.used[:0], path: d.path[:0]}
}

// step is a member's name, or an index of a list when the name is empty.
type step struct {
	name  string
	index int
}

// fail keeps the first error; it returns false for the caller to return.
func (d *decoder) fail(format string, args ...any) bool {
	if d.err == nil {
		d.err = qerr.New(format, args...)
	}
	return false
}

// fullName names the value being read by its whole path: "a.b[0].c", or
// "a.b.0.c" on a command line.
func (d *decoder) fullName() string {
	var b []byte
	for i, s := range d.path {
		switch {
		case s.name == "" && d.mode == Keyval:
			b = strconv.AppendInt(append(b, '.'), int64(s.index), 10)
		case s.name == "":
			b = append(strconv.AppendInt(append(b, '['), int64(s.index), 10), ']')
		default:
			if i > 0 {
				b = append(b, '.')
			}
			b = append(b, s.name...)
		}
	}
	return string(b)
}

// lastName names the value being read by its own name alone. The reference
// does so for values of the right type which are not acceptable, and knows no
// name for an element of a list (observed: transcript errors/enums).
func (d *decoder) lastName() string {
	if len(d.path) == 0 || d.path[len(d.path)-1].name == "" {
		return "null"
	}
	return d.path[len(d.path)-1].name
}

// wrongType reports a value of another type than expected. On a command line
// an object where a scalar belongs is keys too many.
func (d *decoder) wrongType(expected string) bool {
	return d.fail("Invalid parameter type for '%s', expected: %s", d.fullName(), expected)
}

// lookup returns a member of the object being read and notes that it is
// known.
func (d *decoder) lookup(name string) (qjson.Value, bool) {
	v := d.obj.Get(name)
	if !v.Exists() {
		return v, false
	}
	d.used = append(d.used, name)
	return v, true
}

// reader reads a value into *p; it returns false after an error.
type reader[T any] func(d *decoder, v qjson.Value, p *T) bool

// inside calls read with name at the end of the path.
func inside[T any](d *decoder, s step, v qjson.Value, p *T, read reader[T]) bool {
	d.path = append(d.path, s)
	ok := read(d, v, p)
	d.path = d.path[:len(d.path)-1]
	return ok
}

// required reads a member that must be there.
func required[T any](d *decoder, name string, p *T, read reader[T]) bool {
	v, ok := d.lookup(name)
	if !ok {
		d.path = append(d.path, step{name: name})
		return d.fail("Parameter '%s' is missing", d.fullName())
	}
	return inside(d, step{name: name}, v, p, read)
}

// optional reads a member that may be absent; *p stays nil then.
func optional[T any](d *decoder, name string, p **T, read reader[T]) bool {
	v, ok := d.lookup(name)
	if !ok {
		return true
	}
	*p = new(T)
	return inside(d, step{name: name}, v, *p, read)
}

// optionalSlice is optional for types whose nil says "absent".
func optionalSlice[T any](d *decoder, name string, p *T, read reader[T]) bool {
	v, ok := d.lookup(name)
	if !ok {
		return true
	}
	return inside(d, step{name: name}, v, p, read)
}

// readObject reads a struct or union with all its members. Members which the
// schema does not know are reported last, after every mistake in known ones.
func readObject[T any, P interface {
	*T
	decodable
}](d *decoder, v qjson.Value, p *T) bool {
	if v.Kind() != qjson.Object {
		return d.wrongType("object")
	}
	obj, first := d.obj, d.first
	d.obj, d.first = v, len(d.used)
	ok := P(p).decodeMembers(d) && d.finish()
	d.used = d.used[:d.first]
	d.obj, d.first = obj, first
	return ok
}

// finish complains of members nobody asked for.
func (d *decoder) finish() bool {
	used := d.used[d.first:]
	if len(used) == d.obj.Len() {
		return true
	}
	d.path = append(d.path, step{name: firstUnexpected(d.obj, used)})
	return d.fail("Parameter '%s' is unexpected", d.fullName())
}

// choice is implemented by alternates.
type choice interface {
	qapiName() string
	// decodeValue reads the alternative which the kind of v chooses; known is
	// false when there is none.
	decodeValue(d *decoder, v qjson.Value) (known, ok bool)
}

func readAlternate[T any, P interface {
	*T
	choice
}](d *decoder, v qjson.Value, p *T) bool {
	x := P(p)
	known, ok := x.decodeValue(d, v)
	if !known {
		return d.fail("Invalid parameter type for '%s', expected: %s", d.lastName(), x.qapiName())
	}
	return ok
}

func readEnum[T enumeration](d *decoder, v qjson.Value, p *T) bool {
	if v.Kind() != qjson.String {
		return d.notScalar("string", v)
	}
	i, ok := (*p).table().find(v.Bytes(), d.version)
	if !ok {
		return d.fail("Parameter '%s' does not accept value '%s'", d.lastName(), v.Bytes())
	}
	*p = T(i)
	return true
}

// readList reads the elements of a list. An empty one is not nil.
func readList[T any](d *decoder, v qjson.Value, p *[]T, read reader[T]) bool {
	if v.Kind() != qjson.Array {
		return d.wrongType("array")
	}
	*p = make([]T, v.Len())
	i := 0
	for e := range v.Elems() {
		if !inside(d, step{index: i}, e, &(*p)[i], read) {
			return false
		}
		i++
	}
	return true
}

// readPointers reads a list of structs or alternates.
func readPointers[T any](d *decoder, v qjson.Value, p *[]*T, read reader[T]) bool {
	if v.Kind() != qjson.Array {
		return d.wrongType("array")
	}
	*p = make([]*T, 0, v.Len())
	for e := range v.Elems() {
		x := new(T)
		if !inside(d, step{index: len(*p)}, e, x, read) {
			return false
		}
		*p = append(*p, x)
	}
	return true
}

func readObjects[T any, P interface {
	*T
	decodable
}](d *decoder, v qjson.Value, p *[]*T) bool {
	return readPointers(d, v, p, readObject[T, P])
}

func readAlternates[T any, P interface {
	*T
	choice
}](d *decoder, v qjson.Value, p *[]*T) bool {
	return readPointers(d, v, p, readAlternate[T, P])
}

func readEnums[T enumeration](d *decoder, v qjson.Value, p *[]T) bool {
	return readList(d, v, p, readEnum[T])
}
