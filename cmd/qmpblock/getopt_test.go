package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var getoptRows = []struct {
	args []string
	want string // options and words as "name=arg" and "=word", or the error
}{
	{nil, ""},
	{[]string{"--blockdev", "x"}, "blockdev=x"},
	{[]string{"--blockdev=x"}, "blockdev=x"},
	{[]string{"--blockdev=x=y"}, "blockdev=x=y"},
	{[]string{"--blockdev="}, "blockdev="},
	{[]string{"--blockdev", ""}, "blockdev="},
	{[]string{"--blockdev", "--help"}, "blockdev=--help"},
	{[]string{"--blockdev", "--"}, "blockdev=--"},
	{[]string{"--b", "x", "--daemon"}, "blockdev=x daemonize="},
	{[]string{"--chardev=a", "--chardev=b"}, "chardev=a chardev=b"},
	{[]string{"--blo=x"}, "blockdev=x"},
	{[]string{"-h"}, "help="},
	{[]string{"-Vh"}, "version= help="},
	{[]string{"-hTx"}, "help= trace=x"},
	{[]string{"-T", "x"}, "trace=x"},
	{[]string{"-T=x"}, "trace==x"},
	{[]string{"-T", "-h"}, "trace=-h"},
	{[]string{"word", "-h"}, "=word help="},
	{[]string{"-"}, "=-"},
	{[]string{""}, "="},
	{[]string{"-h", "--", "-h", "--help", "--"}, "help= =-h =--help =--"},
	{[]string{"--"}, ""},

	{[]string{"--blockdev"}, "p: option '--blockdev' requires an argument"},
	{[]string{"--blo"}, "p: option '--blockdev' requires an argument"},
	{[]string{"--help=x"}, "p: option '--help' doesn't allow an argument"},
	{[]string{"--he="}, "p: option '--help' doesn't allow an argument"},
	{[]string{"--nope"}, "p: unrecognized option '--nope'"},
	{[]string{"--nope=1"}, "p: unrecognized option '--nope=1'"},
	{[]string{"--helpful"}, "p: unrecognized option '--helpful'"},
	{[]string{"--t"}, "p: option '--t' is ambiguous; possibilities: '--trace' '--trace-more'"},
	{[]string{"--tr=x"}, "p: option '--tr=x' is ambiguous; possibilities: '--trace' '--trace-more'"},
	{[]string{"--trace=x"}, "trace=x"},
	{[]string{"--trace-m=x"}, "trace-more=x"},
	{[]string{"-x"}, "p: invalid option -- 'x'"},
	{[]string{"-hx"}, "p: invalid option -- 'x'"},
	{[]string{"-:"}, "p: invalid option -- ':'"},
	{[]string{"-h="}, "p: invalid option -- '='"},
	{[]string{"-T"}, "p: option requires an argument -- 'T'"},
	{[]string{"-hT"}, "p: option requires an argument -- 'T'"},
}

var getoptOptions = []longOption{
	{name: "blockdev", arg: true},
	{name: "chardev", arg: true},
	{name: "daemonize"},
	{name: "help", short: 'h'},
	{name: "trace", short: 'T', arg: true},
	{name: "trace-more", arg: true},
	{name: "version", short: 'V'},
}

func TestGetopt(t *testing.T) {
	t.Parallel()
	for _, c := range getoptRows {
		options, err := getopt("p", getoptOptions, c.args)
		var words []string
		for _, o := range options {
			words = append(words, o.name+"="+o.arg)
		}
		got := strings.Join(words, " ")
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", c.args, diff)
		}
	}
}

// TestGetoptOfLibrary asks getopt_long itself, through the program getopt,
// whether the table is right.
func TestGetoptOfLibrary(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("getopt")
	if err != nil {
		daemon.Missing(t, "getopt is not installed")
	}
	// The dash in front keeps words where they are.
	short, long := "-", ""
	spell := map[string]string{}
	for _, o := range getoptOptions {
		colon := ""
		if o.arg {
			colon = ":"
		}
		if o.short != 0 {
			short += string(o.short) + colon
			spell["-"+string(o.short)] = o.name
		}
		long += "," + o.name + colon
		spell["--"+o.name] = o.name
	}
	for _, c := range getoptRows {
		command := append([]string{"-n", "p", "-o", short, "-l", long[1:], "--"}, c.args...)
		var stderr strings.Builder
		run := exec.Command(program, command...)
		run.Env = []string{"LC_ALL=C"}
		run.Stderr = &stderr
		out, err := run.Output()
		got, _, _ := strings.Cut(stderr.String(), "\n")
		if err == nil {
			got = fromGetopt(t, spell, string(out))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +library)\n%s", c.args, diff)
		}
	}
}

// fromGetopt rewrites the output of getopt, " --name 'arg' 'word' -- 'word'",
// in the manner of the table.
func fromGetopt(t *testing.T, spell map[string]string, line string) string {
	t.Helper()
	var words []string
	rest := strings.TrimSpace(line)
	ended := false
	for rest != "" {
		var word string
		if strings.HasPrefix(rest, "'") {
			word, rest, _ = strings.Cut(rest[1:], "'")
			rest = strings.TrimSpace(rest)
			words = append(words, "="+word)
			continue
		}
		word, rest, _ = strings.Cut(rest, " ")
		if word == "--" && !ended {
			ended = true
			continue
		}
		name, ok := spell[word]
		if !ok {
			t.Fatalf("%q in %q", word, line)
		}
		arg := ""
		if takesArgument(name) {
			arg, rest, _ = strings.Cut(rest[1:], "'")
			rest = strings.TrimSpace(rest)
		}
		words = append(words, name+"="+arg)
	}
	return strings.Join(words, " ")
}

func takesArgument(name string) bool {
	for _, o := range getoptOptions {
		if o.name == name {
			return o.arg
		}
	}
	return false
}
