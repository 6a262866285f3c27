package block

import (
	"math"
	"sort"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/qjson"
)

// AppendJSON prints the options as a JSON object, nested again, members in
// the order of QEMU's dictionary.
func (o *Options) AppendJSON(dst []byte) []byte {
	root := &optNode{}
	if o != nil {
		for _, e := range o.entries {
			root.insert(e.key, e.value)
		}
	}
	return root.append(dst)
}

// optNode is one level of the nested form.
type optNode struct {
	value    OptValue
	names    []string
	children []*optNode
}

func (n *optNode) insert(key string, v OptValue) { n.descend(key).value = v }

// descend finds what a dotted key leads to.
func (n *optNode) descend(key string) *optNode {
	for {
		name, rest, nested := strings.Cut(key, ".")
		n = n.child(name)
		if !nested {
			return n
		}
		key = rest
	}
}

func (n *optNode) child(name string) *optNode {
	for i, have := range n.names {
		if have == name {
			return n.children[i]
		}
	}
	c := &optNode{}
	n.names = append(n.names, name)
	n.children = append(n.children, c)
	return c
}

func (n *optNode) append(dst []byte) []byte {
	if len(n.children) == 0 && n.value.kind != qjson.Invalid {
		return n.value.append(dst)
	}
	if n.isList() {
		return n.appendList(dst)
	}
	order := make([]int, len(n.names))
	for i := range order {
		order[i] = len(order) - 1 - i
	}
	sort.SliceStable(order, func(a, b int) bool {
		return qjson.Bucket(n.names[order[a]]) < qjson.Bucket(n.names[order[b]])
	})
	dst = append(dst, '{')
	for k, i := range order {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		dst = qjson.AppendString(dst, n.names[i])
		dst = append(dst, ": "...)
		dst = n.children[i].append(dst)
	}
	return append(dst, '}')
}

// isList tells whether the names are 0, 1, 2 … in some order.
func (n *optNode) isList() bool {
	if len(n.names) == 0 {
		return false
	}
	for _, name := range n.names {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= len(n.names) || strconv.Itoa(i) != name {
			return false
		}
	}
	return true
}

func (n *optNode) appendList(dst []byte) []byte {
	dst = append(dst, '[')
	for i := range n.children {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = n.child(strconv.Itoa(i)).append(dst)
	}
	return append(dst, ']')
}

func (v OptValue) append(dst []byte) []byte {
	switch v.kind {
	case qjson.String:
		return qjson.AppendString(dst, v.text)
	case qjson.Bool:
		return qjson.AppendBool(dst, v.num != 0)
	case qjson.Int:
		return qjson.AppendInt(dst, int64(v.num))
	case qjson.Uint:
		return qjson.AppendUint(dst, v.num)
	case qjson.Double:
		return qjson.AppendDouble(dst, math.Float64frombits(v.num))
	case qjson.Object:
		return append(dst, "{}"...)
	case qjson.Array:
		return append(dst, "[]"...)
	}
	return append(dst, "null"...)
}
