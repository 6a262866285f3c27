package control_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/drivers"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// makeImages makes qcow2 images of 1 MiB in a folder.
func makeImages(t *testing.T, folder string, names ...string) {
	t.Helper()
	g := block.New(block.Config{Drivers: drivers.All()})
	defer g.Close()
	l := g.Main().Acquire()
	defer l.Release()
	for _, name := range names {
		im := block.NewImage{Filename: filepath.Join(folder, name), Format: "qcow2", Size: 1 << 20}
		if err := g.CreateImage(l, im); err != nil {
			t.Fatal(err)
		}
	}
}

// transactionState is everything that a transaction can change: what queryState
// tells, and the files but those whose names begin with new.
func transactionState(t *testing.T, i *control.Instance, folder string) string {
	t.Helper()
	var s strings.Builder
	s.WriteString(queryState(t, i))
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "new") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&s, "\n%s %x", f.Name(), sha256.Sum256(content))
	}
	return s.String()
}

// queryState is nodes with their bitmaps and internal snapshots, the graph with
// its permissions, jobs, and the bits.
func queryState(t *testing.T, i *control.Instance) string {
	t.Helper()
	var s strings.Builder
	nodes := execute(t, i, "query-named-block-nodes", qjson.Value{})
	s.Write(nodes)
	s.Write(execute(t, i, "x-debug-query-block-graph", qjson.Value{}))
	s.Write(execute(t, i, "query-jobs", qjson.Value{}))
	var list []struct {
		Name    string                  `json:"node-name"`
		Bitmaps []struct{ Name string } `json:"dirty-bitmaps"`
	}
	if err := json.Unmarshal(nodes, &list); err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		for _, b := range n.Bitmaps {
			sum := execute(t, i, "x-debug-block-dirty-bitmap-sha256", arguments(t, `{"node": %q, "name": %q}`, n.Name, b.Name))
			fmt.Fprintf(&s, "\n%s %s %s", n.Name, b.Name, sum)
		}
	}
	return s.String()
}

// transactionBench has nodes with users, overlays for them, and bitmaps. The
// function runs commands of qemu-io and fails if they do.
func transactionBench(t *testing.T) (i *control.Instance, folder string, qemuIO func(command string)) {
	t.Helper()
	folder = t.TempDir()
	makeImages(t, folder, "a", "b", "over", "spare", "there", "copy")
	var printed bytes.Buffer
	i = instance(t, control.Config{Personality: control.System, Stdout: &printed})
	for _, name := range []string{"a", "b", "over", "spare", "copy"} {
		execute(t, i, "blockdev-add", arguments(t, `{"driver": "qcow2", "node-name": %q, "file": {"driver": "file", "filename": %q}}`,
			name, filepath.Join(folder, name)))
	}
	for _, name := range []string{"a", "b"} {
		execute(t, i, "blockdev-add", arguments(t, `{"driver": "raw", "node-name": "user-%s", "file": %q}`, name, name))
	}
	for _, b := range []string{
		`{"node": "a", "name": "x"}`, `{"node": "a", "name": "y", "granularity": 4096}`, `{"node": "a", "name": "off", "disabled": true}`,
		`{"node": "b", "name": "z"}`,
	} {
		execute(t, i, "block-dirty-bitmap-add", arguments(t, "%s", b))
	}
	qemuIO = func(command string) {
		t.Helper()
		printed.Reset()
		out := hmp(t, i, "qemu-io "+command) + printed.String()
		if strings.Contains(out, "fail") || strings.Contains(out, "rror") {
			t.Errorf("%s: %s", command, out)
		}
	}
	qemuIO(`user-a "write -P 1 128k 64k"`)
	qemuIO(`user-b "write -P 2 256k 128k"`)
	qemuIO(`a flush`)
	qemuIO(`b flush`)
	return i, folder, qemuIO
}

// actions are those that can succeed, each and all but one together, and one
// of each kind that fails.
func actions(folder string) (good, bad []string) {
	action := func(kind, format string, args ...any) string {
		return fmt.Sprintf(`{"type": %q, "data": %s}`, kind, fmt.Sprintf(format, args...))
	}
	file := func(name string) string { return filepath.Join(folder, name) }
	good = []string{
		action("block-dirty-bitmap-add", `{"node": "a", "name": "added"}`),
		action("block-dirty-bitmap-clear", `{"node": "a", "name": "x"}`),
		action("block-dirty-bitmap-disable", `{"node": "a", "name": "x"}`),
		action("block-dirty-bitmap-enable", `{"node": "a", "name": "off"}`),
		action("block-dirty-bitmap-merge", `{"node": "a", "target": "off", "bitmaps": ["x", {"node": "b", "name": "z"}]}`),
		action("block-dirty-bitmap-remove", `{"node": "a", "name": "y"}`),
		action("blockdev-snapshot", `{"node": "a", "overlay": "over"}`),
		action("blockdev-snapshot", `{"node": "over", "overlay": "spare"}`),
		action("blockdev-snapshot-sync", `{"node-name": "b", "snapshot-file": %q, "snapshot-node-name": "new", "mode": "existing"}`, file("there")),
		action("blockdev-snapshot-sync", `{"node-name": "b", "snapshot-file": %q, "snapshot-node-name": "new2"}`, file("new2")),
		action("blockdev-snapshot-sync", `{"node-name": "new2", "snapshot-file": %q, "snapshot-node-name": "new3"}`, file("new3")),
		action("blockdev-backup", `{"job-id": "j0", "device": "a", "target": "copy", "sync": "full", "filter-node-name": "f0"}`),
		action("blockdev-backup", `{"job-id": "j1", "device": "b", "target": "copy", "sync": "bitmap", "bitmap": "z", "bitmap-mode": "always"}`),
		action("drive-backup", `{"job-id": "j2", "device": "b", "target": %q, "format": "qcow2", "sync": "full"}`, file("new4")),
		action("drive-backup", `{"job-id": "j3", "device": "a", "target": %q, "format": "qcow2", "sync": "none", "mode": "existing"}`, file("there")),
	}
	bad = []string{
		action("abort", `{}`),
		action("block-dirty-bitmap-add", `{"node": "a", "name": "x"}`),
		action("block-dirty-bitmap-clear", `{"node": "a", "name": "nope"}`),
		action("block-dirty-bitmap-disable", `{"node": "nope", "name": "x"}`),
		action("block-dirty-bitmap-enable", `{"node": "a", "name": "nope"}`),
		action("block-dirty-bitmap-merge", `{"node": "a", "target": "x", "bitmaps": ["off", "nope"]}`),
		action("block-dirty-bitmap-remove", `{"node": "a", "name": "nope"}`),
		action("blockdev-snapshot", `{"node": "b", "overlay": "user-a"}`),
		action("blockdev-snapshot-sync", `{"node-name": "user-a", "snapshot-file": %q, "snapshot-node-name": "x", "mode": "existing"}`, file("missing")),
		action("blockdev-snapshot-sync", `{"node-name": "user-a", "snapshot-file": %q, "snapshot-node-name": "1"}`, file("new1")),
		action("blockdev-backup", `{"device": "a", "target": "b", "sync": "full"}`),
		action("blockdev-backup", `{"job-id": "j0", "device": "over", "target": "copy", "sync": "full", "filter-node-name": "a"}`),
		action("drive-backup", `{"job-id": "j0", "device": "b", "target": %q, "format": "qcow2", "sync": "full", "speed": -1}`, file("new5")),
		action("drive-backup", `{"job-id": "j0", "device": "b", "target": %q, "sync": "full", "mode": "existing"}`, file("missing")),
		action("blockdev-snapshot-internal-sync", `{"device": "nope", "name": "s"}`),
	}
	return good, bad
}

// together leaves out the first of two snapshots of the same node, and backups.
func together(good []string) []string { return slices.Concat(good[:8], good[9:11]) }

// Whichever action of whatever others fails, nothing has changed.
func TestTransactionsAllOrNothing(t *testing.T) {
	t.Parallel()
	i, folder, _ := transactionBench(t)
	before := transactionState(t, i, folder)
	good, bad := actions(folder)
	fails := func(list ...string) {
		t.Helper()
		for _, mode := range []string{"individual", "grouped"} {
			all := fmt.Sprintf(`{"actions": [%s], "properties": {"completion-mode": %q}}`, strings.Join(list, ", "), mode)
			if _, err := i.Execute(context.Background(), "transaction", arguments(t, "%s", all)); err == nil {
				t.Fatalf("%s did not fail", all)
			}
			if after := transactionState(t, i, folder); after != before {
				t.Fatalf("after %s it was\n%s\nand is\n%s", all, before, after)
			}
		}
	}
	for _, last := range bad {
		fails(last)
		for _, first := range good {
			fails(first, last)
			fails(first, last, first)
		}
	}
	for _, last := range bad {
		fails(append(together(good), last)...)
	}
	for _, first := range good {
		for _, second := range good {
			fails(first, second, bad[0])
		}
	}
}

// Internal snapshots as well are gone if something else fails. What they took in
// the file is free again, if not as it was.
func TestTransactionsWithInternalSnapshots(t *testing.T) {
	t.Parallel()
	i, folder, qemuIO := transactionBench(t)
	before := queryState(t, i)
	good, bad := actions(folder)
	const snapshot = `{"type": "blockdev-snapshot-internal-sync", "data": {"device": "a", "name": "s"}}`
	for _, last := range append(bad, snapshot) {
		for _, other := range append(good, snapshot) {
			all := strings.Join([]string{snapshot, other, last}, ", ")
			if _, err := i.Execute(context.Background(), "transaction", arguments(t, `{"actions": [%s]}`, all)); err == nil {
				t.Fatalf("%s did not fail", all)
			}
			if after := queryState(t, i); after != before {
				t.Fatalf("after %s it was\n%s\nand is\n%s", all, before, after)
			}
		}
	}
	qemuIO(`user-a "read -P 1 128k 64k"`)
	qemuIO(`a flush`)
	img := filepath.Join(filepath.Dir(daemon.Reference(t).Storage[0]), "qemu-img")
	if out, err := exec.Command(img, "check", "-U", filepath.Join(folder, "a")).CombinedOutput(); err != nil {
		t.Errorf("qemu-img check: %v\n%s", err, out)
	}
}

// What succeeds has happened altogether.
func TestTransactionSucceeds(t *testing.T) {
	t.Parallel()
	i, folder, qemuIO := transactionBench(t)
	good, _ := actions(folder)
	execute(t, i, "transaction", arguments(t, `{"actions": [%s]}`, strings.Join(together(good), ", ")))
	var nodes []struct {
		Name    string `json:"node-name"`
		Ro      bool
		Bitmaps []struct {
			Name      string
			Recording bool
			Count     int
		} `json:"dirty-bitmaps"`
	}
	if err := json.Unmarshal(execute(t, i, "query-named-block-nodes", qjson.Value{}), &nodes); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range nodes {
		got[n.Name] = fmt.Sprint(n.Ro, n.Bitmaps)
	}
	for name, want := range map[string]string{
		"a":      "true [{added true 0} {off true 131072} {x false 0}]",
		"b":      "true [{z true 131072}]",
		"over":   "true []",
		"spare":  "false []",
		"new2":   "true []",
		"new3":   "false []",
		"user-a": "false []",
	} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	qemuIO(`user-a "read -P 1 128k 64k"`)
	qemuIO(`user-b "read -P 2 256k 128k"`)
}

// Each of the actions that are to be undone because of others succeeds alone.
func TestActionsSucceed(t *testing.T) {
	t.Parallel()
	good, _ := actions("")
	for n := range good {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			i, folder, _ := transactionBench(t)
			good, _ := actions(folder)
			needed := []string{good[n]}
			switch n {
			case 7, 10: // over what the one before makes
				needed = good[n-1 : n+1]
			}
			execute(t, i, "transaction", arguments(t, `{"actions": [%s]}`, strings.Join(needed, ", ")))
		})
	}
}

// A client that writes all the time loses nothing to transactions that fail,
// and bitmaps miss nothing.
func TestTransactionsUnderWriter(t *testing.T) {
	t.Parallel()
	i, folder, qemuIO := transactionBench(t)
	socket := filepath.Join(shortDir(t), "n")
	execute(t, i, "nbd-server-start", arguments(t, `{"addr": {"type": "unix", "data": {"path": %q}}}`, socket))
	execute(t, i, "block-export-add", arguments(t, `{"type": "nbd", "id": "e", "node-name": "a", "writable": true}`))
	good, bad := actions(folder)
	var writing sync.WaitGroup
	done := make(chan struct{})
	writing.Go(func() {
		defer close(done)
		writeAll(t, socket)
	})
	for n := 0; ; n++ {
		list := strings.Join([]string{good[n%8], good[(n/8)%8], bad[0]}, ", ")
		if _, err := i.Execute(context.Background(), "transaction", arguments(t, `{"actions": [%s]}`, list)); err == nil {
			t.Fatal("it did not fail")
		}
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	writing.Wait()
	qemuIO(`user-a "read -P 7 0 1M"`)
	state := transactionState(t, i, folder)
	for _, want := range []string{`"name": "x", "recording": true`, `"count": 1048576`} {
		if !strings.Contains(state, want) {
			t.Errorf("no %s in %s", want, state)
		}
	}
}

// writeAll fills an export with sevens, a sector at a time.
func writeAll(t *testing.T, socket string) {
	g := block.New(block.Config{Drivers: drivers.All()})
	defer g.Close()
	l := g.Main().Acquire()
	n, err := g.AddNode(l, optionsOf(t, `{"driver": "nbd", "node-name": "n", "export": "a", "server": {"type": "unix", "path": %q}}`, socket))
	if err != nil {
		t.Error(err)
		l.Release()
		return
	}
	b := g.NewBackend("", block.PermWrite, block.PermAll)
	if err := b.Insert(l, n); err != nil {
		t.Error(err)
	}
	l.Release()
	defer func() {
		l := g.Main().Acquire()
		defer l.Release()
		b.Close(l)
	}()
	sector := make([]byte, 2048)
	for k := range sector {
		sector[k] = 7
	}
	for offset := int64(0); offset < 1<<20; offset += int64(len(sector)) {
		if err := b.Pwritev(aio.Outside, offset, block.Vec{sector}, 0); err != nil {
			t.Error(err)
			return
		}
	}
}

func optionsOf(t *testing.T, format string, args ...any) *block.Options {
	t.Helper()
	return block.OptionsFromJSON(arguments(t, format, args...))
}
