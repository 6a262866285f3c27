package blkdebug

import (
	"io"
	"os"
	"strings"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// The most that is read of a line at once, of a name and of a value, in bytes;
// the rest of a line is a line of its own, and the rest of a name or value is
// ignored (observed).
const (
	maxLine  = 1023
	maxName  = 63
	maxValue = 1023
)

// blanks is what the C library takes for white space.
const blanks = " \t\n\v\f\r"

// readConfig reads rules from a file.
func readConfig(filename string, g *block.Graph) ([]*section, error) {
	f, err := g.OpenFile(filename, os.O_RDONLY)
	if err != nil {
		return nil, qerr.Prepend(err, "Could not read blkdebug config file: ")
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, qerr.Prepend(err, "Cannot read config file: ")
	}
	c := config{ids: map[string]bool{}}
	for len(text) > 0 {
		var line string
		line, text = cutLine(text)
		if err := c.line(line); err != nil {
			return nil, err
		}
	}
	return c.sections, nil
}

// cutLine cuts off a line, with its end.
func cutLine(text []byte) (line string, rest []byte) {
	n := min(len(text), maxLine)
	if end := strings.IndexByte(string(text[:n]), '\n'); end >= 0 {
		n = end + 1
	}
	line, _, _ = strings.Cut(string(text[:n]), "\x00")
	return line, text[n:]
}

// config is a file as far as it was read.
type config struct {
	sections []*section
	ids      map[string]bool // of the sections, behind their kinds
}

func (c *config) line(line string) error {
	if line == "" || line[0] == '\n' || line[0] == '#' {
		return nil
	}
	if kind, id, ok := parseHead(line); ok {
		return c.begin(kind, id)
	}
	key, value, ok := parseAssignment(line)
	switch {
	case !ok:
		return qerr.New("parse error")
	case len(c.sections) == 0:
		return qerr.New("no group defined")
	case key == "id":
		return nil // a name that comes late is none (observed)
	}
	s := c.sections[len(c.sections)-1]
	if !s.knows(key) {
		return qerr.New("Invalid parameter '%s'", key)
	}
	return s.set(key, block.StringOpt(value))
}

func (c *config) begin(kind, id string) error {
	switch {
	case sectionOptions[kind] == nil:
		return qerr.New("There is no option group '%s'", kind)
	case id != "" && !block.WellFormedID(id):
		return qerr.New("Parameter 'id' expects an identifier")
	case id != "" && c.ids[kind+" "+id]:
		return qerr.New("Duplicate ID '%s' for %s", id, kind)
	}
	c.ids[kind+" "+id] = true
	c.sections = append(c.sections, newSection(kind))
	return nil
}

// parseHead takes apart [KIND "ID"] and [KIND]. What is behind the name of
// either does not matter.
func parseHead(line string) (kind, id string, ok bool) {
	rest, ok := strings.CutPrefix(line, "[")
	if !ok {
		return "", "", false
	}
	kind, behind := cutWord(rest)
	if quoted, ok := strings.CutPrefix(strings.TrimLeft(behind, blanks), `"`); ok && kind != "" {
		if id = cutBefore(quoted, '"', maxName); id != "" {
			return kind, id, true
		}
	}
	kind = cutBefore(rest, ']', maxName)
	return kind, "", kind != ""
}

// parseAssignment takes apart KEY = "VALUE". Without all that is behind the key
// the value is empty.
func parseAssignment(line string) (key, value string, ok bool) {
	key, rest := cutWord(line)
	if rest, ok := strings.CutPrefix(strings.TrimLeft(rest, blanks), "="); ok {
		if rest, ok := strings.CutPrefix(strings.TrimLeft(rest, blanks), `"`); ok {
			value = cutBefore(rest, '"', maxValue)
		}
	}
	return key, value, key != ""
}

// cutWord cuts off the first word of at most maxName bytes.
func cutWord(s string) (word, rest string) {
	s = strings.TrimLeft(s, blanks)
	n := strings.IndexAny(s, blanks)
	if n < 0 {
		n = len(s)
	}
	n = min(n, maxName)
	return s[:n], s[n:]
}

// cutBefore is what is before a byte, at most limit bytes.
func cutBefore(s string, end byte, limit int) string {
	before, _, _ := strings.Cut(s, string(end))
	return before[:min(len(before), limit)]
}
