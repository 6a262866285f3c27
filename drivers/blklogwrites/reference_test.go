package blklogwrites_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// op is a request, for ours and for the reference.
type op struct {
	kind          string // write, zero, discard, flush
	offset, bytes int64
	flags         block.ReqFlags
	value         byte
}

func (o op) qemuIO() string {
	flags := ""
	if o.flags&block.ReqFUA != 0 {
		flags += "-f "
	}
	if o.flags&block.ReqMayUnmap != 0 {
		flags += "-u "
	}
	switch o.kind {
	case "write":
		return fmt.Sprintf("write %s-P %d %d %d", flags, o.value, o.offset, o.bytes)
	case "zero":
		return fmt.Sprintf("write -z %s%d %d", flags, o.offset, o.bytes)
	case "discard":
		return fmt.Sprintf("discard %d %d", o.offset, o.bytes)
	}
	return o.kind
}

func (o op) run(blk *block.Backend) error {
	switch o.kind {
	case "write":
		return blk.Pwritev(aio.Outside, o.offset, drivertest.Fill(o.value, int(o.bytes)), o.flags)
	case "zero":
		return blk.PwriteZeroes(aio.Outside, o.offset, o.bytes, o.flags)
	case "discard":
		return blk.Pdiscard(aio.Outside, o.offset, o.bytes)
	}
	return blk.Flush(aio.Outside)
}

const diskSize = 1 << 20

// conversations are logs: what was asked of the disk, in runs between which
// the node is deleted and added again with other options.
var conversations = []struct {
	name string
	runs []run
}{
	{"every kind", []run{{`,"discard":"unmap"`, []op{
		{"write", 65536, 4096, 0, 1},
		{"write", 0, 512, 0, 2},
		{"flush", 0, 0, 0, 0},
		{"flush", 0, 0, 0, 0},
		{"zero", 0, 8192, 0, 0},
		{"zero", 16384, 65536, block.ReqMayUnmap, 0},
		{"discard", 4096, 8192, 0, 0},
		{"write", 1024, 1024, block.ReqFUA, 3},
		{"discard", 0, diskSize, 0, 0},
	}}}},
	{"discards ignored", []run{{``, []op{
		{"discard", 4096, 8192, 0, 0},
		{"write", 0, 512, 0, 2},
		{"discard", 4096, 8192, 0, 0},
	}}}},
	{"unaligned", []run{{``, []op{
		{"write", 100, 200, 0, 1},
		{"zero", 100, 10000, 0, 0},
		{"write", 5000, 5000, 0, 2},
	}}}},
	{"large sectors", []run{{`,"log-sector-size":4096,"discard":"unmap"`, []op{
		{"write", 100, 200, 0, 1},
		{"zero", 100, 10000, 0, 0},
		{"zero", 512, 12288, block.ReqMayUnmap, 0},
		{"write", 5000, 50000, 0, 2},
		{"discard", 4096, 8192, 0, 0},
	}}}},
	{"small sectors", []run{{`,"log-sector-size":32`, []op{
		{"write", 1, 1, 0, 1},
		{"write", 32, 64, 0, 2},
	}}}},
	{"nothing", []run{{``, []op{{"flush", 0, 0, 0, 0}}}}},
	{"unused flushes", []run{{`,"cache":{"no-flush":true},"log-super-update-interval":1`, []op{
		{"write", 0, 512, 0, 1},
		{"flush", 0, 0, 0, 0},
		{"write", 512, 512, block.ReqFUA, 2},
	}}}},
	{"appended", []run{
		{`,"log-sector-size":1024`, []op{{"write", 0, 1024, 0, 1}, {"write", 1024, 2048, 0, 2}}},
		{`,"log-append":true,"discard":"unmap"`, []op{{"write", 0, 1024, 0, 3}, {"discard", 0, 4096, 0, 0}}},
		{`,"log-append":true`, nil},
		{`,"log-append":true`, []op{{"zero", 0, 2048, 0, 0}}},
	}},
	{"appended to an empty one", []run{{`,"log-append":true`, []op{{"write", 0, 4096, 0, 1}}}}},
	{"overwritten", []run{
		{``, []op{{"write", 0, 4096, 0, 1}}},
		{``, nil},
		{`,"log-append":false`, []op{{"write", 0, 1024, 0, 2}}},
	}},
}

type run struct {
	options string
	ops     []op
}

// TestLogsOfReference compares logs with those of the reference byte for byte.
func TestLogsOfReference(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	for _, c := range conversations {
		a, log := filepath.Join(r.Dir, "a"), filepath.Join(r.Dir, "log")
		for path, size := range map[string]int64{a: diskSize, log: 0} {
			if err := os.WriteFile(path, make([]byte, size), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		for _, run := range c.runs {
			r.Do("blockdev-add", `{"driver":"blklogwrites","node-name":"b","file":{"driver":"file","filename":"a"},
				"log":{"driver":"file","filename":"log"}`+run.options+`}`)
			for _, o := range run.ops {
				if out := r.IO("b", o.qemuIO()); out != "" {
					t.Errorf("%s: %s: %s", c.name, o.qemuIO(), out)
				}
			}
			r.Do("blockdev-del", `{"node-name":"b"}`)
		}
		theirs, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if ours := converse(t, c.runs); !bytes.Equal(ours, theirs) {
			t.Errorf("%s: the logs differ:\nours   %d bytes\n%s\ntheirs %d bytes\n%s",
				c.name, len(ours), listing(t, ours), len(theirs), listing(t, theirs))
		}
	}
}

// converse asks the same of ours and returns the log.
func converse(t *testing.T, runs []run) []byte {
	b := bench(t)
	b.Add(fmt.Sprintf(`{"driver":"mem","node-name":"a","zero":true,"size":%d}`, diskSize))
	log := b.Add(`{"driver":"mem","node-name":"log","zero":true,"size":0}`)
	for _, run := range runs {
		blk := b.Use(b.Add(`{"driver":"blklogwrites","node-name":"b","file":"a","log":"log"` + run.options + `}`))
		for _, o := range run.ops {
			if err := o.run(blk); err != nil {
				t.Error(err)
			}
		}
		b.Drop(blk)
		b.Delete("b")
	}
	return drivertest.DiskOf(log).Bytes()
}

// refused are options that make no node; TestOptionsOfReference asks the
// reference for the same words.
var refused = []struct{ options, err string }{
	{`,"log-sector-size":0`, "Invalid log sector size 0"},
	{`,"log-sector-size":16`, "Invalid log sector size 16"},
	{`,"log-sector-size":1000`, "Invalid log sector size 1000"},
	{`,"log-sector-size":16777216`, "Invalid log sector size 16777216"},
	{`,"log-super-update-interval":0`, "Invalid log superblock update interval 0"},
	{`,"log-sector-size":1000,"log-super-update-interval":0`, "Invalid log sector size 1000"},
	{`,"log-append":true,"log-sector-size":512`, "log-append and log-sector-size are mutually exclusive"},
	{`,"log-append":true,"log-super-update-interval":0`, "Invalid log superblock magic"},
	{`,"log-append":true`, "Invalid log superblock magic"},
	{`,"log":"nope"`, "Cannot find device='nope' nor node-name='nope'"},
	{`,"log":{"driver":"null-co","read-only":true}`, "Block node is read-only"},
}

func logwritesNode(options string) string {
	if !bytes.Contains([]byte(options), []byte(`"log":`)) {
		options += `,"log":{"driver":"null-co","read-zeroes":true,"node-name":"l"}`
	}
	return `{"driver":"blklogwrites","node-name":"b","file":{"driver":"null-co","size":1048576}` + options + `}`
}

func TestOptionsOfReference(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	for _, c := range refused {
		if _, desc := r.Ask("blockdev-add", logwritesNode(c.options)); desc != c.err {
			t.Errorf("%s: %q, want %q", c.options, desc, c.err)
		}
	}
	for _, c := range damaged {
		if !c.reference {
			continue
		}
		if err := os.WriteFile(filepath.Join(r.Dir, "l"), c.log, 0o666); err != nil {
			t.Fatal(err)
		}
		_, desc := r.Ask("blockdev-add", logwritesNode(`,"log-append":true,"log":{"driver":"file","filename":"l"}`))
		if desc != c.err {
			t.Errorf("%s: %q, want %q", c.name, desc, c.err)
		}
	}
	r.Do("blockdev-add", logwritesNode(`,"log-append":false,"log-sector-size":512,"log-super-update-interval":4096`))
	if got := r.Node("b").Get("image").Get("filename").Str(); got != filename {
		t.Errorf("its name is %s", got)
	}
	_, desc := r.Ask("blockdev-reopen", `{"options":[{"driver":"blklogwrites","node-name":"b","file":"l","log":"l"}]}`)
	if desc != noReopen {
		t.Errorf("reopening: %q", desc)
	}
}
