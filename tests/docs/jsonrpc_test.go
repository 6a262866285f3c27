package docs

import (
	"bufio"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/transcript"
)

var timestamp = regexp.MustCompile(`"(seconds|microseconds)":\d+`)

// timeless is a message without what depends on the day.
func timeless(message string) string {
	return transcript.Normalize(timestamp.ReplaceAllString(message, `"$1":0`))
}

// playJSONRPC plays a conversation, a message each line.
func (s *suite) playJSONRPC(t *testing.T, b block) {
	t.Helper()
	dir := folder(t)
	s.serve(t, dir)
	c, err := net.Dial("unix", filepath.Join(dir, "rpc.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(c)
	in.Buffer(nil, 1<<24)
	for line := range strings.Lines(b.text) {
		direction, message, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch direction {
		case "->":
			if _, err := c.Write([]byte(message + "\n")); err != nil {
				t.Fatal(err)
			}
		case "<-":
			if !in.Scan() {
				t.Fatalf("awaited: %s\ncame:    the end (%v)", message, in.Err())
			}
			if timeless(in.Text()) != timeless(message) {
				t.Fatalf("awaited: %s\ncame:    %s", message, in.Text())
			}
		default:
			t.Fatalf("line %d: neither -> nor <-: %s", b.line, line)
		}
	}
}
