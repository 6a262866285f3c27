package devices_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// A script is a text file with commands, one a line, each followed by what it
// answers, indented:
//
//	device_add {"driver":"scsi-cd"}
//	    No 'SCSI' bus found for device 'scsi-cd'
//
// What the answers look like say the functions of answers_test.go. Run with
// -rewrite to record them anew from the reference.
var rewrite = flag.Bool("rewrite", false, "record the answers in testdata from the reference")

// player answers commands, line by line.
type player interface {
	play(command, args string) []string
}

const indent = "    "

func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want := read(t, file)
			if *rewrite {
				want = run(want, newReference(t))
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(run(want, newOurs(t)), "\n")); diff != "" {
				t.Errorf("answers (- wanted, + given):\n%s", diff)
			}
		})
	}
}

// TestScriptsAgainstReference shows that the answers in testdata are the
// reference's.
func TestScriptsAgainstReference(t *testing.T) {
	if testing.Short() {
		t.Skip("starts an emulator for each script")
	}
	daemon.Reference(t)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want := read(t, file)
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(run(want, newReference(t)), "\n")); diff != "" {
				t.Errorf("recorded answers (-) and the reference's (+):\n%s", diff)
			}
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

// run plays a script and returns it with the answers it got.
func run(script string, p player) string {
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		if strings.HasPrefix(line, indent) {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || line[0] == '#' {
			continue
		}
		command, args, _ := strings.Cut(line, " ")
		for _, answer := range p.play(command, args) {
			fmt.Fprintln(&out, indent+answer)
		}
	}
	return out.String()
}
