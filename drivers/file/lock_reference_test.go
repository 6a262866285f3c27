package file_test

import (
	"bufio"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// program finds one of the reference's tools, which lie beside its daemon.
func program(t *testing.T, name string) string {
	t.Helper()
	storage := daemon.Argv0(daemon.Reference(t).Storage)
	path, err := exec.LookPath(filepath.Join(filepath.Dir(storage), name))
	if err != nil {
		daemon.Missing(t, "the reference has no "+name)
	}
	return path
}

// Programs of the reference are refused exactly while our users stand in
// their way. The same was seen with the reference's own daemon instead of us.
func TestLocksAgainstReference(t *testing.T) {
	t.Parallel()
	img, qio := program(t, "qemu-img"), program(t, "qemu-io")
	path := sparse(t, 1<<20)
	b := bench(t)
	n := b.Add(node(path, ""))
	for _, c := range []struct {
		name         string
		perm, shared block.Perm
		// What a reader, a writer and a resizer are told; "" if they succeed.
		reader, writer, resizer string
	}{
		{"no user", 0, all, "", "", ""},
		{"reader", read, all &^ resize, "", "", `Failed to get "resize" lock`},
		{"writer", read | write, all &^ resize, "", "", `Failed to get "resize" lock`},
		{"reader against writers", read, all &^ (write | resize), "", `Failed to get "write" lock`, `Failed to get "write" lock`},
		{"exclusive", all, 0, `Failed to get "consistent read" lock`, `Failed to get "consistent read" lock`, `Failed to get "consistent read" lock`},
	} {
		blk, err := b.TryUse(n, c.perm, c.shared)
		if err != nil {
			t.Fatal(err)
		}
		for _, try := range []struct {
			want string
			args []string
		}{
			{"", []string{img, "info", "-f", "raw", path}}, // which reads nothing
			{c.reader, []string{qio, "-r", "-f", "raw", "-c", "read 0 512", path}},
			{c.writer, []string{qio, "-f", "raw", "-c", "write 0 512", path}},
			{c.resizer, []string{img, "resize", "-q", "-f", "raw", path, "1M"}},
		} {
			out, err := exec.Command(try.args[0], try.args[1:]...).CombinedOutput()
			refused := err != nil
			if refused != (try.want != "") || !strings.Contains(string(out), try.want) {
				t.Errorf("%s: %s: %v, want %q:\n%s", c.name, strings.Join(try.args, " "), err, try.want, out)
			}
		}
		b.Drop(blk)
	}
}

// And the other way round: a program of the reference that has the file open
// stands in the way of our users.
func TestLocksOfReference(t *testing.T) {
	t.Parallel()
	qio := program(t, "qemu-io")
	path := sparse(t, 1<<20)
	b := bench(t)
	n := b.Add(node(path, ""))
	for _, c := range []struct {
		name string
		args []string
		// What our reader, our reader that keeps writers away and our writer
		// are told.
		reader, alone, writer string
	}{
		{"writer", []string{"-f", "raw"}, "", `Failed to get shared "write" lock`, ""},
		{"reader", []string{"-f", "raw", "-r"}, "", "", ""},
		{"force-share", []string{"-f", "raw", "-r", "-U"}, "", "", ""},
	} {
		stop := hold(t, qio, append(c.args, path)...)
		for _, try := range []struct {
			want         string
			perm, shared block.Perm
		}{
			{c.reader, read, all},
			{c.alone, read, all &^ write},
			{c.writer, write, all},
		} {
			blk, err := b.TryUse(n, try.perm, try.shared)
			expect(t, c.name+" against "+try.perm.String()+", sharing "+try.shared.String(), err, try.want)
			if err == nil {
				b.Drop(blk)
			}
		}
		stop()
	}
}

// hold runs qemu-io, which keeps its image open until its input ends; it has
// opened it when it answers.
func hold(t *testing.T, qio string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(qio, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "length\n"); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		if strings.Contains(s.Text(), "MiB") {
			break
		}
	}
	return func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("qemu-io: %v", err)
		}
	}
}
