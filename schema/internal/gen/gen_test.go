package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGeneratedFilesAreCurrent fails when a schema file or the generator was
// changed and "go generate ./..." was not run.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..")
	files, err := generate(filepath.Join(dir, "qmpblock.json"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate ./...", name)
		}
	}
	committed, err := filepath.Glob(filepath.Join(dir, "*_gen.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(committed) != len(files) {
		t.Errorf("%d generated files, %d of them known", len(committed), len(files))
	}
}

// write makes a schema of the given text and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// document puts a comment in front of a definition.
func document(name, members, definition string) string {
	return "##\n# @" + name + ":\n#\n# What it is.\n#\n" + members + "# Since: 9.0\n##\n" + definition + "\n\n"
}

func TestMistakesInTheSchema(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"undocumented": {"{ 'struct': 'S', 'data': {} }", "S has no documentation"},
		"no version":   {"##\n# @S:\n#\n# What.\n##\n{ 'struct': 'S', 'data': {} }", "Since: is missing"},
		"not QAPI":     {"{ 'structure': 'S' }", "s.json:1: no QAPI definition"},
		"a member not described": {
			document("S", "", "{ 'struct': 'S', 'data': { 'a': 'int' } }"), "@a is not described"},
		"a description too many": {
			document("S", "# @a: a member\n#\n", "{ 'struct': 'S', 'data': {} }"), "@a is described but does not exist"},
		"described twice": {
			document("S", "# @a: one\n# @a: two\n#\n", "{ 'struct': 'S', 'data': { 'a': 'int' } }"), "@a is described twice"},
		"unknown type": {
			document("S", "# @a: a member\n#\n", "{ 'struct': 'S', 'data': { 'a': 'Thing' } }"), `unknown type "Thing"`},
		"unknown base": {
			document("S", "", "{ 'struct': 'S', 'base': 'B', 'data': {} }"), "base B is no struct"},
		"defined twice": {
			strings.Repeat(document("S", "", "{ 'struct': 'S', 'data': {} }"), 2), "S is defined twice"},
		"feature not described": {
			document("S", "", "{ 'struct': 'S', 'data': {}, 'features': [ 'f' ] }"), "feature f is not described"},
		"bad branch": {
			document("E", "# @a: a value\n#\n", "{ 'enum': 'E', 'data': [ 'a' ] }") +
				document("U", "# @e: the tag\n#\n", "{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'b': 'U' } }"), "bad branch b"},
		"unfinished":         {"{ 'struct': 'S',", "unexpected end of file"},
		"unfinished comment": {"##\n# @S:\n{ 'struct': 'S', 'data': {} }", "not closed"},
	} {
		if _, err := generate(write(t, c.text), nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %s", name, err, c.want)
		}
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	text := document("E", "# @a: one\n# @b: two\n#\n", "{ 'enum': 'E', 'data': [ 'a', { 'name': 'b', 'if': 'CONFIG_B' } ] }") +
		document("c", "# @e: a member\n#\n", "{ 'command': 'c', 'data': { 'e': 'E' } }")
	for symbol, want := range map[string]bool{"CONFIG_B": true, "CONFIG_A": false} {
		files, err := generate(write(t, text), symbolList{symbol: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(files["enums_gen.go"], []byte("EB\n")); got != want {
			t.Errorf("%s: value b is there: %t", symbol, got)
		}
	}
}

func TestGoNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"node-name": "NodeName", "bps_rd": "BpsRd", "BLOCK_IO_ERROR": "BlockIoError", "x-blockdev-set-iothread": "XBlockdevSetIothread", "3des": "3des",
	} {
		if got := goName(name); got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
}
