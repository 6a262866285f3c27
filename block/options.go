package block

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// Options are a node's options: a flat dictionary in which nested objects and
// lists are dotted keys ("file.driver", "children.0"). The nil *Options is
// empty and must not be written to.
type Options struct {
	entries []entry
}

type entry struct {
	key   string
	value OptValue
}

// OptValue is one option's value: a scalar, or an empty object or list, which
// have no dotted keys to live in.
type OptValue struct {
	kind qjson.Kind
	text string
	num  uint64 // Int, Uint, Bool; the bits of a Double
}

// StringOpt, IntOpt and BoolOpt make values.
func StringOpt(s string) OptValue { return OptValue{kind: qjson.String, text: s} }

// IntOpt makes an integer value.
func IntOpt(n int64) OptValue { return OptValue{kind: qjson.Int, num: uint64(n)} }

// BoolOpt makes a boolean value.
func BoolOpt(b bool) OptValue {
	v := OptValue{kind: qjson.Bool}
	if b {
		v.num = 1
	}
	return v
}

// NullOpt is the null value.
var NullOpt = OptValue{kind: qjson.Null}

// Kind is the JSON kind of the value.
func (v OptValue) Kind() qjson.Kind { return v.kind }

// String is the value as a person would write it in an option string.
func (v OptValue) String() string {
	switch v.kind {
	case qjson.String:
		return v.text
	case qjson.Bool:
		if v.num != 0 {
			return "on"
		}
		return "off"
	case qjson.Int:
		return strconv.FormatInt(int64(v.num), 10)
	case qjson.Uint:
		return strconv.FormatUint(v.num, 10)
	case qjson.Double:
		return string(qjson.AppendDouble(nil, math.Float64frombits(v.num)))
	}
	return ""
}

// NewOptions makes empty options.
func NewOptions() *Options { return &Options{} }

// OptionsFromJSON flattens a JSON object.
func OptionsFromJSON(v qjson.Value) *Options {
	o := NewOptions()
	o.flatten("", v)
	return o
}

func (o *Options) flatten(prefix string, v qjson.Value) {
	switch v.Kind() {
	case qjson.Object:
		if v.Len() == 0 && prefix != "" {
			o.Set(prefix, OptValue{kind: qjson.Object})
			return
		}
		for key, member := range v.Members() {
			o.flatten(join(prefix, key), member)
		}
	case qjson.Array:
		if v.Len() == 0 && prefix != "" {
			o.Set(prefix, OptValue{kind: qjson.Array})
			return
		}
		i := 0
		for element := range v.Elems() {
			o.flatten(join(prefix, strconv.Itoa(i)), element)
			i++
		}
	default:
		o.Set(prefix, scalar(v))
	}
}

func scalar(v qjson.Value) OptValue {
	switch v.Kind() {
	case qjson.String:
		return StringOpt(v.Str())
	case qjson.Bool:
		return BoolOpt(v.Bool())
	case qjson.Int:
		return IntOpt(v.Int())
	case qjson.Uint:
		return OptValue{kind: qjson.Uint, num: v.Uint()}
	case qjson.Double:
		return OptValue{kind: qjson.Double, num: math.Float64bits(v.Float())}
	}
	return NullOpt
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// Len is the number of flat entries.
func (o *Options) Len() int {
	if o == nil {
		return 0
	}
	return len(o.entries)
}

func (o *Options) index(key string) int {
	if o != nil {
		for i := range o.entries {
			if o.entries[i].key == key {
				return i
			}
		}
	}
	return -1
}

// Has tells whether key is set.
func (o *Options) Has(key string) bool { return o.index(key) >= 0 }

// Get returns the value of key.
func (o *Options) Get(key string) (OptValue, bool) {
	i := o.index(key)
	if i < 0 {
		return OptValue{}, false
	}
	return o.entries[i].value, true
}

// GetString returns the value of key as text, "" if it is not set.
func (o *Options) GetString(key string) string {
	v, _ := o.Get(key)
	return v.String()
}

// Set sets or replaces key.
func (o *Options) Set(key string, v OptValue) {
	if i := o.index(key); i >= 0 {
		o.entries[i].value = v
		return
	}
	o.entries = append(o.entries, entry{key, v})
}

// SetDefault sets key unless it is set already.
func (o *Options) SetDefault(key string, v OptValue) {
	if !o.Has(key) {
		o.entries = append(o.entries, entry{key, v})
	}
}

// CopyDefault copies key from another dictionary unless it is set here.
func (o *Options) CopyDefault(from *Options, key string) {
	if v, ok := from.Get(key); ok {
		o.SetDefault(key, v)
	}
}

// Delete removes key.
func (o *Options) Delete(key string) {
	if i := o.index(key); i >= 0 {
		o.entries = append(o.entries[:i], o.entries[i+1:]...)
	}
}

// Clone copies the dictionary.
func (o *Options) Clone() *Options {
	c := NewOptions()
	if o != nil && len(o.entries) > 0 {
		c.entries = append(make([]entry, 0, len(o.entries)), o.entries...)
	}
	return c
}

// Merge sets every entry of from that is not set here.
func (o *Options) Merge(from *Options) {
	if from == nil {
		return
	}
	for _, e := range from.entries {
		o.SetDefault(e.key, e.value)
	}
}

// Sub returns the entries below prefix ("file" finds "file.x" as "x"), and
// removes them here if take is set. They get there in the order of the
// dictionary that they come from.
func (o *Options) Sub(prefix string, take bool) *Options {
	sub := NewOptions()
	if !o.HasSub(prefix) {
		return sub
	}
	prefix += "."
	kept := o.entries[:0:0]
	for _, e := range o.entries {
		if strings.HasPrefix(e.key, prefix) {
			sub.entries = append(sub.entries, e)
		} else if take {
			kept = append(kept, e)
		}
	}
	sortAsDict(sub.entries)
	for i := range sub.entries {
		sub.entries[i].key = sub.entries[i].key[len(prefix):]
	}
	if take {
		o.entries = kept
	}
	return sub
}

// sortAsDict puts entries into the order in which QEMU's dictionary lists them
// if they have been put in from the first to the last.
func sortAsDict(entries []entry) {
	slices.Reverse(entries)
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(qjson.Bucket(a.key), qjson.Bucket(b.key)) })
}

// HasSub tells whether there are entries below prefix.
func (o *Options) HasSub(prefix string) bool {
	if o == nil {
		return false
	}
	for _, e := range o.entries {
		if strings.HasPrefix(e.key, prefix) && len(e.key) > len(prefix) && e.key[len(prefix)] == '.' {
			return true
		}
	}
	return false
}

// Keys lists the keys in the order of QEMU's dictionary, which decides what
// an error message names first.
func (o *Options) Keys() []string {
	if o == nil {
		return nil
	}
	keys := make([]string, 0, len(o.entries))
	for i := len(o.entries) - 1; i >= 0; i-- {
		keys = append(keys, o.entries[i].key)
	}
	sort.SliceStable(keys, func(i, j int) bool { return qjson.Bucket(keys[i]) < qjson.Bucket(keys[j]) })
	return keys
}

// The Take functions return an option and remove it. Values given as text
// (from json: names and legacy file names) are converted.

// TakeString takes a string option; def if it is not set.
func (o *Options) TakeString(key, def string) string {
	v, ok := o.Get(key)
	if !ok {
		return def
	}
	o.Delete(key)
	return v.String()
}

// TakeBool takes a boolean option.
func (o *Options) TakeBool(key string, def bool) (bool, error) {
	v, ok := o.Get(key)
	if !ok {
		return def, nil
	}
	o.Delete(key)
	if v.kind == qjson.Bool {
		return v.num != 0, nil
	}
	if on, ok := keyval.ParseBool(v.String()); ok {
		return on, nil
	}
	return false, qerr.New("Parameter '%s' expects 'on' or 'off'", key)
}

// TakeSize takes a number of bytes, 0 … 2^64-1; text may have a suffix of
// 1024-based units.
func (o *Options) TakeSize(key string, def uint64) (uint64, error) {
	v, ok := o.Get(key)
	if !ok {
		return def, nil
	}
	o.Delete(key)
	switch v.kind {
	case qjson.Uint:
		return v.num, nil
	case qjson.Int:
		if int64(v.num) >= 0 {
			return v.num, nil
		}
	}
	n, err := keyval.ParseSize(v.String())
	switch err {
	case nil:
		return n, nil
	case keyval.ErrRange:
		return 0, qerr.New("Value '%s' is out of range for parameter '%s'", v, key)
	default:
		return 0, qerr.New("Parameter '%s' expects a non-negative number below 2^64", key).
			WithHint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.\n")
	}
}

// TakeNumber takes a plain non-negative number.
func (o *Options) TakeNumber(key string, def uint64) (uint64, error) {
	v, ok := o.Get(key)
	if !ok {
		return def, nil
	}
	o.Delete(key)
	n, err := keyval.ParseUint(v.String())
	switch err {
	case nil:
		return n, nil
	case keyval.ErrRange:
		return 0, qerr.New("Value '%s' is too large for parameter '%s'", v, key)
	default:
		return 0, qerr.New("Parameter '%s' expects a number", key)
	}
}

// TakeEnum takes one of the given values and returns its index.
func (o *Options) TakeEnum(key string, values []string, def int) (int, error) {
	v, ok := o.Get(key)
	if !ok {
		return def, nil
	}
	o.Delete(key)
	for i, name := range values {
		if name == v.String() {
			return i, nil
		}
	}
	return 0, qerr.New("Parameter '%s' does not accept value '%s'", key, v)
}
