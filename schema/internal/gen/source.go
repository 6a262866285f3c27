package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	qapischema "github.com/digitalocean/go-qemu/qapi-schema"
)

// expr is one top-level expression of a schema file, with the documentation
// comment before it.
type expr struct {
	file string
	line int
	text string
	doc  *doc
	node qapischema.Node
}

func (e *expr) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", e.file, e.line, fmt.Sprintf(format, args...))
}

// load reads a schema file and what it includes, in the order of the text.
//
// Each expression is cut out of the file here and given to the parser alone:
// the parser keeps no comments and no positions, and stops without a word at
// the first thing it does not understand.
func load(path string) ([]*expr, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found, err := split(filepath.Base(path), string(text))
	if err != nil {
		return nil, err
	}
	var all []*expr
	for _, e := range found {
		tree, err := qapischema.Parse(e.text)
		if err != nil {
			return nil, e.errorf("%v", err)
		}
		if len(tree.Children) != 1 {
			return nil, e.errorf("no QAPI definition that the parser understands")
		}
		e.node = tree.Children[0].Node
		include, ok := e.node.(qapischema.Include)
		if !ok {
			all = append(all, e)
			continue
		}
		more, err := load(filepath.Join(filepath.Dir(path), string(include)))
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// split cuts a file into expressions and finds the documentation of each.
func split(file, text string) ([]*expr, error) {
	var (
		found   []*expr
		current strings.Builder
		start   int
		depth   int
		block   []string
		inDoc   bool
		pending *doc
	)
	for i, line := range strings.Split(text, "\n") {
		n := i + 1
		switch {
		case strings.TrimRight(line, " ") == "##":
			if inDoc = !inDoc; inDoc {
				block = nil
				continue
			}
			d, err := parseDoc(block)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", file, n, err)
			}
			pending = d
			continue
		case inDoc:
			if line != "" && line[0] != '#' {
				return nil, fmt.Errorf("%s:%d: documentation comment is not closed", file, n)
			}
			block = append(block, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
			continue
		}
		code := stripComment(line)
		if strings.TrimSpace(code) == "" {
			continue
		}
		if depth == 0 {
			start = n
		}
		depth += strings.Count(code, "{") - strings.Count(code, "}")
		current.WriteString(code)
		current.WriteByte('\n')
		if depth > 0 {
			continue
		}
		found = append(found, &expr{file: file, line: start, text: current.String(), doc: pending})
		current.Reset()
		pending = nil
	}
	if depth != 0 || inDoc {
		return nil, fmt.Errorf("%s:%d: unexpected end of file", file, start)
	}
	return found, nil
}

// stripComment drops a comment; QAPI strings are names, which have no hash.
func stripComment(line string) string {
	code, _, _ := strings.Cut(line, "#")
	return code
}
