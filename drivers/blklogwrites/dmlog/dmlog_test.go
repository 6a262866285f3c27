package dmlog

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// testLog is a log in the making.
type testLog struct {
	sector  int
	entries uint64
	rest    []byte
}

func (g *testLog) add(e Entry, data []byte) {
	head := make([]byte, g.sector)
	e.Put(head)
	if e.Flags&Mark != 0 {
		copy(head[entryLen:], data)
		data = nil
	}
	g.entries++
	g.rest = append(append(g.rest, head...), data...)
}

// write logs n sectors of a value at a sector.
func (g *testLog) write(sector, n int, value byte, flags Flags) {
	g.add(Entry{Sector: uint64(sector), Sectors: uint64(n), Flags: flags}, bytes.Repeat([]byte{value}, n*g.sector))
}

func (g *testLog) mark(name string) {
	g.add(Entry{Flags: Mark, NameLen: uint64(len(name))}, []byte(name))
}

func (g *testLog) bytes() []byte {
	b := make([]byte, g.sector)
	Super{g.entries, uint32(g.sector)}.Put(b)
	return append(b, g.rest...)
}

// save writes the log into a file and returns its path.
func save(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// story is a log with one of everything.
func story() *testLog {
	g := &testLog{sector: 512}
	g.write(0, 2, 'a', 0)
	g.add(Entry{Flags: Flush}, nil)
	g.mark("formatted")
	g.write(1, 2, 'b', FUA)
	g.write(3, 1, 'c', Flush)
	g.add(Entry{Sector: 0, Sectors: 2, Flags: Discard}, nil)
	g.write(4, 1, 0, 0)
	g.add(Entry{}, nil)
	return g
}

func TestList(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := List(&out, save(t, story().bytes())); err != nil {
		t.Fatal(err)
	}
	want := `8 entries, sectors of 512 bytes
       0                      0         1024  write
       1                      -            -  flush
       2                      -            -  mark "formatted"
       3                    512         1024  write,fua
       4                   1536          512  write,flush
       5                      0         1024  discard
       6                   2048          512  write
       7                      -            -  nothing
`
	if out.String() != want {
		t.Errorf("got\n%s, want\n%s", out.String(), want)
	}
}

// pattern shortens content to a letter a sector, "." for zeroes.
func pattern(b []byte) string {
	var s strings.Builder
	for i := 0; i < len(b); i += 512 {
		if b[i] == 0 {
			s.WriteByte('.')
		} else {
			s.WriteByte(b[i])
		}
	}
	return s.String()
}

func TestReplay(t *testing.T) {
	t.Parallel()
	log := save(t, story().bytes())
	for _, c := range []struct {
		until, before, after string
		entries              uint64
	}{
		{"", "", "..bc.", 8},
		{"8", "", "..bc.", 8},
		{"0", "", "", 0},
		{"1", "", "aa", 1},
		{"formatted", "", "aa", 3},
		{"4", "", "abb", 4},
		{"5", "", "abbc", 5},
		{"", "xxxxxxxx", "..bc.xxx", 8},
		{"1", "xxxxxxxx", "aaxxxxxx", 1},
	} {
		image := filepath.Join(t.TempDir(), "image")
		if c.before != "" {
			var b []byte
			for _, letter := range []byte(c.before) {
				b = append(b, bytes.Repeat([]byte{letter}, 512)...)
			}
			if err := os.WriteFile(image, b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		p, err := Replay(context.Background(), log, image, c.until)
		if err != nil || p != (Progress{Entries: c.entries}) {
			t.Errorf("until %q: %+v, %v", c.until, p, err)
		}
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		if got := pattern(b); got != c.after {
			t.Errorf("until %q over %q: %q, want %q", c.until, c.before, got, c.after)
		}
	}
}

func TestReplayRefusals(t *testing.T) {
	t.Parallel()
	log := save(t, story().bytes())
	missing := filepath.Join(t.TempDir(), "missing", "file")
	for _, c := range []struct{ log, image, until, err string }{
		{log, "image", "9", log + ": there are only 8 log entries"},
		{log, "image", "mounted", log + ": there is no mark 'mounted'"},
		{log, log, "", log + " is the log itself"},
		{missing, "image", "", "Could not open '" + missing + "': No such file or directory"},
		{log, missing, "", "Could not open '" + missing + "': No such file or directory"},
	} {
		image := c.image
		if image == "image" {
			image = filepath.Join(t.TempDir(), "image")
		}
		_, err := Replay(context.Background(), c.log, image, c.until)
		if err == nil || err.Error() != c.err {
			t.Errorf("%+v: %v", c, err)
		}
		if _, err := os.Stat(image); c.image == "image" && err == nil {
			t.Errorf("%+v: an image was made", c)
		}
	}
}

// The check sees the image as the disk promised it: up to a flush, and behind
// a write that is durable at once.
func TestReplayChecking(t *testing.T) {
	t.Parallel()
	log := save(t, story().bytes())
	dir := t.TempDir()
	image := filepath.Join(dir, "an image")
	var out strings.Builder
	p, err := ReplayChecking(context.Background(), log, image, "",
		`test "$1" = "$IMAGE" && echo $ENTRIES $(tr -d '\000' <"$1" | tr -s abc)`, &out)
	if err != nil || p != (Progress{Entries: 8, Checks: 3}) {
		t.Errorf("%+v, %v", p, err)
	}
	if want := "1 a\n4 ab\n4 ab\n"; out.String() != want {
		t.Errorf("the checks saw %q, want %q", out.String(), want)
	}
	b, err := os.ReadFile(image)
	if err != nil || pattern(b) != "..bc." {
		t.Errorf("the image is %q, %v", pattern(b), err)
	}
}

func TestFailingCheck(t *testing.T) {
	t.Parallel()
	log := save(t, story().bytes())
	image := filepath.Join(t.TempDir(), "image")
	p, err := ReplayChecking(context.Background(), log, image, "", `! grep -q b "$1"`, os.Stderr)
	var failed *CheckError
	var exit *exec.ExitError
	if !errors.As(err, &failed) || failed.Entries != 4 || !errors.As(err, &exit) {
		t.Fatalf("got %v", err)
	}
	if want := "check failed after 4 entries: exit status 1"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	b, readErr := os.ReadFile(image)
	if readErr != nil || pattern(b) != "abb" || p.Entries != 4 {
		t.Errorf("it stopped at %+v with %q, %v", p, pattern(b), readErr)
	}
}

func TestCheckThatWrites(t *testing.T) {
	t.Parallel()
	log := save(t, story().bytes())
	for _, command := range []string{
		`printf x | dd of="$1" conv=notrunc status=none`,
		`truncate -s 0 "$1"`,
	} {
		image := filepath.Join(t.TempDir(), "image")
		_, err := ReplayChecking(context.Background(), log, image, "", command, os.Stderr)
		if want := "the check changed " + image + "; it must work on a copy"; err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", command, err, want)
		}
	}
}

func TestReplayCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Replay(ctx, save(t, story().bytes()), filepath.Join(t.TempDir(), "image"), "")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Damage is told with the entry it was found in, and what comes before it is
// listed and replayed still.
func TestDamage(t *testing.T) {
	t.Parallel()
	whole := story().bytes()
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		err    string
		listed int
	}{
		{"empty", func([]byte) []byte { return nil }, "log: Invalid log superblock magic", 0},
		{"magic", func(b []byte) []byte { b[0]++; return b }, "log: Invalid log superblock magic", 0},
		{"version", func(b []byte) []byte { b[8] = 9; return b }, "log: Unsupported log version 9", 0},
		{"sectors", func(b []byte) []byte { b[24] = 1; return b }, "log: Invalid log sector size 513", 0},
		{"count", func(b []byte) []byte { b[16] = 9; return b }, "Log entry 8 of 9 at byte 7680 goes beyond the end of the log (7680 bytes)", 8},
		{"cut", func(b []byte) []byte { return b[:1024] }, "Log entry 0 of 8 at byte 512 goes beyond the end of the log (1024 bytes)", 0},
		{"flags", func(b []byte) []byte { b[2048+16] |= 0x20; return b }, "Invalid flags 0x21 in log entry 1", 1},
		{"name", func(b []byte) []byte { b[2560+25] = 2; return b }, "The name in log entry 2 is longer than its sector", 2},
		{"place", func(b []byte) []byte { b[7] = 1; b[512+7] = 1; return append(whole[:8:8], b[8:]...) },
			"Log entry 0 is about sectors 72057594037927936+2, which no disk has", 0},
	} {
		log := save(t, c.change(bytes.Clone(whole)))
		var out strings.Builder
		err := List(&out, log)
		if err == nil || !strings.HasSuffix(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
		if got := strings.Count(out.String(), "\n"); c.listed > 0 && got != c.listed+1 {
			t.Errorf("%s: %d lines for %d entries", c.name, got, c.listed)
		}
		p, err := Replay(context.Background(), log, filepath.Join(t.TempDir(), "image"), "")
		if err == nil || !strings.HasSuffix(err.Error(), c.err) || p.Entries != uint64(c.listed) {
			t.Errorf("%s: replayed %+v, %v", c.name, p, err)
		}
	}
}

// A log of large zero writes is sparse, and so is what becomes of it.
func TestSparse(t *testing.T) {
	t.Parallel()
	const size = 256 << 20
	g := &testLog{sector: 512}
	g.add(Entry{Sector: 8, Sectors: size / 512}, nil)
	log := save(t, g.bytes())
	if err := os.Truncate(log, 1024+size); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, bytes.Repeat([]byte{'x'}, 16384), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Replay(context.Background(), log, image, ""); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 4096+size || st.Blocks*512 > 65536 {
		t.Errorf("%d bytes, of which %d are on disk", st.Size, st.Blocks*512)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 16384)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if got := strings.Trim(pattern(head), "."); got != "xxxxxxxx" {
		t.Errorf("the image begins with %q", pattern(head))
	}
}

func TestSectorSizes(t *testing.T) {
	t.Parallel()
	for size, ok := range map[uint64]bool{
		0: false, 1: false, 16: false, 32: true, 48: false, 512: true, 4096: true, 1 << 23: true, 1 << 24: false, 1 << 32: false,
	} {
		if err := CheckSectorSize(size); (err == nil) != ok {
			t.Errorf("%d: %v", size, err)
		}
	}
}

// FuzzReader: no log, however damaged, makes the reader run away or crash.
func FuzzReader(f *testing.F) {
	f.Add(story().bytes())
	f.Add([]byte(nil))
	g := &testLog{sector: 32}
	g.write(5, 3, 'x', FUA)
	g.mark("")
	f.Add(g.bytes())
	f.Fuzz(func(t *testing.T, log []byte) {
		r, err := NewReader(bytes.NewReader(log), int64(len(log)))
		for err == nil {
			var rec *Record
			if rec, err = r.Next(); err == nil {
				if n := r.Data(rec).Size(); n != rec.DataLen() || r.End() > int64(len(log)) {
					t.Fatalf("%+v has %d bytes, the log ends at %d", rec, n, r.End())
				}
			}
		}
	})
}
