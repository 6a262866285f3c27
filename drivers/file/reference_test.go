package file_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// What is refused, or not, with the same words as by the reference: a chain of
// adding, reopening and deleting nodes goes to both.
func TestReferenceRefusals(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	b := bench(t)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/dir", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop", dir+"/loop"); err != nil {
		t.Fatal(err)
	}
	regular, _ := random(t, 4096)
	both := func(command, driver, name, path, more string) {
		t.Helper()
		options := strings.Replace(named(name, path, more), `"file"`, `"`+driver+`"`, 1)
		var err error
		args := options
		switch command {
		case "blockdev-add":
			_, err = b.TryAdd(options)
		case "blockdev-reopen":
			err = b.Reopen(options)
			args = `{"options":[` + options + "]}"
		}
		_, want := r.Ask(command, args)
		expect(t, command+" "+options, err, want)
	}
	name := 0
	for _, driver := range []string{"file", "host_device", "host_cdrom"} {
		for _, path := range []string{regular, dir + "/dir", dir + "/fifo", dir + "/loop", dir + "/missing", "/dev/null", ""} {
			for _, more := range []string{
				"", `"auto-read-only":true`, `"read-only":true,"cache":{"direct":true}`, `"aio":"native"`,
				`"aio":"native","cache":{"direct":true}`, `"locking":"on","aio-max-batch":-1`, `"force-share":true`,
			} {
				if driver != "file" && strings.HasSuffix(path, "/fifo") || path == "/dev/null" && strings.Contains(more, "direct") {
					continue // the reference waits for ever, or does what no device does
				}
				if strings.HasSuffix(path, "/fifo") && strings.Contains(more, "read-only") {
					continue // it waits for ever
				}
				name++
				both("blockdev-add", driver, fmt.Sprint("n", name), path, more)
			}
		}
	}
	name++
	for _, more := range []string{`"aio":"threads"`, `"drop-cache":true,"aio":"threads"`, `"aio":"threads","locking":"off"`} {
		name++
		n := fmt.Sprint("n", name)
		both("blockdev-add", "file", n, regular, more)
		for _, again := range []string{
			"", more, more + `,"read-only":true`, more + `,"cache":{"direct":true}`, `"aio":"native"`,
			more + `,"x-check-cache-dropped":true`, more, more + `,"force-share":true,"read-only":true`,
			`"locking":"off","aio":"threads","drop-cache":false`, more + `,"pr-manager":"x"`, more + `,"aio-max-batch":1`,
		} {
			both("blockdev-reopen", "file", n, regular, again)
		}
		both("blockdev-reopen", "file", n, regular+"x", more)
	}
}

// step is a request in our terms and in those of qemu-io.
type step struct {
	text string
	do   func(blk *block.Backend) error
}

// randomStep makes a request in a file of at most 1 MiB. Lengths are kept to
// sectors, since the two block layers may split the rest in different ways.
func randomStep(r *rand.Rand) step {
	offset, length := r.Int64N(2048)*512, (1+r.Int64N(256))*512
	area := fmt.Sprintf("%d %d", offset, length)
	zeroes := func(flags block.ReqFlags) func(*block.Backend) error {
		return func(blk *block.Backend) error { return blk.PwriteZeroes(aio.Outside, offset, length, flags) }
	}
	switch r.IntN(8) {
	case 0, 1:
		value := byte(1 + r.IntN(255))
		return step{fmt.Sprintf("write -P %d %s", value, area), func(blk *block.Backend) error {
			return blk.Pwritev(aio.Outside, offset, drivertest.Fill(value, int(length)), 0)
		}}
	case 2:
		return step{"write -z " + area, zeroes(0)}
	case 3:
		return step{"write -z -u -n " + area, zeroes(block.ReqMayUnmap | block.ReqNoFallback)}
	case 4:
		return step{"write -z -f " + area, zeroes(block.ReqFUA)}
	case 5:
		return step{"discard " + area, func(blk *block.Backend) error {
			return blk.Pdiscard(aio.Outside, offset, length)
		}}
	case 6:
		return step{"flush", func(blk *block.Backend) error { return blk.Flush(aio.Outside) }}
	}
	mode := block.PreallocMode(r.IntN(4))
	to := r.Int64N(2049) * 512
	return step{fmt.Sprintf("truncate -m %s %d", mode, to), func(blk *block.Backend) error {
		return blk.Truncate(aio.Outside, to, false, mode, 0)
	}}
}

// The same requests leave the same file behind: bytes, holes, length, space
// and counters.
func TestReferenceRequests(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	b := bench(t)
	for i, more := range []string{
		"", `"discard":"unmap"`, `"cache":{"direct":true}`,
		`"discard":"unmap","cache":{"direct":true},"detect-zeroes":"unmap"`,
	} {
		t.Run(more, func(t *testing.T) {
			seed := rand.New(rand.NewPCG(1, uint64(i)))
			name := fmt.Sprint("n", i)
			ours, content := random(t, 1<<20)
			theirs := r.Dir + "/" + name
			if err := os.WriteFile(theirs, content, 0o600); err != nil {
				t.Fatal(err)
			}
			n := b.Add(named(name, ours, more))
			blk := b.Use(n)
			r.Do("blockdev-add", named(name, theirs, more))
			for range 80 {
				s := randomStep(seed)
				err := s.do(blk)
				answer := r.IO(name, s.text)
				// How a write ended, qemu-io tells only its own terminal.
				if answer != text(err) && strings.HasPrefix(s.text, "truncate") {
					t.Fatalf("%s: ours %q, the reference's %q", s.text, text(err), answer)
				}
				settle(t, ours)
				settle(t, theirs)
				if a, b := stat(t, ours), stat(t, theirs); a.Size != b.Size || max(a.Blocks, b.Blocks)-min(a.Blocks, b.Blocks) > ownBlocks {
					t.Fatalf("%s: ours has %d bytes in %d blocks, the reference's %d in %d", s.text, a.Size, a.Blocks, b.Size, b.Blocks)
				}
			}
			compareFiles(t, ours, theirs)
			compareDiscards(t, r, name, n)
		})
	}
}

// ownBlocks is what the file system may spend on the description of a file
// that lies in pieces on the disk, in units of 512 bytes.
const ownBlocks = 8

// settle lets the file system decide where the file's blocks are: until then it
// counts some that it may not need.
func settle(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func compareFiles(t *testing.T, ours, theirs string) {
	t.Helper()
	a, err1 := os.ReadFile(ours)
	b, err2 := os.ReadFile(theirs)
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("different bytes (%v, %v)", err1, err2)
	}
	if a, b := holes(t, ours), holes(t, theirs); a != b {
		t.Errorf("holes: ours %s, the reference's %s", a, b)
	}
}

func holes(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []string
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			return strings.Join(list, " ")
		}
		if at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%d-%d", data, at))
	}
}

func compareDiscards(t *testing.T, r *drivertest.Reference, name string, n *block.Node) {
	t.Helper()
	got := n.Instance().(block.StatsGetter).DriverStats()
	for row := range r.Do("query-blockstats", `{"query-nodes":true}`).Elems() {
		if row.Get("node-name").Str() != name {
			continue
		}
		s := row.Get("driver-specific")
		want := block.DriverStats{
			Driver:         s.Get("driver").Str(),
			DiscardsOK:     uint64(s.Get("discard-nb-ok").Int()),
			DiscardsFailed: uint64(s.Get("discard-nb-failed").Int()),
			DiscardBytes:   uint64(s.Get("discard-bytes-ok").Int()),
		}
		if *got != want {
			t.Errorf("ours %+v, the reference's %+v", *got, want)
		}
	}
}
