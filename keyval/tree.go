package keyval

import (
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// node is a leaf or an object; list makes arrays of some objects later.
type node struct {
	leaf string
	dict *dict // nil for a leaf
	list []*node
}

// dict is an object in the making. It remembers the order of its members,
// because QEMU's order of members depends on it.
type dict struct {
	keys []string
	at   map[string]*node
}

func newDict() *dict { return &dict{at: map[string]*node{}} }

// put sets a member; one that exists keeps its place.
func (d *dict) put(key string, n *node) {
	if d.at[key] == nil {
		d.keys = append(d.keys, key)
	}
	d.at[key] = n
}

// ordered returns the keys as QEMU's dict iterates over them, which decides
// which of several mistakes is reported.
func (d *dict) ordered() []string {
	keys := slices.Clone(d.keys)
	slices.Reverse(keys) // in one bucket the newest comes first
	slices.SortStableFunc(keys, func(a, b string) int { return qjson.Bucket(a) - qjson.Bucket(b) })
	return keys
}

// listify turns every object below n whose keys are all numbers into a list.
// Members come first, so that the innermost mistake is reported. path is the
// dotted key of n, "" for the whole.
func listify(n *node, path string) error {
	if n.dict == nil {
		return nil
	}
	keys := n.dict.ordered()
	numbers := 0
	for _, k := range keys {
		if err := listify(n.dict.at[k], join(path, k)); err != nil {
			return err
		}
		if isDigit(k[0]) {
			numbers++
		}
	}
	if numbers == 0 {
		return nil
	}
	if numbers < len(keys) {
		return inconsistent(path)
	}
	return n.makeList(keys, path)
}

// makeList needs the indices 0 to the highest one, each at least once; of 1
// and 01 the one wins that comes last in dict order.
func (n *node) makeList(keys []string, path string) error {
	list := make([]*node, len(keys))
	highest := 0
	for _, k := range keys {
		i, err := strconv.Atoi(k)
		if err != nil || i >= len(list) {
			i = len(list)
		} else {
			list[i] = n.dict.at[k]
		}
		highest = max(highest, i)
	}
	for i := range highest {
		if list[i] == nil {
			return qerr.New("Parameter '%s' missing", join(path, strconv.Itoa(i)))
		}
	}
	*n = node{list: list[:highest+1]}
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func inconsistent(path string) error {
	return qerr.New("Parameters '%s.*' used inconsistently", path)
}

// appendJSON appends n as JSON, members in the order in which they were given.
func (n *node) appendJSON(dst []byte, path string) ([]byte, error) {
	switch {
	case n.list != nil:
		return n.appendList(dst, path)
	case n.dict != nil:
		return n.appendDict(dst, path)
	case !utf8.ValidString(n.leaf):
		return nil, qerr.New("Parameter '%s' is not valid UTF-8", path)
	}
	return qjson.AppendString(dst, n.leaf), nil
}

func (n *node) appendList(dst []byte, path string) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, e := range n.list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if dst, err = e.appendJSON(dst, join(path, strconv.Itoa(i))); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func (n *node) appendDict(dst []byte, path string) (_ []byte, err error) {
	dst = append(dst, '{')
	for i, k := range n.dict.keys {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(qjson.AppendString(dst, k), ": "...)
		if dst, err = n.dict.at[k].appendJSON(dst, join(path, k)); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}
