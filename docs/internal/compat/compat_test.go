package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var rewrite = flag.Bool("rewrite", false, "write reference.txt as the reference's programs tell")

// TestPageIsUpToDate fails when the code has changed and the page has not.
func TestPageIsUpToDate(t *testing.T) {
	t.Parallel()
	want, err := makePage()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/compatibility.md is stale: go generate ./docs/internal/compat")
	}
}

// TestNothingIsMadeUp: what is here is in the reference, or is known not to be
// in its lists.
func TestNothingIsMadeUp(t *testing.T) {
	t.Parallel()
	theirs, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	here, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	unlisted := map[string]bool{
		"jsonrpc": true, "log-level": true, // ours
		"M": true, // another name of -machine, which the reference's help omits
	}
	for _, p := range programs {
		for _, k := range kinds {
			for name := range here[p][k] {
				if !theirs[p].has(k, name) && !(k == option && unlisted[name]) {
					t.Errorf("%s: the reference has no %s %s", p, k, name)
				}
			}
		}
	}
}

// TestReferenceList compares reference.txt with the reference's programs.
func TestReferenceList(t *testing.T) {
	t.Parallel()
	ref := daemon.Reference(t)
	if ref.System == nil {
		daemon.Missing(t, "no qemu-system-x86_64 beside the storage daemon")
	}
	text := list(map[program]offer{
		storageDaemon: askReference(t, ref.Storage, []string{"--chardev", "stdio,id=c", "--monitor", "c"},
			regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)`)),
		system: askReference(t, ref.System, []string{"-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"},
			regexp.MustCompile(`(?m)^--?([A-Za-z][\w-]*)`),
			regexp.MustCompile(`(?m)^-\w+(?: or |/)-(\w+)`)), // "-h or -help", "-fda/-fdb"
	})
	if *rewrite {
		if err := os.WriteFile("reference.txt", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text != referenceText {
		t.Error("reference.txt does not say what the reference says; -rewrite writes it anew")
	}
}

// repliesOf takes the lines behind the greeting apart.
func repliesOf(output string, commands []string) (map[string]qjson.Value, error) {
	_, output, _ = strings.Cut(output, "\n")
	replies := map[string]qjson.Value{}
	for i, line := range strings.SplitN(output, "\n", len(commands))[:len(commands)-1] {
		v, err := qjson.Parse([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", commands[i], err)
		}
		replies[commands[i]] = v.Get("return")
	}
	return replies, nil
}

// askReference asks a program over QMP, and its help for what QMP does not
// tell.
func askReference(t *testing.T, words, monitor []string, options ...*regexp.Regexp) offer {
	t.Helper()
	commands := []string{"qmp_capabilities", askSchema, askChardevs, "quit"}
	var input strings.Builder
	for _, c := range commands {
		input.WriteString(`{"execute": "` + c + `"}` + "\n")
	}
	replies, err := repliesOf(run(t, input.String(), words, monitor...), commands)
	for tries := 1; err != nil && tries < 10; tries++ {
		// The reference may end before the pipe has taken its last words.
		replies, err = repliesOf(run(t, input.String(), words, monitor...), commands)
	}
	if err != nil {
		t.Fatal(err)
	}
	o, err := ask(func(command string) (qjson.Value, error) { return replies[command], nil })
	if err != nil {
		t.Fatal(err)
	}
	help := run(t, "", words, "-h")
	for _, pattern := range options {
		for _, m := range pattern.FindAllStringSubmatch(help, -1) {
			o.add(option, m[1], "")
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^  (\S+)$`).FindAllStringSubmatch(run(t, "", words, "--object", "help"), -1) {
		o.add(object, m[1], "")
	}
	return o
}

// run runs a program to its end and returns its output.
func run(t *testing.T, input string, words []string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), words[0], append(words[1:len(words):len(words)], args...)...)
	c.Stdin = strings.NewReader(input)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %v", c.Args, err)
	}
	return string(out)
}
