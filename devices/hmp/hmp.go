// Package hmp reads the arguments of commands of the human monitor.
//
// A command's parameters come in a fixed order: flags, then words, the last of
// which may be missing. A word ends at white space or stands in double quotes,
// inside which \n, \r, \\, \' and \" are escapes. A flag that is not there is
// no error, one in the wrong place is taken for a word.
package hmp

import (
	"fmt"
	"io"
	"strings"
)

// Kind is what a parameter looks like.
type Kind uint8

// The kinds of parameters.
const (
	Flag   Kind = iota // a dash and a letter
	Device             // the name of a block device
	String
)

// Param is one parameter of a command.
type Param struct {
	Kind Kind
	// Name finds the value among the parsed ones; that of a flag is its letter.
	Name     string
	Optional bool
}

// Args are parsed arguments by name; a flag that was given has the value "".
type Args map[string]string

// Has tells whether a parameter was given.
func (a Args) Has(name string) bool {
	_, ok := a[name]
	return ok
}

// Parse reads what stands behind a command's name. If it cannot, it returns
// the monitor's reply, which ends the command. Some mistakes the reference
// reports to its standard output, here out.
func Parse(command string, params []Param, line string, out io.Writer) (args Args, reply string) {
	p := &parser{line: line, params: params, out: out, args: make(Args)}
	for i, param := range params {
		p.skipSpace()
		if mistake := p.take(i, param); mistake != "" {
			return nil, complaint(command, mistake)
		}
	}
	if p.skipSpace(); p.line != "" {
		return nil, complaint(command, "extraneous characters at the end of line\r\n")
	}
	return p.args, ""
}

func complaint(command, mistake string) string {
	words := strings.Fields(command)
	return fmt.Sprintf("%s: %sTry \"help %s\" for more information\r\n", words[len(words)-1], mistake, command)
}

type parser struct {
	line   string // the rest
	params []Param
	out    io.Writer
	args   Args
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func (p *parser) skipSpace() {
	for p.line != "" && isSpace(p.line[0]) {
		p.line = p.line[1:]
	}
}

// take reads one parameter and returns what is wrong with it.
func (p *parser) take(i int, param Param) (mistake string) {
	if param.Kind == Flag {
		return p.flag(i, param)
	}
	if param.Optional && p.line == "" {
		return ""
	}
	word, ok := p.word()
	if !ok {
		if param.Kind == Device {
			return "block device name expected\r\n"
		}
		return "string expected\r\n"
	}
	p.args[param.Name] = word
	return ""
}

func (p *parser) flag(i int, param Param) (mistake string) {
	if p.line == "" || p.line[0] != '-' {
		return ""
	}
	rest := p.line[1:]
	if strings.HasPrefix(rest, param.Name) {
		p.args[param.Name] = ""
		p.line = rest[1:]
		return ""
	}
	for _, later := range p.params[i+1:] {
		if later.Kind == Flag && strings.HasPrefix(rest, later.Name) {
			return ""
		}
	}
	if rest == "" {
		// The reference prints the end of the line, which ends the text.
		return "unsupported option -"
	}
	return "unsupported option -" + rest[:1] + "\r\n"
}

// word reads a word; ok is false if there is none or its quotes are wrong.
func (p *parser) word() (word string, ok bool) {
	if p.line == "" {
		return "", false
	}
	if p.line[0] == '"' {
		return p.quoted()
	}
	end := 0
	for end < len(p.line) && !isSpace(p.line[end]) {
		end++
	}
	word, p.line = p.line[:end], p.line[end:]
	return word, true
}

func (p *parser) quoted() (word string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(p.line); i++ {
		switch c := p.line[i]; c {
		case '"':
			p.line = p.line[i+1:]
			return b.String(), true
		case '\\':
			i++
			if i == len(p.line) {
				break
			}
			c, ok := escapes[p.line[i]]
			if !ok {
				fmt.Fprintf(p.out, "unsupported escape code: '\\%c'\n", p.line[i])
				return "", false
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	fmt.Fprintln(p.out, "unterminated string")
	return "", false
}

var escapes = map[byte]byte{'n': '\n', 'r': '\r', '\\': '\\', '\'': '\'', '"': '"'}
