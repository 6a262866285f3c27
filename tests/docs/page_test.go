package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// page is a file in Markdown.
type page struct {
	blocks []block
	prose  string // everything else
}

// block is a fenced block.
type block struct {
	line int // of the fence, from 1
	info string
	text string
}

const fence = "```"

func readPage(t *testing.T, path string) page {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var p page
	var open *block
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		info, isFence := strings.CutPrefix(line, fence)
		switch {
		case isFence && open == nil:
			open = &block{line: number, info: strings.TrimSpace(info)}
		case isFence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		default:
			p.prose += line
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block has no end", path, open.line)
	}
	return p
}

// compareWithFile looks for the block's lines in a file, in their order and
// without a gap but where "…" stands. Indentation does not count.
func (s *suite) compareWithFile(t *testing.T, b block, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.root, file))
	if err != nil {
		t.Fatal(err)
	}
	have := trimmedLines(string(text))
	from := 0
	for piece := range strings.SplitSeq(strings.Join(trimmedLines(b.text), "\n"), "\n…\n") {
		at := find(have, strings.Split(piece, "\n"), from)
		if at < 0 {
			t.Fatalf("%s does not contain, from line %d on:\n%s", file, from+1, piece)
		}
		from = at
	}
}

// find returns the index behind the first occurrence of lines.
func find(have, lines []string, from int) int {
	for i := from; i+len(lines) <= len(have); i++ {
		match := true
		for k, line := range lines {
			match = match && have[i+k] == line
		}
		if match {
			return i + len(lines)
		}
	}
	return -1
}

func trimmedLines(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return lines
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noIdent = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestLinks follows the links that lead into the repository.
func TestLinks(t *testing.T) {
	t.Parallel()
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pages(t, root) {
		path := filepath.Join(root, name)
		for _, m := range link.FindAllStringSubmatch(readPage(t, path).prose, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, m[1])
			} else if anchor != "" && !hasHeading(t, target, anchor) {
				t.Errorf("%s: %s has no heading %s", name, file, anchor)
			}
		}
	}
}

// hasHeading tells whether a page has a heading that an anchor names.
func hasHeading(t *testing.T, path, anchor string) bool {
	t.Helper()
	for _, m := range heading.FindAllStringSubmatch(readPage(t, path).prose, -1) {
		plain := noIdent.ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(plain, " ", "-") == anchor {
			return true
		}
	}
	return false
}
