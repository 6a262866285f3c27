package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// makeLog lets a server log what happens to a disk and returns the folder of
// disk.raw and log.raw.
func makeLog(t *testing.T) string {
	t.Helper()
	folder := shortDir(t)
	writeFile(t, filepath.Join(folder, "log.raw"), "")
	writeFile(t, filepath.Join(folder, "disk.raw"), "")
	if err := os.Truncate(filepath.Join(folder, "disk.raw"), 1<<20); err != nil {
		t.Fatal(err)
	}
	p := start(t, folder, "system", "-display", "none",
		"-qmp", "unix:qmp.sock,server=on,wait=off",
		"-blockdev", "driver=file,node-name=disk,filename=disk.raw",
		"-blockdev", "driver=file,node-name=log,filename=log.raw",
		"-blockdev", "driver=blklogwrites,node-name=b,file=disk,log=log")
	awaitSocket(t, p, folder, "qmp.sock")
	got := call(t, folder, "io", "b", "write -P 0x61 0 4k", "flush", "write -P 0x62 4k 1k", "flush", "write -P 0x63 0 512")
	if got.status != 0 || got.err != "" || strings.Count(got.out, "wrote ") != 3 {
		t.Fatalf("qmpblock io: %+v", got)
	}
	stop(t, p)
	return folder
}

func TestLogWrites(t *testing.T) {
	t.Parallel()
	folder := makeLog(t)

	listed := call(t, folder, "log-writes", "list", "log.raw")
	want := []string{"0 4096 write", "- - flush", "4096 1024 write", "- - flush", "0 512 write"}
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(listed.out), "\n")[1:] {
		got = append(got, strings.Join(strings.Fields(line)[1:], " "))
	}
	// Closing flushes as often as it likes.
	for len(got) > len(want) && got[len(got)-1] == "- - flush" {
		got = got[:len(got)-1]
	}
	if diff := cmp.Diff(want, got); diff != "" || listed.status != 0 || listed.err != "" {
		t.Fatalf("list (-want +got)\n%s\n%+v", diff, listed)
	}

	for _, c := range []struct{ until, said, image string }{
		{"0", "0 entries", ""},
		{"1", "1 entries", strings.Repeat("a", 8)},
		{"2", "2 entries", strings.Repeat("a", 8)},
		{"4", "4 entries", strings.Repeat("a", 8) + "bb"},
		{"5", "5 entries", "c" + strings.Repeat("a", 7) + "bb"},
	} {
		onto := "until" + c.until
		r := call(t, folder, "log-writes", "replay", "log.raw", "--onto", onto, "--until", c.until)
		if r != (result{out: c.said + " replayed, 0 checks\n"}) {
			t.Errorf("until %s: %+v", c.until, r)
		}
		if image := sectors(t, filepath.Join(folder, onto)); image != c.image {
			t.Errorf("until %s: %s, want %s", c.until, image, c.image)
		}
	}
	r := call(t, folder, "log-writes", "replay", "log.raw", "--onto", "never", "--until", "99")
	if r.status != 1 || !strings.HasPrefix(r.err, "qmpblock: log.raw: there are only ") {
		t.Errorf("beyond the end: %+v", r)
	}
	r = call(t, folder, "log-writes", "replay", "log.raw", "--onto", "all")
	if image := sectors(t, filepath.Join(folder, "all")); r.status != 0 || image != "c"+strings.Repeat("a", 7)+"bb" {
		t.Errorf("to the end: %s, %+v", image, r)
	}
}

func TestLogWritesCheck(t *testing.T) {
	t.Parallel()
	folder := makeLog(t)
	r := call(t, folder, "log-writes", "replay", "log.raw", "--onto", "image", "--until", "4",
		"--check", `echo $ENTRIES $(tr -s abc <"$IMAGE")`)
	if want := (result{out: "1 a\n3 ab\n4 entries replayed, 2 checks\n"}); r != want {
		t.Errorf("a check at each flush: %+v", r)
	}
	r = call(t, folder, "log-writes", "replay", "log.raw", "--onto", "image2", "--check", `! grep -q b "$IMAGE"`)
	var at int
	if _, err := fmt.Sscanf(r.err, "qmpblock: check failed after %d entries: exit status 1;", &at); err != nil {
		t.Fatalf("a failing check: %+v", r)
	}
	wantErr := fmt.Sprintf("qmpblock: check failed after %d entries: exit status 1; --until %d leads there again\n", at, at)
	if want := (result{fmt.Sprintf("%d entries replayed, 2 checks\n", at), wantErr, 1}); r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	r = call(t, folder, "log-writes", "replay", "log.raw", "--onto", "image3", "--until", fmt.Sprint(at))
	if image := sectors(t, filepath.Join(folder, "image3")); r.status != 0 || image != strings.Repeat("a", 8)+"bb" {
		t.Errorf("where the check failed: %s, %+v", image, r)
	}
}

func TestLogWritesDamage(t *testing.T) {
	t.Parallel()
	folder := makeLog(t)
	log := filepath.Join(folder, "log.raw")
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, log, string(whole[:1024])) // the superblock and the first entry's head
	const want = "goes beyond the end of the log (1024 bytes)\n"
	for _, args := range [][]string{{"list", "log.raw"}, {"replay", "log.raw", "--onto", "image"}} {
		r := call(t, folder, append([]string{"log-writes"}, args...)...)
		if r.status != 1 || !strings.HasSuffix(r.err, want) {
			t.Errorf("%v of a short log: %+v", args, r)
		}
	}
	writeFile(t, log, "x"+string(whole[1:]))
	r := call(t, folder, "log-writes", "list", "log.raw")
	if r.status != 1 || r.err != "qmpblock: log.raw: Invalid log superblock magic\n" {
		t.Errorf("a log that is none: %+v", r)
	}
}

// sectors shortens a file to the first letter of each sector.
func sectors(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for i := 0; i < len(b); i += 512 {
		s.WriteByte(b[i])
	}
	return s.String()
}
