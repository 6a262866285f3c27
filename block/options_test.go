package block_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qjson"
)

func parse(tb testing.TB, json string) *block.Options {
	tb.Helper()
	v, err := qjson.Parse([]byte(json))
	if err != nil {
		tb.Fatalf("%s: %v", json, err)
	}
	return block.OptionsFromJSON(v)
}

// Options are flat inside and nested when printed, in the dictionary's order.
func TestOptionsPrint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		json, want string
		len        int
	}{
		{`{}`, `{}`, 0},
		{`{"driver":"raw","file":{"driver":"file","filename":"a"}}`, `{"driver": "raw", "file": {"driver": "file", "filename": "a"}}`, 3},
		{`{"size":1,"read-zeroes":true,"driver":"x"}`, `{"read-zeroes": true, "driver": "x", "size": 1}`, 3},
		{`{"a":[1,[2,3],{"b":null}]}`, `{"a": [1, [2, 3], {"b": null}]}`, 4},
		{`{"a":{},"b":[],"c":{"d":{}}}`, `{"a": {}, "b": [], "c": {"d": {}}}`, 3},
		{`{"k":["1",-1,18446744073709551615,0.5,false]}`, `{"k": ["1", -1, 18446744073709551615, 0.5, false]}`, 5},
		{`{"l":[0,1,2,3,4,5,6,7,8,9,10]}`, `{"l": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}`, 11},
		// What looks like a list becomes one, what only begins like one does not.
		{`{"o":{"0":"a","1":"b"}}`, `{"o": ["a", "b"]}`, 2},
		{`{"o":{"1":"b"}}`, `{"o": {"1": "b"}}`, 1},
		{`{"o":{"00":"b"}}`, `{"o": {"00": "b"}}`, 1},
		{`{"a.b":1,"a":{"c":2}}`, `{"a": {"b": 1, "c": 2}}`, 2},
		{`{"s":"\"\\\u00e9"}`, `{"s": "\"\\\u00E9"}`, 1},
	} {
		o := parse(t, c.json)
		if got := string(o.AppendJSON(nil)); got != c.want || o.Len() != c.len {
			t.Errorf("%s: %s with %d entries, want %s with %d", c.json, got, o.Len(), c.want, c.len)
		}
	}
	var none *block.Options
	if got := string(none.AppendJSON(nil)); got != "{}" || none.Len() != 0 || none.Has("x") || none.Keys() != nil ||
		none.HasSub("x") || none.Sub("x", true).Len() != 0 || none.Clone().Len() != 0 {
		t.Errorf("no options print as %s", got)
	}
}

func TestOptionValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ json, want string }{
		{`"text"`, "text"},
		{`true`, "on"},
		{`false`, "off"},
		{`-5`, "-5"},
		{`18446744073709551615`, "18446744073709551615"},
		{`1.5`, "1.5"},
		{`null`, ""},
	} {
		v, ok := parse(t, `{"k":`+c.json+`}`).Get("k")
		if !ok || v.String() != c.want {
			t.Errorf("%s is %q, want %q", c.json, v, c.want)
		}
	}
	if block.IntOpt(-1).String() != "-1" || block.BoolOpt(true).String() != "on" || block.NullOpt.Kind() != qjson.Null {
		t.Error("made values differ from read ones")
	}
}

func TestOptionsChange(t *testing.T) {
	t.Parallel()
	o := parse(t, `{"driver":"raw","file":{"driver":"file","filename":"a"},"filex":"b"}`)
	if !o.HasSub("file") || o.HasSub("filex") || o.HasSub("driver") || o.Has("file") {
		t.Error("it does not know what is below what")
	}
	sub := o.Sub("file", false)
	if got := string(sub.AppendJSON(nil)); got != `{"driver": "file", "filename": "a"}` || o.Len() != 4 {
		t.Errorf("below file is %s", got)
	}
	clone := o.Clone()
	o.Sub("file", true)
	o.Set("driver", block.StringOpt("qcow2"))
	o.SetDefault("filex", block.StringOpt("c"))
	o.SetDefault("new", block.IntOpt(1))
	o.CopyDefault(clone, "file.driver")
	o.CopyDefault(clone, "nothing")
	o.Delete("filex")
	o.Delete("nothing")
	if got := string(o.AppendJSON(nil)); got != `{"driver": "qcow2", "new": 1, "file": {"driver": "file"}}` {
		t.Errorf("now they are %s", got)
	}
	o.Merge(clone)
	o.Merge(nil)
	want := `{"driver": "qcow2", "new": 1, "file": {"driver": "file", "filename": "a"}, "filex": "b"}`
	if got := string(o.AppendJSON(nil)); got != want {
		t.Errorf("merged they are %s, want %s", got, want)
	}
	keys := parse(t, `{"size":1,"driver":"x","read-zeroes":true}`).Keys()
	if !slices.Equal(keys, []string{"read-zeroes", "driver", "size"}) {
		t.Errorf("the keys are %q", keys)
	}
}

func TestTake(t *testing.T) {
	t.Parallel()
	size := func(o *block.Options) (any, error) { return o.TakeSize("k", 7) }
	number := func(o *block.Options) (any, error) { return o.TakeNumber("k", 7) }
	boolean := func(o *block.Options) (any, error) { return o.TakeBool("k", true) }
	enum := func(o *block.Options) (any, error) { return o.TakeEnum("k", []string{"off", "on", "unmap"}, 2) }
	str := func(o *block.Options) (any, error) { return o.TakeString("k", "x"), nil }
	for _, c := range []struct {
		json string
		take func(*block.Options) (any, error)
		want any
		err  string
	}{
		{`{}`, size, uint64(7), ""},
		{`{"k":5}`, size, uint64(5), ""},
		{`{"k":"64k"}`, size, uint64(65536), ""},
		{`{"k":18446744073709551615}`, size, uint64(math.MaxUint64), ""},
		{`{"k":-1}`, size, nil, "Value '-1' is out of range for parameter 'k'"},
		{`{"k":"x"}`, size, nil, "Parameter 'k' expects a non-negative number below 2^64"},
		{`{}`, number, uint64(7), ""},
		{`{"k":"0x10"}`, number, uint64(16), ""},
		{`{"k":-1}`, number, uint64(math.MaxUint64), ""},
		{`{"k":"18446744073709551616"}`, number, nil, "Value '18446744073709551616' is too large for parameter 'k'"},
		{`{"k":"1k"}`, number, nil, "Parameter 'k' expects a number"},
		{`{}`, boolean, true, ""},
		{`{"k":false}`, boolean, false, ""},
		{`{"k":"on"}`, boolean, true, ""},
		{`{"k":"maybe"}`, boolean, nil, "Parameter 'k' expects 'on' or 'off'"},
		{`{}`, enum, 2, ""},
		{`{"k":"on"}`, enum, 1, ""},
		{`{"k":"perhaps"}`, enum, nil, "Parameter 'k' does not accept value 'perhaps'"},
		{`{}`, str, "x", ""},
		{`{"k":true}`, str, "on", ""},
	} {
		o := parse(t, c.json)
		got, err := c.take(o)
		if text(err) != c.err || err == nil && got != c.want {
			t.Errorf("%s: %v, %q, want %v, %q", c.json, got, text(err), c.want, c.err)
		}
		if o.Has("k") {
			t.Errorf("%s: it was not taken", c.json)
		}
	}
}

// What is printed can be read, and is the same then; keys that share a bucket of
// the dictionary change places each time, as in the reference.
func TestOptionsRoundTrip(t *testing.T) {
	t.Parallel()
	key := rapid.StringMatching(`[a-z][a-z0-9-]{0,5}`)
	scalar := rapid.Custom(func(rt *rapid.T) string {
		return rapid.SampledFrom([]string{`null`, `true`, `-7`, `"x\ny"`, `0.25`, `{}`, `[]`, `9223372036854775808`}).Draw(rt, "scalar")
	})
	var value func(depth int) *rapid.Generator[string]
	value = func(depth int) *rapid.Generator[string] {
		return rapid.Custom(func(rt *rapid.T) string {
			if depth == 0 || rapid.Bool().Draw(rt, "flat") {
				return scalar.Draw(rt, "value")
			}
			if rapid.Bool().Draw(rt, "list") {
				out := "["
				for i, v := range rapid.SliceOfN(value(depth-1), 1, 12).Draw(rt, "elements") {
					if i > 0 {
						out += ","
					}
					out += v
				}
				return out + "]"
			}
			out := "{"
			for i, k := range rapid.SliceOfNDistinct(key, 1, 4, rapid.ID).Draw(rt, "keys") {
				if i > 0 {
					out += ","
				}
				out += `"` + k + `":` + value(depth-1).Draw(rt, "member")
			}
			return out + "}"
		})
	}
	rapid.Check(t, func(rt *rapid.T) {
		o := parse(t, `{"top":`+value(3).Draw(rt, "json")+`}`)
		once := string(o.AppendJSON(nil))
		twice := string(parse(t, once).AppendJSON(nil))
		if thrice := string(parse(t, twice).AppendJSON(nil)); thrice != once || len(twice) != len(once) {
			rt.Fatalf("%s becomes %s and %s", once, twice, thrice)
		}
	})
}
