package qjson

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// requests returns what clients sent in recorded conversations.
func requests(tb testing.TB) []string {
	tb.Helper()
	text, err := os.ReadFile("testdata/requests.txt")
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// rawInputs returns inputs that are no lines of text.
func rawInputs(tb testing.TB) []string {
	tb.Helper()
	text, err := os.ReadFile("testdata/raw.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		s, err := strconv.Unquote(strings.TrimSuffix(line, "\n"))
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func seed(f *testing.F) {
	for _, r := range requests(f) {
		f.Add([]byte(r + "\n"))
	}
	for _, r := range rawInputs(f) {
		f.Add([]byte(r))
	}
	for _, s := range streams {
		if len(s.in) < 200 {
			f.Add([]byte(s.in))
		}
	}
}

// FuzzPieces: how the input is cut must not matter, output must be ASCII, and
// what was written reads back as the same, but for infinity and -0.
func FuzzPieces(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var whole, bytewise Parser
		want := feed(&whole, string(in), len(in))
		if got := feed(&bytewise, string(in), 1); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("whole: %q\nbyte by byte: %q", want, got)
		}
		var again Parser
		for _, out := range want {
			if strings.HasPrefix(out, "JSON ") || strings.Contains(out, "inf") || strings.Contains(out, "-0") {
				continue
			}
			if strings.IndexFunc(out, func(r rune) bool { return r < ' ' || r >= 0x7F }) >= 0 {
				t.Fatalf("output is not plain ASCII: %q", out)
			}
			if back := feed(&again, out+" ", 1<<20); len(back) != 1 || back[0] != out && !sharesBucket(out) {
				t.Fatalf("%q read back as %q", out, back)
			}
		}
	})
}

// sharesBucket reports whether out may hold two members of one bucket, which
// swap places each time they are read and written.
func sharesBucket(out string) bool {
	seen := map[int]bool{}
	v, err := Parse([]byte(out))
	return err == nil && collides(v, seen)
}

func collides(v Value, seen map[int]bool) bool {
	for e := range v.Elems() {
		if collides(e, seen) {
			return true
		}
	}
	for k, m := range v.RawMembers() {
		if seen[Bucket(k)] || collides(m, seen) {
			return true
		}
		seen[Bucket(k)] = true
	}
	return false
}

// FuzzParse: one text gives one value or one error, never both or neither,
// and the stream reader agrees.
func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := Parse(in)
		if v.Exists() == (err != nil) {
			t.Fatalf("value %v and error %v", v.Exists(), err)
		}
		if err != nil {
			return
		}
		var p Parser
		got := feed(&p, string(in)+"\n", 1<<20)
		if want := string(AppendValue(nil, v)); len(got) != 1 || got[0] != want {
			t.Fatalf("alone %q, in a stream %q", want, got)
		}
	})
}

// FuzzString: every string can be written, and reads back as what it was
// where it was valid.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "ä€😀", "\xc0\x80", "\xff", "\xed\xa0\x80", "\x00\x1f\x7f", `"\'`, "\ufdd0\uffff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := AppendString(nil, s)
		if !bytes.Equal(out, AppendString(nil, []byte(s))) {
			t.Fatal("string and []byte differ")
		}
		v, err := Parse(out)
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		clean := utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r == 0 || noncharacter(r) })
		if clean && v.Str() != s {
			t.Fatalf("%q came back as %q", s, v.Str())
		}
	})
}
