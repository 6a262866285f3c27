package keyval

import (
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qerr"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"", `{}`},
		{"null-co", `{"driver": "null-co"}`},
		{"null-co,", `{"driver": "null-co"}`},
		{"null-co,size=1,size=2", `{"driver": "null-co", "size": "2"}`},
		{"file,filename=a,,b=c,,", `{"driver": "file", "filename": "a,b=c,"}`},
		{"driver=x,a=", `{"driver": "x", "a": ""}`},
		{"a.b=1,a.c.d=2,e=3", `{"a": {"b": "1", "c": {"d": "2"}}, "e": "3"}`},
		{"l.1=b,l.0=a", `{"l": ["a", "b"]}`},
		{"l.0.x=a,l.1=b", `{"l": [{"x": "a"}, "b"]}`},
		{"l.0.0=a,l.0.1=b", `{"l": [["a", "b"]]}`},
		{"a.0=x,a.0=y", `{"a": ["y"]}`},
		{"___a=1,__com.x_y.z=2,__a-b.c_b_1=3", `{"___a": "1", "__com.x_y": {"z": "2"}, "__a-b.c_b_1": "3"}`},
		{"a-=1,A_=2", `{"a-": "1", "A_": "2"}`},
		{"help=x,a=\"\u00e9\x01", `{"help": "x", "a": "\"\u00E9\u0001"}`},
		{strings.Repeat("a", 127) + "=x", `{"` + strings.Repeat("a", 127) + `": "x"}`},
	}
	for _, tt := range tests {
		got, help, err := Parse(tt.in, "driver")
		if err != nil || help {
			t.Errorf("Parse(%q): help %v, error %v", tt.in, help, err)
		}
		if string(got) != tt.want {
			t.Errorf("Parse(%q)\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestParseHelp(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"help", "?", "help,", "help,help", "null-co,help", "node-name=n,?,size=1"} {
		if _, help, err := Parse(in, "driver"); !help || err != nil {
			t.Errorf("Parse(%q): help %v, error %v", in, help, err)
		}
	}
	doc, help, err := Parse("iothread,help,id=x", "qom-type")
	if want := `{"qom-type": "iothread", "id": "x"}`; !help || err != nil || string(doc) != want {
		t.Errorf("got %s, %v, %v; want %s with help", doc, help, err, want)
	}
}

// mistakes are options for --blockdev that are wrong in themselves.
var mistakes = []struct{ in, want string }{
	{"=", "Invalid parameter ''"},
	{",", "Invalid parameter ''"},
	{",,=x", "Invalid parameter ''"},
	{"a,,b,node-name=n", "Invalid parameter ''"},
	{"null-co,,", "Invalid parameter ''"},
	{"null-co,=x", "Invalid parameter ''"},
	{"?=x", "Invalid parameter '?'"},
	{"null-co,size", "Expected '=' after parameter 'size'"},
	{"null-co,size,", "Expected '=' after parameter 'size'"},
	{"help,iothread", "Expected '=' after parameter 'iothread'"},
	{"null-co,a.help", "Expected '=' after parameter 'a.help'"},
	{"a.b=1,a", "Expected '=' after parameter 'a'"},
	{"null-co,a b=x", "Invalid parameter 'a b'"},
	{"null-co,a b", "Invalid parameter 'a b'"},
	{"null-co,a.=1", "Invalid parameter 'a.'"},
	{"null-co,.a=1", "Invalid parameter '.a'"},
	{"null-co,a..b=1", "Invalid parameter 'a..b'"},
	{"null-co,0=x", "Invalid parameter '0'"},
	{"null-co,1b=x", "Invalid parameter '1b'"},
	{"null-co,a.1b=x", "Invalid parameter 'a.1b'"},
	{"null-co,a.-1=x", "Invalid parameter 'a.-1'"},
	{"null-co,_a=x", "Invalid parameter '_a'"},
	{"null-co,__a=x", "Invalid parameter '__a'"},
	{"null-co,__com.redhat=x", "Invalid parameter '__com.redhat'"},
	{"null-co,__com.x_1=x", "Invalid parameter '__com.x_1'"},
	{"null-co,__a@b_c=1", "Invalid parameter '__a@b_c'"},
	{"null-co,\u00e9=x", "Invalid parameter '\u00e9'"},
	{strings.Repeat("a", 128) + "=", "Parameter '" + strings.Repeat("a", 128) + "' is too long"},
	{strings.Repeat("a", 128) + "@=", "Invalid parameter '" + strings.Repeat("a", 128) + "@'"},
	{"x." + strings.Repeat("1", 128) + "=", "Parameter fragment '" + strings.Repeat("1", 128) + "' is too long"},
	{"a.b=1,a=2", "Parameters 'a.*' used inconsistently"},
	{"a=2,a.b=1", "Parameters 'a.*' used inconsistently"},
	{"a=2,a.b", "Parameters 'a.*' used inconsistently"},
	{"a=1,a.b.c@=1", "Parameters 'a.*' used inconsistently"},
	{"a=1,a.b@=1", "Invalid parameter 'a.b@'"},
	{"a.b.c=1,a.b=2,a=3", "Parameters 'a.b.*' used inconsistently"},
	{"x.0.a=1,x.0=2", "Parameters 'x.0.*' used inconsistently"},
	{"a.0=1,a.b=1,a.c=2", "Parameters 'a.*' used inconsistently"},
	{"x.2=1,x.b=2,x.c=3", "Parameters 'x.*' used inconsistently"},
	{"a.1=x", "Parameter 'a.0' missing"},
	{"a.0=x,a.2=y", "Parameter 'a.1' missing"},
	{"a.0=x,a.99999999999999999999=y", "Parameter 'a.1' missing"},
	{"a.0=x,a.4294967297=y", "Parameter 'a.1' missing"},
	{"a.5=1,a.0.7=1", "Parameter 'a.0.0' missing"},
	{"y.1=3,x.0=1,x.b=2", "Parameters 'x.*' used inconsistently"},
	{"children.1=1,backing.1=1,file.1=1", "Parameter 'backing.0' missing"},
	{"file.1=1,zz.1=1,backing.1=1,qq.1=2", "Parameter 'backing.0' missing"},
	{"a.1.x=1,a.b.1=2,a.c.1=3", "Parameter 'a.b.0' missing"},
}

func TestParseMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range mistakes {
		_, _, err := Parse(tt.in, "driver")
		if err == nil || err.Error() != tt.want {
			t.Errorf("Parse(%q)\n got %v\nwant %s", tt.in, err, tt.want)
		}
	}
	if _, _, err := Parse("a.0=\xff", ""); err == nil || err.Error() != "Parameter 'a.0' is not valid UTF-8" {
		t.Errorf("invalid UTF-8: %v", err)
	}
}

func TestParseMistakesReference(t *testing.T) {
	t.Parallel()
	prog := reference(t)
	for _, tt := range mistakes {
		if got := referenceError(t, prog, "--blockdev", tt.in); got != tt.want {
			t.Errorf("--blockdev %q\n the reference %q\nthe table     %q", tt.in, got, tt.want)
		}
	}
}

func TestParseOption(t *testing.T) {
	t.Parallel()
	v, help, err := ParseOption(`{"driver": "null-co", "size": 5}`, "driver")
	if err != nil || help || v.Get("size").Int() != 5 {
		t.Errorf("JSON: %v, %v", help, err)
	}
	v, help, err = ParseOption("null-co,a.0=x,help", "driver")
	if err != nil || !help || v.Get("a").Len() != 1 {
		t.Errorf("keyval: %v, %v", help, err)
	}
	for in, want := range map[string]string{
		`{"driver":"null-co",`: "JSON parse error, premature EOI",
		`{"driver":1}x`:        "Expecting at most one JSON value",
		"a.1=2":                "Parameter 'a.0' missing",
	} {
		if _, _, err := ParseOption(in, "driver"); err == nil || qerr.From(err).Desc != want {
			t.Errorf("ParseOption(%q): %v, want %s", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range mistakes {
		f.Add(tt.in)
	}
	f.Add("a.b=1,a.c.0=2,l.1=x,l.00=y")
	f.Fuzz(func(t *testing.T, in string) {
		if _, _, err := ParseOption(in, "driver"); err != nil {
			return
		}
		if strings.HasPrefix(in, "{") {
			return
		}
		doc, _, err := Parse(in, "driver")
		if err != nil || doc[0] != '{' || doc[len(doc)-1] != '}' {
			t.Errorf("Parse(%q) = %s, %v", in, doc, err)
		}
	})
}
