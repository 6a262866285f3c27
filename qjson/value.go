package qjson

import (
	"iter"
	"math"
)

// Value is one value of a parsed text: a handle into its [Doc], valid until
// that is reset. The zero Value stands for "absent"; every method may be
// called on it.
type Value struct {
	doc *Doc
	i   uint32
}

func (v Value) node() *node { return &v.doc.nodes[v.i] }

// Kind returns the type of the value, [Invalid] when it is absent.
func (v Value) Kind() Kind {
	if v.doc == nil {
		return Invalid
	}
	return v.node().kind
}

// Exists reports whether there is a value.
func (v Value) Exists() bool { return v.doc != nil }

// Bool returns a boolean, false for every other kind.
func (v Value) Bool() bool { return v.Kind() == Bool && v.node().bits != 0 }

// Int returns an integer; that of kind [Uint] as its two's complement, 0 for
// kinds that are no integers.
func (v Value) Int() int64 { return int64(v.Uint()) }

// Uint returns an integer, a negative one as 2^64-n; 0 for kinds that are no
// integers.
func (v Value) Uint() uint64 {
	if k := v.Kind(); k != Int && k != Uint {
		return 0
	}
	return v.node().bits
}

// Float returns a number of any kind as a double, 0 for what is no number.
func (v Value) Float() float64 {
	switch v.Kind() {
	case Int:
		return float64(int64(v.node().bits))
	case Uint:
		return float64(v.node().bits)
	case Double:
		return math.Float64frombits(v.node().bits)
	}
	return 0
}

// Str returns a copy of a string, "" for every other kind.
func (v Value) Str() string { return string(v.Bytes()) }

// Bytes returns the characters of a string, nil for every other kind. It is a
// view into the Doc: not to be changed, nor kept longer than the Value.
func (v Value) Bytes() []byte {
	if v.Kind() != String {
		return nil
	}
	return v.doc.bytes(v.i)
}

// Is reports whether the value is the string s.
func (v Value) Is(s string) bool { return v.Kind() == String && string(v.Bytes()) == s }

// Len returns the number of elements or members, 0 for scalars.
func (v Value) Len() int {
	if k := v.Kind(); k != Array && k != Object {
		return 0
	}
	return int(v.node().n)
}

// Get returns the value of an object's member; absent when there is none or
// the value is no object.
func (v Value) Get(key string) Value {
	if v.Kind() != Object {
		return Value{}
	}
	i, ok := v.doc.find(v.i, key)
	if !ok {
		return Value{}
	}
	return Value{v.doc, i}
}

// Elems iterates over the elements of an array; over nothing if it is none.
func (v Value) Elems() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		i := v.i + 1
		for n := v.node().n; n > 0; n-- {
			if !yield(Value{v.doc, i}) {
				return
			}
			i = v.doc.nodes[i].end
		}
	}
}

// Members iterates over an object's members in the order of the text. Each
// name is a copy; [Value.RawMembers] makes none.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for k, m := range v.RawMembers() {
			if !yield(string(k), m) {
				return
			}
		}
	}
}

// RawMembers iterates over an object's members in the order of the text. The
// names are views as [Value.Bytes] returns them.
func (v Value) RawMembers() iter.Seq2[[]byte, Value] {
	return func(yield func([]byte, Value) bool) {
		if v.Kind() != Object {
			return
		}
		k := v.i + 1
		for n := v.node().n; n > 0; n-- {
			if !yield(v.doc.bytes(k), Value{v.doc, k + 1}) {
				return
			}
			k = v.doc.nodes[k+1].end
		}
	}
}
