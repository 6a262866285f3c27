package reference

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var rewritePairs = flag.Bool("rewrite", false, "record the table of operations anew, from the reference")

// pairsTable is what the reference answers: FIRST, SECOND and the answer.
const pairsTable = "testdata/pairs.txt"

// dies stands in the table where the reference gives no answer: there is none to
// compare with.
const dies = "(it dies)"

// operation is one thing to do to a chain of five images n0 … n4, with an
// export e of n4, an overlay o and a target t beside them, and bitmaps b of n2
// and n4.
type operation struct{ name, request string }

func do(name, command, arguments string) operation {
	return operation{name, fmt.Sprintf(`{"execute": %q, "arguments": {%s}}`, command, arguments)}
}

// jobs are the operations that last; JOB is the job's name.
var jobs = []operation{
	do("stream n4", "block-stream", `"job-id": "JOB", "device": "n4", "speed": 1`),
	do("stream n4 over n2", "block-stream", `"job-id": "JOB", "device": "n4", "base-node": "n2", "speed": 1`),
	do("stream n3 to n2", "block-stream", `"job-id": "JOB", "device": "n3", "bottom": "n2", "speed": 1`),
	do("stream n2", "block-stream", `"job-id": "JOB", "device": "n2", "speed": 1`),
	do("commit n3 to n2", "block-commit", `"job-id": "JOB", "device": "n4", "top-node": "n3", "base-node": "n2", "speed": 1`),
	do("commit n3 to n0", "block-commit", `"job-id": "JOB", "device": "n4", "top-node": "n3", "base-node": "n0", "speed": 1`),
	do("commit n2 to n1", "block-commit", `"job-id": "JOB", "device": "n4", "top-node": "n2", "base-node": "n1", "speed": 1`),
	do("commit n1 to n0", "block-commit", `"job-id": "JOB", "device": "n4", "top-node": "n1", "base-node": "n0", "speed": 1`),
	do("commit n4 to n3", "block-commit", `"job-id": "JOB", "device": "n4", "base-node": "n3", "speed": 1`),
	do("commit n4 to n1", "block-commit", `"job-id": "JOB", "device": "n4", "base-node": "n1", "speed": 1`),
	do("mirror n4", "blockdev-mirror", `"job-id": "JOB", "device": "n4", "target": "t", "sync": "full", "speed": 1`),
	do("mirror n4 top", "blockdev-mirror", `"job-id": "JOB", "device": "n4", "target": "t", "sync": "top", "speed": 1, "copy-mode": "write-blocking"`),
	do("backup n4", "blockdev-backup", `"job-id": "JOB", "device": "n4", "target": "t", "sync": "full", "speed": 1`),
	do("backup n2", "blockdev-backup", `"job-id": "JOB", "device": "n2", "target": "t", "sync": "top", "speed": 1`),
}

// changes are those that are done at once.
var changes = []operation{
	do("snapshot-sync n4", "blockdev-snapshot-sync", `"node-name": "n4", "snapshot-file": "s.qcow2", "snapshot-node-name": "s"`),
	do("snapshot-sync n2", "blockdev-snapshot-sync", `"node-name": "n2", "snapshot-file": "s.qcow2", "snapshot-node-name": "s"`),
	do("snapshot n4", "blockdev-snapshot", `"node": "n4", "overlay": "o"`),
	do("snapshot n3", "blockdev-snapshot", `"node": "n3", "overlay": "o"`),
	do("snapshot-internal n4", "blockdev-snapshot-internal-sync", `"device": "n4", "name": "i"`),
	do("snapshot-internal n2", "blockdev-snapshot-internal-sync", `"device": "n2", "name": "i"`),
	do("resize n4", "block_resize", `"node-name": "n4", "size": 2097152`),
	do("resize n2", "block_resize", `"node-name": "n2", "size": 2097152`),
	do("resize n0", "block_resize", `"node-name": "n0", "size": 2097152`),
	do("reopen n4", "blockdev-reopen", `"options": [{"driver": "qcow2", "node-name": "n4", "file": "f4", "backing": "n3"}]`),
	do("reopen n4 over n1", "blockdev-reopen", `"options": [{"driver": "qcow2", "node-name": "n4", "file": "f4", "backing": "n1"}]`),
	do("reopen n3 over n0", "blockdev-reopen", `"options": [{"driver": "qcow2", "node-name": "n3", "file": "f3", "backing": "n0"}]`),
	do("reopen n2 read-only", "blockdev-reopen", `"options": [{"driver": "qcow2", "node-name": "n2", "file": "f2", "backing": "n1", "read-only": true}]`),
	do("reopen n1 over nothing", "blockdev-reopen", `"options": [{"driver": "qcow2", "node-name": "n1", "file": "f1", "backing": null}]`),
	do("change-backing-file n4", "change-backing-file", `"device": "n4", "image-node-name": "n4", "backing-file": "n3.qcow2"`),
	do("change-backing-file n2", "change-backing-file", `"device": "n4", "image-node-name": "n2", "backing-file": "n1.qcow2"`),
	do("bitmap-add n4", "block-dirty-bitmap-add", `"node": "n4", "name": "x", "persistent": true`),
	do("bitmap-remove n4", "block-dirty-bitmap-remove", `"node": "n4", "name": "b"`),
	do("bitmap-remove n2", "block-dirty-bitmap-remove", `"node": "n2", "name": "b"`),
	do("bitmap-clear n2", "block-dirty-bitmap-clear", `"node": "n2", "name": "b"`),
	do("bitmap-merge n4", "block-dirty-bitmap-merge", `"node": "n4", "target": "b", "bitmaps": ["b"]`),
	do("del n4", "blockdev-del", `"node-name": "n4"`),
	do("del n2", "blockdev-del", `"node-name": "n2"`),
	do("del t", "blockdev-del", `"node-name": "t"`),
	do("add over n2", "blockdev-add", `"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "o2.qcow2"}, "backing": "n2"`),
	do("filter over n2", "blockdev-add", `"driver": "copy-on-read", "node-name": "x", "file": "n2"`),
	do("export n4", "block-export-add", `"type": "nbd", "id": "x", "node-name": "n4", "name": "x"`),
	do("export n2 writable", "block-export-add", `"type": "nbd", "id": "x", "node-name": "n2", "name": "x", "writable": true`),
	do("export n0", "block-export-add", `"type": "nbd", "id": "x", "node-name": "n0", "name": "x"`),
	do("export-del", "block-export-del", `"id": "e"`),
	do("threshold n4", "block-set-write-threshold", `"node-name": "n4", "write-threshold": 1`),
	do("inactive n4", "blockdev-set-active", `"node-name": "n4", "active": false`),
	do("cancel", "job-cancel", `"id": "JOB1"`),
	do("set-speed", "block-job-set-speed", `"device": "JOB1", "speed": 0`),
	do("pause", "job-pause", `"id": "JOB1"`),
}

// makeChain makes the images once; daemons get copies.
func makeChain(t *testing.T) (dir string) {
	t.Helper()
	for _, tool := range []string{"qemu-img", "qemu-io"} {
		if _, err := exec.LookPath(tool); err != nil {
			daemon.Missing(t, "no "+tool)
		}
	}
	dir = t.TempDir()
	script := "set -e\nqemu-img create -q -f qcow2 n0.qcow2 1M\n"
	for n := 1; n < 5; n++ {
		script += fmt.Sprintf("qemu-img create -q -f qcow2 -b n%d.qcow2 -F qcow2 n%d.qcow2 1M\n", n-1, n)
	}
	for n := range 5 {
		script += fmt.Sprintf("qemu-io -c 'write -q -P %d %dk 128k' -c 'write -q -P %d 640k 192k' n%d.qcow2\n", n+1, n*64, n+1, n)
	}
	script += "qemu-img create -q -f qcow2 o.qcow2 1M\nqemu-img create -q -f qcow2 -u -b n2.qcow2 -F qcow2 o2.qcow2 1M\nqemu-img create -q -f qcow2 t.qcow2 1M\ntruncate -s 1M r.raw u.raw\n"
	sh := exec.Command("sh", "-c", script)
	sh.Dir = dir
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// openChain starts a daemon and opens the chain in it. Rules are of injectors over
// files, by the names of their nodes.
func openChain(program *daemon.Program, images string, rules map[string]string) (*side, error) {
	s, err := start(program)
	if err != nil {
		return nil, err
	}
	if err := s.openChain(images, rules); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *side) openChain(images string, rules map[string]string) error {
	if err := os.CopyFS(s.dir, os.DirFS(images)); err != nil {
		return err
	}
	requests := []string{`{"execute": "qmp_capabilities"}`}
	add := func(name, node, rest string) {
		file := fmt.Sprintf(`"driver": "file", "filename": "%s.qcow2"`, name)
		if rule := rules[node]; rule != "" {
			file = fmt.Sprintf(`"driver": "blkdebug", "image": {%s}, "inject-error": [{%s}]`, file, rule)
		}
		requests = append(requests, fmt.Sprintf(`{"execute": "blockdev-add", "arguments": {"driver": "qcow2", "node-name": %q, `+
			`"file": {"node-name": %q, %s}, "backing": %s}}`, name, node, file, rest))
	}
	add("n0", "f0", "null")
	for n := 1; n < 5; n++ {
		add(fmt.Sprintf("n%d", n), fmt.Sprintf("f%d", n), fmt.Sprintf(`"n%d"`, n-1))
	}
	add("o", "fo", "null")
	add("t", "ft", "null")
	requests = append(requests,
		`{"execute": "nbd-server-start", "arguments": {"addr": {"type": "unix", "data": {"path": "n.sock"}}}}`,
		`{"execute": "block-export-add", "arguments": {"type": "nbd", "id": "e", "node-name": "n4", "writable": true}}`,
		`{"execute": "block-dirty-bitmap-add", "arguments": {"node": "n2", "name": "b"}}`,
		`{"execute": "block-dirty-bitmap-add", "arguments": {"node": "n4", "name": "b"}}`)
	for _, r := range requests {
		answer, err := s.answer(r)
		if err != nil {
			return err
		}
		if answer != "ok" {
			return fmt.Errorf("%s: %s", r, answer)
		}
	}
	return nil
}

// unnamed are names that daemons make up.
var unnamed = regexp.MustCompile(`#block\d+`)

// answer is what comes for a request: "ok" or the error.
func (s *side) answer(request string) (string, error) {
	lines, err := s.exchange(item{pieces: []string{request + "\n"}})
	if err != nil {
		return "", fmt.Errorf("%s: %w", request, err)
	}
	for _, line := range lines {
		v, err := qjson.Parse([]byte(line))
		switch {
		case err != nil:
			return "", fmt.Errorf("%s: %w", line, err)
		case v.Get("return").Exists():
			return "ok", nil
		case v.Get("error").Exists():
			return unnamed.ReplaceAllString(v.Get("error").Get("desc").Str(), "#block"), nil
		}
	}
	return "", fmt.Errorf("%s: no answer in %q", request, lines)
}

// quit ends the daemon, which must still be able to.
func (s *side) quit() error {
	if _, err := s.conn.Write([]byte("{\"execute\": \"quit\"}\n")); err != nil {
		return err
	}
	status, err := s.process.Wait(replyLimit)
	if err == nil && status != 0 {
		err = fmt.Errorf("exit status %d\n%s", status, s.process.Output())
	}
	return err
}

// stacks is where our daemon hangs; it ends with that.
func (s *side) stacks() string {
	_ = s.process.Signal(syscall.SIGQUIT)
	_, _ = s.process.Wait(replyLimit)
	return s.process.Output()
}

func (o operation) as(job string) string {
	return strings.ReplaceAll(strings.ReplaceAll(o.request, "JOB1", "first"), "JOB", job)
}

// playFirst does one operation and, while it lasts, all the others, each as if
// it were the only one: what was refused has changed nothing. It returns the
// lines of the table.
func playFirst(program *daemon.Program, images string, first operation) (lines []string, err error) {
	ours := program.Name == "ours"
	var s *side
	defer func() {
		if s != nil {
			s.close()
		}
	}()
	for _, second := range append(jobs[:len(jobs):len(jobs)], changes...) {
		if s == nil {
			if s, err = openChain(program, images, nil); err != nil {
				return nil, err
			}
			answer, err := s.answer(first.as("first"))
			if err != nil {
				return nil, err
			}
			if answer != "ok" {
				return nil, fmt.Errorf("%s alone: %s", first.name, answer)
			}
		}
		answer, err := s.answer(second.as("second"))
		if err != nil && ours {
			return nil, fmt.Errorf("%s | %s: %w\n%s", first.name, second.name, err, s.stacks())
		}
		if err != nil {
			answer = dies
		}
		lines = append(lines, fmt.Sprintf("%s | %s | %s", first.name, second.name, answer))
		if answer == "ok" || answer == dies {
			// The reference may die of it (observed: a snapshot over a backup).
			if err := s.quit(); err != nil && ours {
				return nil, fmt.Errorf("%s | %s: quitting: %w\n%s", first.name, second.name, err, s.stacks())
			}
			s.close()
			s = nil
		}
	}
	return lines, nil
}

// TestPairs: of two operations on one chain the second one works or is refused
// in the reference's words, and nothing hangs. The table has what the reference says;
// GOFLAGS=-race looks for races in our daemon besides.
func TestPairs(t *testing.T) {
	t.Parallel()
	images := makeChain(t)
	if *rewritePairs {
		recordPairs(t, images)
		return
	}
	table, err := os.ReadFile(pairsTable)
	if err != nil {
		t.Fatal(err)
	}
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := daemon.Ours(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range jobs {
		t.Run(first.name, func(t *testing.T) {
			t.Parallel()
			comparePairs(t, ours, images, first, string(table))
		})
	}
}

// TestPairsOfReference: the table is what the reference says.
func TestPairsOfReference(t *testing.T) {
	t.Parallel()
	if *rewritePairs || daemon.Race {
		t.Skip("the table is recorded, or races are looked for, in ours")
	}
	program := daemon.Reference(t)
	images := makeChain(t)
	table, err := os.ReadFile(pairsTable)
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range jobs {
		t.Run(first.name, func(t *testing.T) {
			t.Parallel()
			comparePairs(t, program, images, first, string(table))
		})
	}
}

func comparePairs(t *testing.T, program *daemon.Program, images string, first operation, table string) {
	t.Helper()
	came, err := playFirst(program, images, first)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range came {
		if !strings.Contains(table, line+"\n") {
			pair := line[:strings.LastIndex(line, " | ")+3]
			_, rest, _ := strings.Cut(table, pair)
			want, _, _ := strings.Cut(rest, "\n")
			if want == dies {
				continue
			}
			t.Errorf("%s\n  the table says: %s", line, want)
		}
	}
}

func recordPairs(t *testing.T, images string) {
	t.Helper()
	program := daemon.Reference(t)
	var b strings.Builder
	b.WriteString("# What the reference answers to the second of two operations on a chain; see pairs_test.go.\n")
	for _, first := range jobs {
		lines, err := playFirst(program, images, first)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(strings.Join(lines, "\n") + "\n")
	}
	if err := os.WriteFile(filepath.FromSlash(pairsTable), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
