// Package transcript reads, plays and records conversations with a daemon.
//
// A transcript is a text file that a person reads from top to bottom: what is
// done, and below it what came back. [Parse] turns it into steps, a [Player]
// performs them against a daemon and either compares what comes with what is
// written ([Player.Replay]) or writes it down ([Player.Record]). The format is
// described in README.md one folder up.
package transcript

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// File is a parsed transcript.
type File struct {
	Name  string // for messages
	Steps []*Step
}

// Step is one directive and what is expected of it.
type Step struct {
	Line int    // where it is written, from 1
	Text string // as it is written; "" for the daemon's start, which is implied
	Verb string // "->", "!", "wait", …; "#" for comments and blank lines, "start"
	Rest string // what follows the verb

	Expect []Expect
}

// Expect is one line of what comes back.
type Expect struct {
	Kind ExpectKind
	Conn string // of messages: the connection
	Text string
}

// ExpectKind tells expectations apart.
type ExpectKind int

const (
	Message ExpectKind = iota // <- a line on a connection
	EOF                       // <-eof the daemon closed the connection
	Output                    // !> a line of a command's output
	Status                    // !status N
)

// main is the connection that is there without saying so.
const main = "A"

// String writes the line as it stands in a transcript.
func (e Expect) String() string {
	tag := "<-"
	if e.Conn != main {
		tag += "[" + e.Conn + "]"
	}
	switch e.Kind {
	case EOF:
		return tag + "eof"
	case Output:
		if e.Text == "" {
			return "!>"
		}
		return "!> " + e.Text
	case Status:
		return "!status " + e.Text
	}
	return tag + " " + e.Text
}

// prologue lists the verbs that come before the daemon's start.
var prologue = map[string]bool{
	"#": true, "!": true, "args": true, "monitor": true, "nodaemon": true, "system": true,
	"bg": true, "waitfile": true, "race": true, "loose-events": true, "need": true, "listen": true, "locks": true,
}

var verbs = map[string]bool{
	"->": true, "->>": true, "->raw": true, "wait": true, "replies": true, "idle": true,
	"conn": true, "accept": true, "close": true, "shutwr": true, "signal": true, "exit": true, "cli": true,
	"bgkill": true, "bgwait": true, "fd": true, "io": true,
}

// Load parses a file.
func Load(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, string(text))
}

// Parse reads a transcript. The daemon's start becomes a step of its own, in
// front of the first line that needs it.
func Parse(name, text string) (*File, error) {
	f := &File{Name: name}
	started := false
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		expect, isExpect := parseExpect(line)
		step := parseStep(line, i+1)
		if !isExpect && !prologue[step.Verb] && !verbs[step.Verb] {
			return nil, fmt.Errorf("%s:%d: unknown directive: %s", name, i+1, line)
		}
		switch {
		case !isExpect && step.Verb == "nodaemon":
			started = true
		case started:
		case isExpect && f.ownsOutput(expect):
		case isExpect || !prologue[step.Verb]:
			started = true
			f.Steps = append(f.Steps, &Step{Line: i + 1, Verb: "start"})
		}
		if !isExpect {
			f.Steps = append(f.Steps, step)
			continue
		}
		last := f.lastDirective()
		last.Expect = append(last.Expect, expect)
	}
	return f, nil
}

// ownsOutput tells whether a line before the daemon's start belongs to the
// command above it rather than to the daemon.
func (f *File) ownsOutput(e Expect) bool {
	if e.Kind != Output && e.Kind != Status {
		return false
	}
	last := f.lastDirective()
	return last != nil && (last.Verb == "!" || last.Verb == "locks")
}

func (f *File) lastDirective() *Step {
	for i := len(f.Steps) - 1; i >= 0; i-- {
		if f.Steps[i].Verb != "#" {
			return f.Steps[i]
		}
	}
	return nil
}

var messageLine = regexp.MustCompile(`^<-(?:\[(\w+)\])?(eof$| |$)(.*)$`)

func parseExpect(line string) (Expect, bool) {
	if m := messageLine.FindStringSubmatch(line); m != nil {
		e := Expect{Kind: Message, Conn: m[1], Text: m[3]}
		if e.Conn == "" {
			e.Conn = main
		}
		if m[2] == "eof" {
			e.Kind = EOF
		}
		return e, true
	}
	if text, ok := strings.CutPrefix(line, "!>"); ok {
		return Expect{Kind: Output, Conn: main, Text: strings.TrimPrefix(text, " ")}, true
	}
	if text, ok := strings.CutPrefix(line, "!status "); ok {
		return Expect{Kind: Status, Conn: main, Text: text}, true
	}
	return Expect{}, false
}

func parseStep(line string, number int) *Step {
	s := &Step{Line: number, Text: line}
	switch {
	case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		s.Verb = "#"
	case strings.HasPrefix(line, "!"):
		s.Verb, s.Rest = "!", strings.TrimSpace(line[1:])
	default:
		s.Verb, s.Rest, _ = strings.Cut(line, " ")
	}
	return s
}

// Format writes the transcript as a text.
func (f *File) Format() string {
	var b strings.Builder
	for _, s := range f.Steps {
		if s.Verb != "start" {
			b.WriteString(s.Text + "\n")
		}
		for _, e := range s.Expect {
			b.WriteString(e.String() + "\n")
		}
	}
	return b.String()
}

var toolName = regexp.MustCompile(`\b(qemu-img|qemu-io|qemu-nbd|python3|socat|losetup)\b`)

// Tools lists the programs which the transcript's shell commands need and
// which a machine may lack.
func (f *File) Tools() []string {
	seen := map[string]bool{}
	var tools []string
	for _, s := range f.Steps {
		if s.Verb != "!" && s.Verb != "bg" {
			continue
		}
		for _, name := range toolName.FindAllString(s.Rest, -1) {
			if !seen[name] {
				seen[name] = true
				tools = append(tools, name)
			}
		}
	}
	return tools
}

// UsesSystem tells whether the conversation is one with the system emulator.
func (f *File) UsesSystem() bool {
	for _, s := range f.Steps {
		if s.Verb == "system" {
			return true
		}
	}
	return false
}
