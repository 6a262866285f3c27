package qmp

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// conversations are those recorded with the reference which need no commands
// but the few this package's tests have.
var conversations = []string{
	"close-before-negotiation", "double-negotiation", "escapes", "half-close", "handshake", "ids",
	"ids-on-errors", "long-tokens", "malformed", "nesting", "not-an-object", "numbers", "oob-enabled",
	"partial-then-close", "quit", "quit-pipelined", "recovery", "recovery-ff-flush", "unicode", "whitespace",
}

func TestTranscripts(t *testing.T) {
	t.Parallel()
	for _, name := range conversations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(filepath.Join("..", "tests", "qmp", "testdata", "protocol", name+".qmp"))
			if err != nil {
				t.Fatal(err)
			}
			play(t, string(text))
		})
	}
}

// play holds a conversation; tests/qmp describes the format.
func play(t *testing.T, text string) {
	s := start(t)
	var c *client
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if c == nil && !strings.HasPrefix(line, "#") {
			c = s.dial()
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "#", "replies", "exit", "!status":
		case "->":
			c.send(rest + "\n")
		case "->raw":
			c.send(rawText(t, rest))
		case "<-", "<-[B]":
			if got := c.line(); got != rest {
				t.Fatalf("line %d:\n got %.300s\nwant %.300s", n+1, got, rest)
			}
		case "<-eof":
			c.expectEnd()
		case "close":
			_ = c.Close()
		case "conn":
			c = s.dial()
		case "shutwr":
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("line %d: what is %q?", n+1, verb)
		}
	}
}

var rawWord = regexp.MustCompile(`("(?:[^"\\]|\\.)*")(?: \* (\d+))?`)

func rawText(t *testing.T, text string) string {
	var out strings.Builder
	for _, m := range rawWord.FindAllStringSubmatch(text, -1) {
		word, err := strconv.Unquote(m[1])
		if err != nil {
			t.Fatalf("%s: %v", m[1], err)
		}
		times := 1
		if m[2] != "" {
			_, _ = fmt.Sscan(m[2], &times)
		}
		out.WriteString(strings.Repeat(word, times))
	}
	return out.String()
}

func TestPretty(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *server) { s.monitor.Pretty = true })
	c := s.dial()
	c.expect(`{`, `    "QMP": {`, `        "version": {`, `            "qemu": {`, `                "micro": 2,`,
		`                "minor": 0,`, `                "major": 10`, `            },`,
		`            "package": "Debian 1:10.0.2+ds-2+deb13u1~bpo12+1"`, `        },`,
		`        "capabilities": [`, `            "oob"`, `        ]`, `    }`, `}`)
	c.ask(`{"execute":"qmp_capabilities"}`, `{`, `    "return": {`, `    }`, `}`)
	c.ask(`{"execute":"bogus","id":{"b":[],"a":{},"c":[1,[2]]}}`,
		`{`, `    "id": {`, `        "a": {`, `        },`, `        "b": [`, `        ],`, `        "c": [`, `            1,`,
		`            [`, `                2`, `            ]`, `        ]`, `    },`, `    "error": {`,
		`        "class": "CommandNotFound",`, `        "desc": "The command bogus has not been found"`, `    }`, `}`)
}
