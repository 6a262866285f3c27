package transcript

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFormat shows that writing a transcript gives back what was read.
func TestFormat(t *testing.T) {
	t.Parallel()
	read := 0
	err := filepath.WalkDir(filepath.Join("..", "testdata"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".qmp") {
			return err
		}
		read++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := Parse(path, string(text))
		if err != nil {
			t.Error(err)
			return nil
		}
		if f.Format() != string(text) {
			t.Errorf("%s is written differently than it was read", path)
		}
		if !strings.HasPrefix(string(text), "# ") {
			t.Errorf("%s does not begin with what it is about", path)
		}
		return nil
	})
	if err != nil || read == 0 {
		t.Errorf("%d transcripts read: %v", read, err)
	}
}

func TestParseUnknown(t *testing.T) {
	t.Parallel()
	_, err := Parse("x", "# a comment\n\nfrobnicate 5\n")
	if err == nil || !strings.Contains(err.Error(), "x:3: unknown directive: frobnicate 5") {
		t.Errorf("got %v", err)
	}
}

func TestSplitWords(t *testing.T) {
	t.Parallel()
	words, err := splitWords(`--a 'b "c" d'  "e f"g ''`)
	if err != nil || strings.Join(words, "|") != `--a|b "c" d|e fg|` {
		t.Errorf("got %q, %v", words, err)
	}
	if _, err := splitWords(`a 'b`); err == nil {
		t.Error("an open quote was accepted")
	}
}

func TestRawBytes(t *testing.T) {
	t.Parallel()
	got, err := rawBytes(`"a\xff" * 2 "\n" "b"*3`)
	if err != nil || string(got) != "a\xffa\xff\nbbb" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{`x`, `"a" * y`, `"a`} {
		if _, err := rawBytes(bad); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	same := [][2]string{
		{`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}`, `{"timestamp": {"seconds": 3, "microseconds": 44}, "event": "STOP"}`},
		{`        "seconds": 17,`, `        "seconds": 1799,`},
		{`"node-name": "#block012"`, `"node-name": "#block1299"`},
		{`"actual-size": 0`, `"actual-size": 4096`},
		{`64 KiB, 1 ops; 00.00 sec (1 MiB/sec and 2 ops/sec)`, `64 KiB, 1 ops; 1:02:03.44 (2 KiB/sec and 3 ops/sec)`},
	}
	for _, pair := range same {
		if Normalize(pair[0]) != Normalize(pair[1]) {
			t.Errorf("these should be equal:\n%s\n%s", pair[0], pair[1])
		}
	}
	differ := [][2]string{
		{`"virtual-size": 0`, `"virtual-size": 4096`},
		{`"wr_total_time_ns": 0`, `"wr_total_time_ns": 7`},
		{`"node-name": "#block012"`, `"node-name": "block012"`},
	}
	for _, pair := range differ {
		if Normalize(pair[0]) == Normalize(pair[1]) {
			t.Errorf("these should differ:\n%s\n%s", pair[0], pair[1])
		}
	}
}
