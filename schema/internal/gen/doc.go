package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// doc is the documentation of one definition (qapi-code-gen.rst, "Definition
// documentation").
type doc struct {
	symbol   string
	text     string
	members  map[string]*entry
	features map[string]*entry
	returns  string
	since    version
}

// entry describes a member, value, alternative or feature.
type entry struct {
	text  string
	since version
	used  bool
}

// version is a release of QEMU, major<<8 | minor; 0 is "not said".
type version uint16

var (
	entryStart = regexp.MustCompile(`^@([\w.-]+):(?: (.*))?$`)
	sinceWords = regexp.MustCompile(`\(since (\d+)\.(\d+)\)`)
	sinceTag   = regexp.MustCompile(`^Since: (\d+)\.(\d+)$`)
)

func makeVersion(major, minor string) version {
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	return version(a<<8 | b)
}

// parseDoc reads the lines of a documentation comment, comment signs removed.
// Free-form comments give nil.
func parseDoc(lines []string) (*doc, error) {
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "@") {
		return nil, nil
	}
	m := entryStart.FindStringSubmatch(lines[0])
	if m == nil || m[2] != "" {
		return nil, fmt.Errorf("bad first line of documentation %q", lines[0])
	}
	d := &doc{symbol: m[1], members: map[string]*entry{}, features: map[string]*entry{}}
	section := &d.text
	entries := d.members
	var all []*entry
	for _, line := range lines[1:] {
		if m := entryStart.FindStringSubmatch(line); m != nil {
			if entries[m[1]] != nil {
				return nil, fmt.Errorf("@%s is described twice", m[1])
			}
			e := &entry{text: m[2]}
			entries[m[1]] = e
			all = append(all, e)
			section = &e.text
			continue
		}
		if m := sinceTag.FindStringSubmatch(line); m != nil {
			d.since = makeVersion(m[1], m[2])
			continue
		}
		if line == "Features:" {
			entries = d.features
			continue
		}
		if text, ok := strings.CutPrefix(line, "Returns: "); ok {
			d.returns = text
			section = &d.returns
			continue
		}
		appendLine(section, line)
	}
	for _, e := range all {
		e.text = strings.TrimSpace(e.text)
		if m := sinceWords.FindStringSubmatch(e.text); m != nil {
			e.since = makeVersion(m[1], m[2])
		}
	}
	d.text = strings.TrimSpace(d.text)
	d.returns = strings.TrimSpace(d.returns)
	return d, nil
}

// appendLine adds a line to a paragraph; an empty one starts a new paragraph.
func appendLine(text *string, line string) {
	line = strings.TrimSpace(line)
	switch {
	case line == "" && *text != "" && !strings.HasSuffix(*text, "\n\n"):
		*text += "\n\n"
	case line == "":
	case *text == "" || strings.HasSuffix(*text, "\n\n"):
		*text += line
	default:
		*text += " " + line
	}
}
