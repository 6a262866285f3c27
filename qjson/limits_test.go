package qjson

import (
	"fmt"
	"strings"
	"testing"
)

func TestTokenCount(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat(" 0", MaxTokens-2)
	var p Parser
	// The number of tokens is checked before the grammar speaks.
	got := feed(&p, "["+zeros+"]", 1<<20)
	if want := "JSON parse error, expected separator in list"; strings.Join(got, "\n") != want {
		t.Errorf("at the limit: %.200q", got)
	}
	got = feed(&p, "["+zeros+" 0],", 1<<20)
	if want := "JSON token count limit exceeded\nJSON parse error, expecting value"; strings.Join(got, "\n") != want {
		t.Errorf("beyond the limit: %.200q", got)
	}
}

func TestTokenSize(t *testing.T) {
	t.Parallel()
	const tooLarge = "JSON token size limit exceeded"
	long := func(n int) string { return strings.Repeat("a", MaxTokenBytes+n) }
	for _, c := range []struct{ name, in, want string }{
		// A token that becomes too long is given up at once; what is left
		// of it is read as new.
		{"nested string", `[[[["` + long(20) + `:`, tooLarge + "\nJSON parse error, invalid keyword 'aaaaaaaaaaaaaaaaaaaa'\nJSON parse error, expecting value"},
		// All tokens together are counted when one is complete.
		{"sum", `{"execute":"` + long(-17) + `", "x":1}`, tooLarge + "\nJSON parse error, expecting value\n1\nJSON parse error, expecting value"},
		{"space", strings.Repeat(" ", MaxTokenBytes+20) + "[1]", "[1]"},
	} {
		var p Parser
		if got := strings.Join(feed(&p, c.in, 1<<20), "\n"); got != c.want {
			t.Errorf("%s: %.300q", c.name, got)
		}
	}
}

func TestManyMembers(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 15, 16, 17, 18, 1000} {
		text := object(n)
		v, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if v.Len() != n {
			t.Errorf("%d members, %d expected", v.Len(), n)
		}
		for i := range n {
			if got := v.Get(fmt.Sprintf("member-%d", i)); got.Int() != int64(i) || !got.Exists() {
				t.Errorf("of %d members, number %d is %v", n, i, got.Int())
			}
		}
		if v.Get("member").Exists() || v.Get("").Exists() {
			t.Error("found a member that is not there")
		}
		for _, i := range []int{0, n / 2, n - 1} {
			dup := fmt.Sprintf(`%s,"member-%d":{}}`, text[:len(text)-1], i)
			if _, err := Parse([]byte(dup)); err == nil || err.Error() != "JSON parse error, duplicate key" {
				t.Errorf("repeated member %d of %d: %v", i, n, err)
			}
		}
	}
	// Large objects inside one another, with the same names.
	inner := object(100)
	v, err := Parse([]byte(inner[:len(inner)-1] + `,"in":` + inner + `,"last":[` + inner + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if v.Len() != 102 || v.Get("in").Get("member-99").Int() != 99 || v.Get("in").Get("in").Exists() {
		t.Error("members of nested objects are mixed up")
	}
}

func TestNoAllocations(t *testing.T) {
	var p Parser
	var out []byte
	in := []byte(small + options)
	n := testing.AllocsPerRun(100, func() {
		p.Feed(in)
		for {
			v, ok, _ := p.Next()
			if !ok {
				break
			}
			out = AppendValue(out[:0], v)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for two requests", n)
	}
}

func TestReuseReleasesHugeTexts(t *testing.T) {
	t.Parallel()
	var p Parser
	feed(&p, `["`+strings.Repeat("x", 1<<20)+`",`+object(1<<14)+`,`+strings.Repeat("1,", 1<<16)+`1]`, 1000)
	feed(&p, `{}`, 2)
	if c := cap(p.own.text) + cap(p.own.nodes) + len(p.own.keys.slots) + cap(p.lex.partial); c > 1<<18 {
		t.Errorf("%d units kept after a huge text", c)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		``:              "Expecting a JSON value",
		" \n":           "Expecting a JSON value",
		`{`:             "JSON parse error, premature EOI",
		`{"a":1,`:       "JSON parse error, premature EOI",
		`{"a":{}`:       "JSON parse error, premature EOI",
		`{"a`:           `JSON parse error, stray '"a'`,
		`-`:             "JSON parse error, stray '-'",
		`nul`:           "JSON parse error, invalid keyword 'nul'",
		`{bogus`:        "JSON parse error, invalid keyword 'bogus'",
		`@`:             "JSON parse error, stray '@'",
		`{} {}`:         "Expecting at most one JSON value",
		`{} 1`:          "Expecting at most one JSON value",
		`{"a":1}x`:      "Expecting at most one JSON value",
		`{"a":1}@`:      "Expecting at most one JSON value",
		`{"a":1}}`:      "Expecting at most one JSON value",
		`{"a":1,,} {`:   "JSON parse error, expecting value",
		`{"a":1} "open`: "Expecting at most one JSON value",
	} {
		if _, err := Parse([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
	for in, want := range map[string]string{
		`1`: "1", ` 1 `: "1", `-12.5e1`: "-125", `true`: "true", `"x"`: `"x"`, `[1, 2]` + "\n": "[1, 2]",
		`9223372036854775808`: "9223372036854775808", `-9223372036854775809`: "-9.2233720368547758e+18", `-0`: "0", `-0.0`: "-0",
	} {
		v, err := Parse([]byte(in))
		if got := string(AppendValue(nil, v)); err != nil || got != want {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
}
