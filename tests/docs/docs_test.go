// Package docs checks what the documentation shows: README.md and docs/*.md.
// The first word behind a fence (three backquotes) says what the block is.
//
//	qmp               a conversation with a running "qmpblock", in the format of
//	                  tests/qmp/README.md: -> is sent, <- comes
//	jsonrpc           the same over JSON-RPC, a line each
//	console           lines with "$ " are run by the shell, those below are what
//	                  it prints; with "console server", "qmpblock" is running
//	LANGUAGE FILE     part of a file of this repository: its lines stand in it
//	text, mermaid     nothing to check
//
// Everything runs in a fresh folder, with qmpblock in PATH. The running server
// is the one without a subcommand (node disk0, device vd0); its sockets are
// qmp.sock and rpc.sock. In console output and in parts of files a line "…"
// stands for any lines, and in console output "…" within a line for any text.
// What depends on the day is not compared (transcript.Normalize).
//
// Links to files and headings of the repository must lead somewhere.
package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
	"github.com/qmpblock/qmpblock/tests/qmp/transcript"
)

// limit bounds every wait; nothing that works comes near it.
const limit = 30 * time.Second

// suite is what all examples share.
type suite struct {
	root string   // of the repository
	env  []string // with the built program in PATH
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/qmpblock")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	path := "PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH")
	return &suite{root: root, env: append(os.Environ(), path)}
}

// TestExamples runs or compares every block of every page.
func TestExamples(t *testing.T) {
	s := newSuite(t)
	for _, page := range pages(t, s.root) {
		for _, b := range readPage(t, filepath.Join(s.root, page)).blocks {
			t.Run(fmt.Sprintf("%s:%d", page, b.line), func(t *testing.T) {
				t.Parallel()
				s.check(t, page, b)
			})
		}
	}
}

func (s *suite) check(t *testing.T, page string, b block) {
	t.Helper()
	kind, rest, _ := strings.Cut(b.info, " ")
	switch {
	case kind == "text" || kind == "mermaid":
	case kind == "qmp" && rest == "":
		s.playQMP(t, page, b)
	case kind == "jsonrpc" && rest == "":
		s.playJSONRPC(t, b)
	case kind == "console":
		s.runConsole(t, b, rest == "server")
	case kind != "" && rest != "":
		s.compareWithFile(t, b, rest)
	default:
		t.Errorf("nobody knows what to do with a block %q", b.info)
	}
}

// pages are the files to check, from the root of the repository.
func pages(t *testing.T, root string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	list := []string{"README.md"}
	for _, path := range found {
		list = append(list, "docs/"+filepath.Base(path))
	}
	return list
}

// folder is where a block's programs run. Its path is short, since sockets
// live there.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// serve runs the server until the test ends.
func (s *suite) serve(t *testing.T, dir string) {
	t.Helper()
	// By "sh", which looks the name up in the PATH that the examples see.
	server, err := daemon.Start([]string{"sh", "-c", "exec qmpblock --jsonrpc unix:rpc.sock"}, dir, s.env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, socket := range []string{"qmp.sock", "rpc.sock"} {
		if err := server.AwaitSocket(filepath.Join(dir, socket), limit); err != nil {
			t.Fatalf("%v\n%s", err, server.Output())
		}
	}
}

// playQMP plays a conversation by the player of transcripts. Blank lines in
// front make its messages name the page's lines.
func (s *suite) playQMP(t *testing.T, page string, b block) {
	t.Helper()
	const prologue = "nodaemon\nconn A path=qmp.sock\n"
	text := strings.Repeat("\n", max(0, b.line-strings.Count(prologue, "\n"))) + prologue + b.text
	f, err := transcript.Parse(page, text)
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t)
	s.serve(t, dir)
	player := &transcript.Player{Program: &daemon.Program{Name: "ours", Storage: []string{"qmpblock"}}, Dir: dir}
	if err := player.Replay(f); err != nil {
		t.Error(err)
	}
}
