package qjson

import (
	"strings"
	"testing"
)

// feed runs text through a parser in pieces of n bytes and returns each value
// in output format and each error's text.
func feed(p *Parser, text string, n int) []string {
	var out []string
	for len(text) > 0 {
		m := min(n, len(text))
		p.Feed([]byte(text[:m]))
		text = text[m:]
		for {
			v, ok, err := p.Next()
			if err != nil {
				out = append(out, err.Error())
			} else if ok {
				out = append(out, string(AppendValue(nil, v)))
			} else {
				break
			}
		}
	}
	return out
}

// Each error text below was observed on the reference.
var streams = []struct {
	in   string
	want string // one a line
}{
	{`{"b":1,"a":[true,false,null,"x"]} `, `{"a": [true, false, null, "x"], "b": 1}`},
	{`{}{}[][] 1 2 `, "{}\n{}\n[]\n[]\n1\n2"},
	{`{"a":1,"a":bogus}`, "JSON parse error, invalid keyword 'bogus'"},
	{`{"a":1,"a" 2}`, "JSON parse error, missing : in object pair"},
	{`{"a":1,"a":2]`, "JSON parse error, duplicate key"},
	{`{bogus:2}`, "JSON parse error, invalid keyword 'bogus'"},
	{`{[1 2]:2}`, "JSON parse error, expected separator in list"},
	{`{[]:2}`, "JSON parse error, key is not a string in object"},
	{`{null:2}`, "JSON parse error, key is not a string in object"},
	{`{"a":[}`, ""},
	{`{"a":[}]}`, "JSON parse error, expecting value\nJSON parse error, expecting value"},
	{`{"a":{"b":1]}}`, "JSON parse error, expected separator in dict\nJSON parse error, expecting value\nJSON parse error, expecting value"},
	{"{\"a\" 1 \x01", "JSON parse error, stray '\x01'"},
	{`0x10 `, "0\nJSON parse error, invalid keyword 'x'\n10"},
	{`-0e1 0.0e1 `, "0\nJSON parse error, invalid keyword 'e'\n1\n0"},
	{"-} 1\n01:", "JSON parse error, stray '-}'\nJSON parse error, stray '01'\nJSON parse error, expecting value"},
	{`"\u01\u0041"`, `JSON parse error, \u01\u is not a valid Unicode character`},
	{`'\u01"'`, `JSON parse error, \u01"' is not a valid Unicode character`},
	{`"\ud83d\ude"`, `JSON parse error, \ud83d is not a valid Unicode character`},
	{`"\udbff\udfff"`, `JSON parse error, \udbff\udfff is not a valid Unicode character`},
	{"\"\xed\xa0\x80\"", "JSON parse error, invalid UTF-8 sequence in string"},
	{"\"\xc0\x80\" '\\u0000'", "\"\\u0000\"\n\"\\u0000\""},
	{"\"ab\x00cd\n1 ", "JSON parse error, stray '\"ab'\n1"},
	{"@ab:1 ", "JSON parse error, stray '@'\nJSON parse error, expecting value\n1"},
	{"@\t1\r1 ", "JSON parse error, stray '@'\n1"},
	{`'a"b' "a'b" '\'\"\/'`, "\"a\\\"b\"\n\"a'b\"\n\"'\\\"/\""},
	{strings.Repeat("a", 2000) + " ", "JSON parse error, invalid keyword '" + strings.Repeat("a", 1006)},
	{strings.Repeat("[", 1024) + strings.Repeat("]", 1024), strings.Repeat("[", 1024) + strings.Repeat("]", 1024)},
	{strings.Repeat("[", 1025) + "]1 ", "JSON nesting depth limit exceeded\nJSON parse error, expecting value\n1"},
}

func TestStreams(t *testing.T) {
	t.Parallel()
	for _, c := range streams {
		for _, n := range []int{1 << 20, 1, 2, 3, 7} {
			var p Parser
			if got := strings.Join(feed(&p, c.in, n), "\n"); got != c.want {
				t.Errorf("%.200q in pieces of %d:\n got %.300q\nwant %.300q", c.in, n, got, c.want)
			}
		}
	}
}
