package qemuio_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qemuio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// A script is a text file with commands, one a line, each followed by what it
// prints, indented. "; " separates commands that run in one session; every
// line is a session of its own, on the same image of 1 MiB. Run with -rewrite
// to record the answers anew from the reference.
var rewrite = flag.Bool("rewrite", false, "record the answers in testdata from the reference")

const indent = "    "

func scripts(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	return files
}

func TestScripts(t *testing.T) {
	t.Parallel()
	for _, file := range scripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want := read(t, file)
			if *rewrite {
				want = play(want, newReference(t))
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			compare(t, want, play(want, newOurs(t)))
		})
	}
}

// TestScriptsAgainstReference shows that the answers in testdata are the
// reference's.
func TestScriptsAgainstReference(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program for each line")
	}
	daemon.Reference(t)
	for _, file := range scripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want := read(t, file)
			compare(t, want, play(want, newReference(t)))
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func compare(t *testing.T, want, got string) {
	t.Helper()
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("answers (- wanted, + given):\n%s", diff)
	}
}

// play plays a script and returns it with the answers it got.
func play(script string, run func(commands []string) string) string {
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		if strings.HasPrefix(line, indent) || line == strings.TrimRight(indent, " ") && line != "" {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || line[0] == '#' {
			continue
		}
		answer := normalize(run(strings.Split(line, "; ")))
		for _, text := range strings.Split(strings.TrimSuffix(answer, "\n"), "\n") {
			if answer != "" {
				fmt.Fprintln(&out, indent+text)
			}
		}
	}
	return out.String()
}

var (
	figures = regexp.MustCompile(`(ops; ).*ops/sec\)`)
	machine = regexp.MustCompile(`(?m)^(\d+,\d+),.*$`)
	names   = regexp.MustCompile(`(node ')[^']*'`)
)

// normalize hides times and generated names.
func normalize(text string) string {
	text = figures.ReplaceAllString(text, "${1}TIME")
	text = machine.ReplaceAllString(text, "$1,TIME")
	return names.ReplaceAllString(text, "${1}NODE'")
}

// image makes the image and a file with all bytes beside it.
func image(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for name, content := range map[string][]byte{"image": nil, "all-bytes": all, "empty": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "image"), 1<<20); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inDir replaces the file names that a script uses.
func inDir(dir, command string) string {
	return strings.NewReplacer("$IMAGE", filepath.Join(dir, "image"), "$ALL", filepath.Join(dir, "all-bytes"),
		"$EMPTY", filepath.Join(dir, "empty"), "$DIR", dir).Replace(command)
}

func outOfDir(dir, text string) string {
	return strings.NewReplacer(filepath.Join(dir, "image"), "$IMAGE", filepath.Join(dir, "all-bytes"), "$ALL",
		filepath.Join(dir, "empty"), "$EMPTY", dir, "$DIR").Replace(text)
}

func newReference(t *testing.T) func(commands []string) string {
	t.Helper()
	program := filepath.Join(filepath.Dir(daemon.Reference(t).Storage[0]), "qemu-io")
	dir := image(t)
	return func(commands []string) string {
		args := []string{"-f", "raw"}
		for _, c := range commands {
			args = append(args, "-c", inDir(dir, c))
		}
		// A command that fails makes the program fail: what it prints counts.
		out, _ := exec.Command(program, append(args, filepath.Join(dir, "image"))...).CombinedOutput()
		return outOfDir(dir, strings.ReplaceAll(string(out), "qemu-io: ", ""))
	}
}

func newOurs(t *testing.T) func(commands []string) string {
	t.Helper()
	dir := image(t)
	bench := drivertest.New(t, file.Driver(), raw.Driver(), null.Co())
	return func(commands []string) string {
		n := bench.Add(`{"driver":"raw","node-name":"r","discard":"unmap","file":{"driver":"file","filename":"` + filepath.Join(dir, "image") + `"}}`)
		defer bench.Delete("r")
		var out strings.Builder
		bench.Main(func(l *aio.Lock) {
			blk := bench.Graph.NewBackend("", block.PermConsistentRead|block.PermWrite, block.PermAll)
			defer blk.Close(l)
			if err := blk.Insert(l, n); err != nil {
				t.Fatal(err)
			}
			s := qemuio.New(blk, &out)
			defer s.Close(l)
			for _, c := range commands {
				if err := s.Run(l, inDir(dir, c)); err != nil {
					io.WriteString(&out, err.Error()+"\n"+qerr.From(err).Hint)
				}
			}
		})
		return outOfDir(dir, out.String())
	}
}
