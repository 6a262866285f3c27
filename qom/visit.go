package qom

import (
	"fmt"
	"slices"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom/ghash"
)

// The functions of this file read a value that must have a certain form. path
// names it in errors: "limits.bps-total", "rules[0].match".

func visitInt(v qjson.Value, path string) (int64, error) {
	if v.Kind() != qjson.Int {
		return 0, wrongType(path, "integer")
	}
	return v.Int(), nil
}

func visitString(v qjson.Value, path string) (string, error) {
	if v.Kind() != qjson.String {
		return "", wrongType(path, "string")
	}
	return v.Str(), nil
}

func visitBool(v qjson.Value, path string) (bool, error) {
	if v.Kind() != qjson.Bool {
		return false, wrongType(path, "boolean")
	}
	return v.Bool(), nil
}

// visitEnum wants one of values. Errors name only the last part of the path,
// as the reference's do.
func visitEnum(v qjson.Value, path, name string, values []string) (string, error) {
	s, err := visitString(v, path)
	if err == nil && !slices.Contains(values, s) {
		err = qerr.New("Parameter '%s' does not accept value '%s'", name, s)
	}
	return s, err
}

// checkMembers wants v to have no members but the known ones. Of several
// others the one is reported that the reference finds first: what is left in a
// hash table into which all were put in dict order.
func checkMembers(v qjson.Value, path string, known func(string) bool) error {
	var left ghash.Table[struct{}]
	for name := range v.DictOrder() {
		left.Set(string(name), struct{}{})
	}
	for name := range v.Members() {
		if known(name) {
			left.Delete(name)
		}
	}
	for name := range left.All() {
		return qerr.New("Parameter '%s.%s' is unexpected", path, name)
	}
	return nil
}

func visitList[T any](v qjson.Value, path string, visit func(qjson.Value, string) (T, error)) ([]T, error) {
	if v.Kind() != qjson.Array {
		return nil, wrongType(path, "array")
	}
	list := make([]T, 0, v.Len())
	for e := range v.Elems() {
		item, err := visit(e, fmt.Sprintf("%s[%d]", path, len(list)))
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, nil
}

func wrongType(path, expected string) error {
	return qerr.New("Invalid parameter type for '%s', expected: %s", path, expected)
}

// appendSorted appends an object whose members come in dict order. value
// appends the value of one.
func appendSorted(dst []byte, names []string, value func(dst []byte, name string) []byte) []byte {
	names = slices.Clone(names)
	slices.SortStableFunc(names, func(a, b string) int { return qjson.Bucket(a) - qjson.Bucket(b) })
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(qjson.AppendString(dst, name), ": "...)
		dst = value(dst, name)
	}
	return append(dst, '}')
}

// visitMember reads a member that must be there.
func visitMember[T any](v qjson.Value, path, name string, visit func(qjson.Value, string) (T, error)) (value T, err error) {
	path += "." + name
	m := v.Get(name)
	if !m.Exists() {
		return value, qerr.New("Parameter '%s' is missing", path)
	}
	return visit(m, path)
}
