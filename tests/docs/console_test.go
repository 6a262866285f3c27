package docs

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
	"github.com/qmpblock/qmpblock/tests/qmp/transcript"
)

// tools are programs that examples may use and a machine may lack.
var tools = regexp.MustCompile(`\b(socat|qemu-img|qemu-io|jq)\b`)

// runConsole runs the commands of a block and compares what they print.
func (s *suite) runConsole(t *testing.T, b block, server bool) {
	t.Helper()
	for _, tool := range tools.FindAllString(b.text, -1) {
		if _, err := exec.LookPath(tool); err != nil {
			daemon.Missing(t, "this example needs "+tool)
		}
	}
	dir := folder(t)
	if server {
		s.serve(t, dir)
	}
	commands := strings.Split("\n"+b.text, "\n$ ")
	if strings.TrimSpace(commands[0]) != "" {
		t.Fatalf("line %d: the block does not begin with a command", b.line)
	}
	for _, c := range commands[1:] {
		command, want, _ := strings.Cut(c, "\n")
		got := s.shell(t, dir, command)
		if !matches(want, got) {
			t.Errorf("$ %s\nawaited:\n%s\ngot:\n%s", command, want, got)
		}
	}
}

func (s *suite) shell(t *testing.T, dir, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-c", command)
	c.Dir, c.Env = dir, s.env
	out, err := c.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("$ %s: %v\n%s", command, err, out)
	}
	return string(out)
}

// matches compares line by line; "…" stands for any lines or any text.
func matches(want, got string) bool {
	var pattern strings.Builder
	pattern.WriteString("^")
	for line := range strings.Lines(normalize(want)) {
		if line == "…\n" {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
	}
	pattern.WriteString("$")
	return regexp.MustCompile(pattern.String()).MatchString(normalize(got))
}

// normalize ends every line, that of an empty text excepted, and evens out
// what depends on the day.
func normalize(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = transcript.Normalize(strings.TrimSuffix(line, "\r"))
	}
	return strings.Join(lines, "\n") + "\n"
}
