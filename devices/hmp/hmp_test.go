package hmp

import (
	"maps"
	"strings"
	"testing"
)

// The replies are the reference's to "info block" and "qemu-io".
func TestParse(t *testing.T) {
	t.Parallel()
	block := []Param{{Kind: Flag, Name: "n"}, {Kind: Flag, Name: "v"}, {Kind: Device, Name: "device", Optional: true}}
	io := []Param{{Kind: Flag, Name: "d"}, {Kind: Device, Name: "device"}, {Kind: String, Name: "command"}}
	const (
		help   = "Try \"help info block\" for more information\r\n"
		ioHelp = "Try \"help qemu-io\" for more information\r\n"
	)
	for _, c := range []struct {
		command, line string
		params        []Param
		want          Args
		reply, out    string
	}{
		{"info block", "", block, Args{}, "", ""},
		{"info block", "  ", block, Args{}, "", ""},
		{"info block", "n1 ", block, Args{"device": "n1"}, "", ""},
		{"info block", `"n1"`, block, Args{"device": "n1"}, "", ""},
		{"info block", `""`, block, Args{"device": ""}, "", ""},
		{"info block", `'n1'`, block, Args{"device": "'n1'"}, "", ""},
		{"info block", `\"x`, block, Args{"device": `\"x`}, "", ""},
		{"info block", `"a\"\\\'b\n"`, block, Args{"device": "a\"\\'b\n"}, "", ""},
		{"info block", "-n -v", block, Args{"n": "", "v": ""}, "", ""},
		{"info block", "-n-v", block, Args{"n": "", "v": ""}, "", ""},
		{"info block", "-v", block, Args{"v": ""}, "", ""},
		{"info block", "-vn", block, Args{"v": "", "device": "n"}, "", ""},
		{"info block", "-v -n", block, Args{"v": "", "device": "-n"}, "", ""},
		{"info block", "-v -n n0", block, nil, "block: extraneous characters at the end of line\r\n" + help, ""},
		{"info block", "a b", block, nil, "block: extraneous characters at the end of line\r\n" + help, ""},
		{"info block", "-x", block, nil, "block: unsupported option -x\r\n" + help, ""},
		{"info block", "-- n1", block, nil, "block: unsupported option --\r\n" + help, ""},
		{"info block", "-", block, nil, "block: unsupported option -" + help, ""},
		{"info block", `"v0`, block, nil, "block: block device name expected\r\n" + help, "unterminated string\n"},
		{"info block", `"a\xb"`, block, nil, "block: block device name expected\r\n" + help, "unsupported escape code: '\\x'\n"},
		{"qemu-io", "", io, nil, "qemu-io: block device name expected\r\n" + ioHelp, ""},
		{"qemu-io", "n0", io, nil, "qemu-io: string expected\r\n" + ioHelp, ""},
		{"qemu-io", `n0 "read 0 512"`, io, Args{"device": "n0", "command": "read 0 512"}, "", ""},
		{"qemu-io", `-d h0 length`, io, Args{"d": "", "device": "h0", "command": "length"}, "", ""},
		{"qemu-io", `-dh0 length`, io, Args{"d": "", "device": "h0", "command": "length"}, "", ""},
		{"qemu-io", "-d", io, nil, "qemu-io: block device name expected\r\n" + ioHelp, ""},
		{"qemu-io", `n0 "read`, io, nil, "qemu-io: string expected\r\n" + ioHelp, "unterminated string\n"},
		{"qemu-io", `n0 "read\`, io, nil, "qemu-io: string expected\r\n" + ioHelp, "unterminated string\n"},
	} {
		var out strings.Builder
		args, reply := Parse(c.command, c.params, c.line, &out)
		if !maps.Equal(args, c.want) || reply != c.reply || out.String() != c.out {
			t.Errorf("%s %s: %v, %q, %q", c.command, c.line, args, reply, out.String())
		}
	}
}
