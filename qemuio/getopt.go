package qemuio

import "strings"

// options reads a command's options as GNU getopt does: anywhere among the
// words, several letters behind one dash, the value of an option in the same
// word or the next; "--" ends them.
type options struct {
	s     *Session
	c     *command
	name  string // as the user typed it
	spec  string // letters, each with a colon behind it if it takes a value
	words []string
	group string // letters left of the word at hand
	// rest are the words that are no options.
	rest []string
	// bad says that there was a mistake, which has been printed.
	bad bool
}

func (s *Session) options(argv []string, spec string) *options {
	return &options{s: s, c: findCommand(argv[0]), name: argv[0], spec: spec, words: argv[1:]}
}

// next returns the next option with its value; ok is false when there are no
// more, or after a mistake.
func (o *options) next() (letter byte, value string, ok bool) {
	for o.group == "" {
		if len(o.words) == 0 {
			return 0, "", false
		}
		word := o.words[0]
		o.words = o.words[1:]
		switch {
		case word == "--":
			o.rest = append(o.rest, o.words...)
			o.words = nil
		case len(word) > 1 && word[0] == '-':
			o.group = word[1:]
		default:
			o.rest = append(o.rest, word)
		}
	}
	letter, o.group = o.group[0], o.group[1:]
	at := strings.IndexByte(o.spec, letter)
	if at < 0 || letter == ':' {
		return 0, "", o.mistake("invalid option -- '%c'", letter)
	}
	if at+1 == len(o.spec) || o.spec[at+1] != ':' {
		return letter, "", true
	}
	value, o.group = o.group, ""
	if value == "" {
		if len(o.words) == 0 {
			return 0, "", o.mistake("option requires an argument -- '%c'", letter)
		}
		value, o.words = o.words[0], o.words[1:]
	}
	return letter, value, true
}

func (o *options) mistake(format string, letter byte) bool {
	o.bad = true
	o.s.printf(o.name+": "+format+"\n", letter)
	o.s.usage(o.c)
	return false
}

// count checks the number of words that are no options; it prints the usage
// if it is wrong. max may be anyNumber.
func (o *options) count(min, max int) bool {
	n := len(o.rest)
	if n >= min && (n <= max || max == anyNumber) {
		return true
	}
	o.s.usage(o.c)
	return false
}

func (s *Session) usage(c *command) { s.print(c.usage(c.name)) }
