package docs

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

const module = "github.com/qmpblock/qmpblock/"

// TestRooms compares the picture of the rooms in docs/architecture.md with
// the imports: every arrow is a dependency, and every import between two rooms
// follows arrows downwards.
func TestRooms(t *testing.T) {
	t.Parallel()
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	arrows := picture(t, filepath.Join(root, "docs", "architecture.md"))
	imports := importsOf(t, root)
	for from, tos := range arrows {
		if imports[from] == nil {
			t.Errorf("there is no room %s", from)
		}
		for to := range tos {
			if !reaches(imports, from, to) {
				t.Errorf("the picture has an arrow from %s to %s, which it does not use", from, to)
			}
		}
	}
	for from := range arrows {
		for to := range imports[from] {
			if _, drawn := arrows[to]; drawn && !reaches(arrows, from, to) {
				t.Errorf("%s imports %s, which no arrow of the picture says", from, to)
			}
		}
	}
}

// edges lead from a package to those below it.
type edges map[string]map[string]bool

func (e edges) add(from, to string) {
	if e[from] == nil {
		e[from] = map[string]bool{}
	}
	if to != "" {
		e[from][to] = true
	}
}

func reaches(e edges, from, to string) bool {
	if e[from][to] {
		return true
	}
	for next := range e[from] {
		if reaches(e, next, to) {
			return true
		}
	}
	return false
}

var (
	roomLine  = regexp.MustCompile(`^(\w+)\["(\S+) — `)
	arrowLine = regexp.MustCompile(`^(\w+) --> (.*)$`)
)

// picture reads the arrows; rooms are called by the package that their label
// begins with.
func picture(t *testing.T, path string) edges {
	t.Helper()
	e, packages := edges{}, map[string]string{}
	for _, b := range readPage(t, path).blocks {
		if b.info != "mermaid" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line = strings.TrimSpace(line)
			if m := roomLine.FindStringSubmatch(line); m != nil {
				packages[m[1]] = m[2]
				e.add(m[2], "")
			}
			if m := arrowLine.FindStringSubmatch(line); m != nil {
				for to := range strings.SplitSeq(m[2], " & ") {
					e.add(packages[m[1]], packages[to])
				}
			}
		}
	}
	if len(e) == 0 {
		t.Fatal("there is no picture")
	}
	return e
}

// importsOf lists the imports within the module, tests apart.
func importsOf(t *testing.T, root string) edges {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	e := edges{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		from := strings.TrimPrefix(words[0], module)
		e.add(from, "")
		for _, word := range words[1:] {
			if to, ours := strings.CutPrefix(word, module); ours {
				e.add(from, to)
			}
		}
	}
	return e
}
