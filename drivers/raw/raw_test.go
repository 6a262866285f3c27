package raw_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

func bench(tb testing.TB) *drivertest.Bench { return drivertest.New(tb, raw.Driver(), null.Co()) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// windows are windows into a file of 1 MiB, with what becomes of them: the
// disk's length and the permissions on the file that nobody else may take, or
// an error. TestReference asks the reference for the same.
var windows = []struct {
	options string
	length  int64
	denied  block.Perm
	err     string
}{
	{options: ``, length: 1 << 20},
	{options: `,"offset":0`, length: 1 << 20},
	{options: `,"size":0`, denied: block.PermResize},
	{options: `,"size":512`, length: 512, denied: block.PermResize},
	{options: `,"size":1048576`, length: 1 << 20, denied: block.PermResize},
	{options: `,"offset":1`, length: 1 << 20, denied: block.PermResize},
	{options: `,"offset":1000`, length: 1048064, denied: block.PermResize},
	{options: `,"offset":1000,"size":512`, length: 512, denied: block.PermResize},
	{options: `,"offset":1048576`, denied: block.PermResize},
	{options: `,"offset":512,"read-only":true`, length: 1048064, denied: block.PermResize},
	{options: `,"offset":1048577`, err: "Offset (1048577) cannot be greater than size of the containing file (1048576)"},
	{
		options: `,"offset":9223372036854775807,"size":100`,
		err:     "Offset (9223372036854775807) cannot be greater than size of the containing file (1048576)",
	},
	{
		options: `,"offset":512,"size":1048576`,
		err:     "The sum of offset (512) and size (1048576) has to be smaller or equal to the  actual size of the containing file (1048576)",
	},
	{
		options: `,"size":9223372036854775807`,
		err:     "The sum of offset (0) and size (9223372036854775807) has to be smaller or equal to the  actual size of the containing file (1048576)",
	},
	{options: `,"size":100`, err: "Specified size is not multiple of 512"},
	{options: `,"offset":-1,"size":-2`, err: "Value '-1' is out of range for parameter 'offset'"},
	{options: `,"size":-512`, err: "Value '-512' is out of range for parameter 'size'"},
	{options: `,"file":"nope"`, err: "Cannot find device='nope' nor node-name='nope'"},
}

func rawNode(options string) string {
	file := `"file":{"driver":"null-co","size":1048576,"node-name":"f"}`
	if strings.Contains(options, `"file"`) {
		return `{"driver":"raw","node-name":"r"` + options + `}`
	}
	return `{"driver":"raw","node-name":"r",` + file + options + `}`
}

func TestWindows(t *testing.T) {
	t.Parallel()
	b := bench(t)
	for _, c := range windows {
		n, err := b.TryAdd(rawNode(c.options))
		if got := text(err); got != c.err {
			t.Errorf("%s: %q, want %q", c.options, got, c.err)
		}
		if err != nil {
			continue
		}
		length, err := n.GetLength(aio.Outside)
		if err != nil || length != c.length {
			t.Errorf("%s: %d bytes, %v, want %d", c.options, length, err, c.length)
		}
		if file := n.File(); file.Perm() != 0 || file.Shared() != block.PermAll&^c.denied {
			t.Errorf("%s: takes %v and shares %v", c.options, file.Perm(), file.Shared())
		}
		b.Delete("r")
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	for _, c := range windows {
		_, desc := r.Ask("blockdev-add", rawNode(c.options))
		if desc != c.err {
			t.Errorf("%s: %q, want %q", c.options, desc, c.err)
		}
		if desc != "" {
			continue
		}
		if got := r.Node("r").Get("image").Get("virtual-size").Int(); got != c.length {
			t.Errorf("%s: %d bytes, want %d", c.options, got, c.length)
		}
		for e := range r.Do("x-debug-query-block-graph", "{}").Get("edges").Elems() {
			if denied := block.PermResize * block.Perm(4-e.Get("shared-perm").Len()); denied != c.denied || e.Get("perm").Len() != 0 {
				t.Errorf("%s: %v", c.options, e)
			}
		}
		r.Do("blockdev-del", `{"node-name":"r"}`)
	}
}

func TestRequestsMove(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","offset":1000,"size":4096,"discard":"unmap",
		"file":{"driver":"mem","size":8192,"zero":true,"fua":true}}`)
	disk := drivertest.DiskOf(n.File().Node())
	blk := b.Use(n)
	for _, f := range []func() error{
		func() error { return blk.Pwritev(aio.Outside, 24, drivertest.Fill(1, 100), 0) },
		func() error { return blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 4096), block.ReqFUA) },
		func() error { return blk.Preadv(aio.Outside, 4095, drivertest.Fill(0, 1)) },
		func() error { return blk.PwriteZeroes(aio.Outside, 512, 512, block.ReqMayUnmap) },
		func() error { return blk.Pdiscard(aio.Outside, 1, 1000) },
		func() error { return blk.Flush(aio.Outside) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"write 1024+100", "write 1000+4096 fua", "read 5095+1", "zero 1512+512 unmap", "discard 1001+1000", "flush",
	}
	if got := disk.TakeCalls(); !slices.Equal(got, want) {
		t.Errorf("the file got %q, want %q", got, want)
	}
	for _, err := range []error{
		blk.Preadv(aio.Outside, 4095, drivertest.Fill(0, 2)),
		blk.Pwritev(aio.Outside, 4096, drivertest.Fill(0, 1), 0),
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("beyond the end: %v", err)
		}
	}
}

// A user who may grow the disk finds its window full.
func TestBeyondWindow(t *testing.T) {
	t.Parallel()
	b := bench(t)
	blk := b.Use(b.Add(`{"driver":"raw","node-name":"r","size":4096,"file":{"driver":"mem","size":8192}}`))
	blk.AllowWriteBeyondEOF = true
	for _, err := range []error{
		blk.Pwritev(aio.Outside, 4096, drivertest.Fill(1, 1), 0),
		blk.PwriteZeroes(aio.Outside, 4000, 97, 0),
	} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v, want ENOSPC", err)
		}
	}
	v := drivertest.Fill(7, 10)
	if err := blk.Preadv(aio.Outside, 4090, v); err != nil || v[0][9] != 0 {
		t.Errorf("reading across the end: %v, %v", v, err)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","offset":1000,"file":{"driver":"mem","node-name":"f","size":8192}}`)
	blk := b.Use(n)
	if err := blk.Truncate(aio.Outside, 512, true, block.PreallocOff, 0); err != nil {
		t.Fatal(err)
	}
	if got := len(drivertest.DiskOf(b.Graph.Node("f")).Bytes()); got != 1512 {
		t.Errorf("the file has %d bytes", got)
	}
	if got, _ := n.GetLength(aio.Outside); got != 1024 {
		t.Errorf("the disk has %d bytes", got) // of which the file holds 512
	}
	const conflict = "Permission conflict on node 'f': permissions 'resize' are both required by an unnamed block device " +
		"(uses node 'f' as 'root' child) and unshared by node 'r' (uses node 'f' as 'file' child)."
	if _, err := b.TryUse(b.Graph.Node("f"), block.PermResize, block.PermAll); text(err) != conflict {
		t.Errorf("got %v", err)
	}
	b.Drop(blk)
	b.Delete("r")

	b.Add(`{"driver":"null-co","node-name":"huge","size":9223372035781033984}`)
	for _, c := range []struct{ options, err string }{
		{`"size":4096`, "Cannot resize fixed-size raw disks"},
		{`"offset":2147483648`, "Disk size too large for the chosen offset"},
	} {
		blk := b.Use(b.Add(`{"driver":"raw","node-name":"r","file":"huge",` + c.options + `}`))
		if err := blk.Truncate(aio.Outside, 1<<63-1<<30, true, block.PreallocOff, 0); text(err) != c.err {
			t.Errorf("%s: %v", c.options, err)
		}
		b.Drop(blk)
		b.Delete("r")
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","offset":1000,"size":4096,"file":{"driver":"raw","offset":24,
		"file":{"driver":"null-co","node-name":"f","size":65536,"read-zeroes":true}}}`)
	st, err := n.BlockStatus(aio.Outside, true, 100, 1<<20)
	want := block.Status{
		Flags: block.StatusOffsetValid | block.StatusZero | block.StatusAllocated | block.StatusEOF,
		Bytes: 3996, Map: 1124, File: b.Graph.Node("f"),
	}
	if err != nil || st != want {
		t.Errorf("%+v, %v", st, err)
	}
	if st, err = n.BlockStatus(aio.Outside, true, 0, 512); err != nil || st.Bytes != 512 || st.Flags&block.StatusEOF != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"null-co","node-name":"f","size":1048576}`)
	b.Add(`{"driver":"null-co","node-name":"s","size":65536}`)
	n := b.Add(`{"driver":"raw","node-name":"r","file":"f","offset":512}`)
	// One after the other, the answers of the reference.
	for _, c := range []struct {
		options string
		length  int64
		name    string
		err     string
	}{
		{`"file":"f","offset":1024`, 1047552, `json:{"offset": 1024, "driver": "raw", "file": {"driver": "null-co", "size": 1048576}}`, ""},
		{`"file":"f","size":4096`, 4096, `json:{"driver": "raw", "size": 4096, "file": {"driver": "null-co", "size": 1048576}}`, ""},
		{`"file":"f","size":-1`, 4096, "", "Value '-1' is out of range for parameter 'size'"},
		{`"file":"f","size":513`, 4096, "", "Specified size is not multiple of 512"},
		{`"file":"f","offset":2097152,"size":100`, 4096, "", "Offset (2097152) cannot be greater than size of the containing file (1048576)"},
		{`"file":"f"`, 1048576, `json:{"driver": "raw", "file": {"driver": "null-co", "size": 1048576}}`, ""},
		{`"file":"f","offset":0`, 1048576, `json:{"offset": 0, "driver": "raw", "file": {"driver": "null-co", "size": 1048576}}`, ""},
		{`"file":"r"`, 1048576, "", "Making 'r' a file child of 'r' would create a cycle"},
		{`"file":"nope"`, 1048576, "", "Cannot find device='' nor node-name='nope'"},
		{`"file":"f","force-share":true`, 1048576, "", "Cannot change the option 'force-share'"},
		{`"file":"s","size":131072`, 65536, `json:{"driver": "raw", "size": 131072, "file": {"driver": "null-co", "size": 65536}}`, ""},
		{`"file":"f","size":131072`, 65536, "", "The sum of offset (0) and size (131072) has to be smaller or equal to the  actual size of the containing file (65536)"},
		{`"file":"f"`, 1048576, "", ""},
	} {
		err := b.Reopen(`{"driver":"raw","node-name":"r",` + c.options + `}`)
		if text(err) != c.err {
			t.Errorf("%s: %q, want %q", c.options, text(err), c.err)
		}
		if got, err := n.GetLength(aio.Outside); err != nil || got != c.length {
			t.Errorf("%s: %d bytes, %v, want %d", c.options, got, err, c.length)
		}
		if c.name != "" && n.Filename() != c.name {
			t.Errorf("%s: %s", c.options, n.Filename())
		}
	}
}

// Who was given force-share at all cannot be reopened any more; so it is in
// the reference.
func TestReopenForceShare(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"raw","node-name":"r","read-only":true,"force-share":true,"file":{"driver":"null-co","node-name":"f"}}`)
	for _, c := range []struct{ options, err string }{
		{`"read-only":true`, "Option 'force-share' cannot be reset to its default value"},
		{`"read-only":true,"force-share":true`, "Cannot change the option 'force-share'"},
		{`"force-share":true`, "Cannot change the option 'force-share'"},
	} {
		if err := b.Reopen(`{"driver":"raw","node-name":"r","file":"f",` + c.options + `}`); text(err) != c.err {
			t.Errorf("%s: %v", c.options, err)
		}
	}
}

// Whether a node minds its file's being resized is decided when it is opened:
// a window that comes or goes by a reopen changes nothing.
func TestReopenPermissions(t *testing.T) {
	t.Parallel()
	b := bench(t)
	const fixed = block.PermAll &^ block.PermResize
	for _, c := range []struct {
		name, opened, reopened string
		shared                 block.Perm
	}{
		{"never", ``, ``, block.PermAll},
		{"later", ``, `,"size":512`, block.PermAll},
		{"first", `,"size":512`, ``, fixed},
		{"always", `,"offset":512`, `,"offset":1024`, fixed},
	} {
		file := `,"file":"` + c.name + `-file"`
		b.Add(`{"driver":"mem","node-name":"` + c.name + `-file","size":4096}`)
		n := b.Add(`{"driver":"raw","node-name":"` + c.name + `"` + file + c.opened + `}`)
		if err := b.Reopen(`{"driver":"raw","node-name":"` + c.name + `"` + file + c.reopened + `}`); err != nil {
			t.Error(err)
		}
		if n.File().Shared() != c.shared {
			t.Errorf("%s: the node shares %v", c.name, n.File().Shared())
		}
		blk, err := b.TryUse(n, block.PermWrite, block.PermAll)
		if err != nil {
			t.Fatal(err)
		}
		if n.File().Perm() != block.PermWrite {
			t.Errorf("%s: the node takes %v for a writer", c.name, n.File().Perm())
		}
		b.Drop(blk)
	}
}
