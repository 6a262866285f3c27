package keyval

import (
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qerr"
)

// sample has options of the reference's --chardev list, so that the reference
// can be asked about the same texts.
var sample = OptsList{
	Implied:       "backend",
	WarnShortForm: true,
	Options: []OptDesc{
		{Name: "backend"},
		{Name: "path"},
		{Name: "mux", Type: OptBool},
		{Name: "wait", Type: OptBool},
		{Name: "reconnect", Type: OptNumber},
		{Name: "reconnect-ms", Type: OptNumber},
		{Name: "size", Type: OptSize},
	},
}

func TestOpts(t *testing.T) {
	t.Parallel()
	o, err := sample.Parse("file,path=a=b,,c,mux=y,reconnect=0x10,size=1.5k,size=2k,id=x,id=y")
	if err != nil {
		t.Fatal(err)
	}
	if o.ID != "x" || !o.HasID || o.Help || len(o.Warnings) != 0 {
		t.Errorf("%+v", o)
	}
	if o.Str("backend") != "file" || o.Str("path") != "a=b,c" || !o.Bool("mux", false) || o.Number("reconnect", 1) != 16 || o.Size("size", 1) != 2048 {
		t.Errorf("%+v", o)
	}
	if o.Has("wait") || !o.Bool("wait", true) || o.Number("reconnect-ms", 7) != 7 {
		t.Errorf("defaults: %+v", o)
	}
}

func TestOptsShortForm(t *testing.T) {
	t.Parallel()
	o, err := sample.Parse("null,mux,nowait,id=c")
	if err != nil || !o.Bool("mux", false) || o.Bool("wait", true) {
		t.Errorf("%+v, %v", o, err)
	}
	want := []string{
		"short-form boolean option 'mux' deprecated\nPlease use mux=on instead",
		"short-form boolean option 'nowait' deprecated\nPlease use wait=off instead",
	}
	if !slices.Equal(o.Warnings, want) {
		t.Errorf("%q", o.Warnings)
	}
	for in, want := range map[string]string{"null,id,id=x": "on", "null,id=x,id": "x", "null,,id=x": "x"} {
		if o, err := sample.Parse(in); err != nil || o.ID != want {
			t.Errorf("Parse(%q): id %q, %v", in, o.ID, err)
		}
	}
	o, err = sample.Parse("null,noid")
	if err != nil || o.ID != "off" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestOptsHelp(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"null,help,bogus=1": true, "null,?,id=c": true, "help,help": true, "null,help,,x": true,
		"help": false, "backend=help": false,
	} {
		if o, err := sample.Parse(in); err != nil || o.Help != want {
			t.Errorf("Parse(%q): help %v, %v", in, o.Help, err)
		}
	}
	want := "Supported options:\n  long-option-name=<size> - b\n  path=<str>             - a\n  reconnect-ms=<num>\n  reconnect=<bool (on/off)>\n"
	list := OptsList{Options: []OptDesc{
		{"path", OptString, "a"}, {"reconnect", OptBool, ""}, {"long-option-name", OptSize, "b"}, {"reconnect-ms", OptNumber, ""},
	}}
	if got := list.HelpText("Supported options:"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

const sizeHint = "\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
const idHint = "\nIdentifiers consist of letters, digits, '-', '.', '_', starting with a letter."

// optsMistakes holds error and hint as a command line prints them.
var optsMistakes = []struct{ in, want string }{
	{"null,id=", "Parameter 'id' expects an identifier" + idHint},
	{"null,id=1", "Parameter 'id' expects an identifier" + idHint},
	{"null,bogus=1,id=a/b", "Parameter 'id' expects an identifier" + idHint},
	{"null,help,id=1", "Parameter 'id' expects an identifier" + idHint},
	{"null,id=c,,", "Parameter 'id' expects an identifier" + idHint},
	{"null,id=c,bogus=1", "Invalid parameter 'bogus'"},
	{"null,bogus=1,help", "Invalid parameter 'bogus'"},
	{"null,help=on,id=c", "Invalid parameter 'help'"},
	{"null,=,id=c", "Invalid parameter ''"},
	{"null,mux=maybe", "Parameter 'mux' expects 'on' or 'off'"},
	{"null,mux=,bogus=1", "Parameter 'mux' expects 'on' or 'off'"},
	{"null,mux=x,mux=on,id=c", "Parameter 'mux' expects 'on' or 'off'"},
	{"null,reconnect=1.5", "Parameter 'reconnect' expects a number"},
	{"null,reconnect=", "Parameter 'reconnect' expects a number"},
	{"null,reconnect=18446744073709551616", "Value '18446744073709551616' is too large for parameter 'reconnect'"},
	{"null,size=1.5", "Parameter 'size' expects a non-negative number below 2^64" + sizeHint},
	{"null,size=1,,5k", "Parameter 'size' expects a non-negative number below 2^64" + sizeHint},
	{"null,size=-1", "Value '-1' is out of range for parameter 'size'"},
	{"null,size=16E", "Value '16E' is out of range for parameter 'size'"},
}

func TestOptsMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range optsMistakes {
		_, err := sample.Parse(tt.in)
		if err == nil {
			t.Errorf("Parse(%q) succeeded", tt.in)
			continue
		}
		e := qerr.From(err)
		if got := strings.TrimSuffix(e.Desc+"\n"+e.Hint, "\n"); got != tt.want {
			t.Errorf("Parse(%q)\n got %q\nwant %q", tt.in, got, tt.want)
		}
	}
}

func TestOptsMistakesReference(t *testing.T) {
	t.Parallel()
	prog := reference(t)
	for _, tt := range optsMistakes {
		if got := referenceError(t, prog, "--chardev", tt.in); got != tt.want {
			t.Errorf("--chardev %q\n the reference %q\nthe table     %q", tt.in, got, tt.want)
		}
	}
}
