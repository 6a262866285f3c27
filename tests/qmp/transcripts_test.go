// Package qmp holds the transcripts of conversations with the daemon and the
// test that replays them. README.md describes their format.
package qmp

import (
	"bufio"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
	"github.com/qmpblock/qmpblock/tests/qmp/transcript"
)

var (
	rewrite = flag.Bool("rewrite", false, "record the transcripts anew instead of comparing (chooses the reference unless -daemon says otherwise)")
	under   = flag.String("daemon", "", "the daemon to talk to: ours, reference or a path (default ours)")
)

// survives holds what the reference dies of or hangs on: for ours alone.
const survives = "survives/"

// TestTranscripts replays every transcript against our daemon. Those in
// testdata/pending.txt must fail.
func TestTranscripts(t *testing.T) {
	program := chosen(t)
	pending := map[string]string{}
	if program.Name == "ours" {
		pending = loadPending(t)
	}
	for _, path := range all(t) {
		name := nameOf(path)
		need, isPending := pending[name]
		delete(pending, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			switch {
			case strings.HasPrefix(name, survives) && program.Name != "ours":
				t.Skip("the reference does not survive this")
			case *rewrite:
				record(t, program, path)
			case isPending:
				mustFail(t, program, path, need)
			default:
				if err := replay(t, program, path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for name := range pending {
		t.Errorf("pending.txt lists %s, which does not exist", name)
	}
}

// TestReference replays every transcript against the reference: what is
// written is what it says. With TestTranscripts, which compares ours with the
// same lines, this is the side-by-side run of all of them.
func TestReference(t *testing.T) {
	if *rewrite || *under != "" {
		t.Skip("TestTranscripts talks to the daemon that was asked for")
	}
	program := daemon.Reference(t)
	for _, path := range all(t) {
		if strings.HasPrefix(nameOf(path), survives) {
			continue
		}
		t.Run(nameOf(path), func(t *testing.T) {
			t.Parallel()
			err := replay(t, program, path)
			for tries := 1; err != nil && tries < attempts; tries++ {
				t.Logf("once more: %v", err)
				err = replay(t, program, path)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// attempts is how often the reference may try: it has races of its own, and
// now and then dies of one when it ends.
const attempts = 3

func chosen(t *testing.T) *daemon.Program {
	t.Helper()
	switch {
	case *under == "reference" || *under == "" && *rewrite:
		return daemon.Reference(t)
	case *under != "" && *under != "ours":
		return daemon.At(*under)
	}
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	program, err := daemon.Ours(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// all lists the transcripts.
func all(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir("testdata", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".qmp") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// nameOf is AREA/NAME.
func nameOf(path string) string {
	return strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(path), "testdata/"), ".qmp")
}

// loadPending reads the list of transcripts that use what does not exist yet:
// NAME, blanks, what it waits for.
func loadPending(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "pending.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pending := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, need, ok := strings.Cut(line, " ")
		if !ok {
			t.Errorf("pending.txt does not say what %s needs", name)
		}
		pending[name] = strings.TrimSpace(need)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return pending
}

func load(t *testing.T, path string) *transcript.File {
	t.Helper()
	f, err := transcript.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if tool := transcript.Lacks(f); tool != "" {
		daemon.Missing(t, "this transcript needs "+tool)
	}
	return f
}

func player(t *testing.T, program *daemon.Program) *transcript.Player {
	t.Helper()
	// t.TempDir would make socket paths too long.
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &transcript.Player{Program: program, Dir: dir}
}

func replay(t *testing.T, program *daemon.Program, path string) error {
	t.Helper()
	f := load(t, path)
	err := player(t, program).Replay(f)
	if errors.Is(err, transcript.ErrSkip) {
		t.Skip(err)
	}
	return err
}

func mustFail(t *testing.T, program *daemon.Program, path, need string) {
	t.Helper()
	err := replay(t, program, path)
	if err == nil {
		t.Fatalf("it passes: take it off the list in pending.txt (there it needs: %s)", need)
	}
	t.Logf("pending, needs %s", need)
}

func record(t *testing.T, program *daemon.Program, path string) {
	t.Helper()
	f := load(t, path)
	if err := player(t, program).Record(f); err != nil {
		if errors.Is(err, transcript.ErrSkip) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(f.Format()), 0o644); err != nil {
		t.Fatal(err)
	}
}
