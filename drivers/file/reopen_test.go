package file_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// Which options can change, and how refusals read (observed).
func TestReopen(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	b.Add(node(path, ""))
	for _, c := range []struct{ more, want string }{
		{`"read-only":true`, ""},
		{`"cache":{"direct":true,"no-flush":true}`, ""},
		{`"discard":"unmap","detect-zeroes":"unmap"`, ""},
		{``, ""},
		{`"auto-read-only":true`, ""},
		{`"aio":"threads"`, "Cannot change the option 'aio'"},
		{`"aio":"native","cache":{"direct":true}`, "Cannot change the option 'aio'"},
		{`"aio-max-batch":3`, "Cannot change the option 'aio-max-batch'"},
		{`"locking":"auto"`, "Cannot change the option 'locking'"},
		{`"pr-manager":"x"`, "Cannot change the option 'pr-manager'"},
		{`"x-check-cache-dropped":true`, ""},
		{``, ""},
		{`"drop-cache":true,"x-check-cache-dropped":true`, ""},
		{`"drop-cache":false`, ""},
		{``, "Option 'drop-cache' cannot be reset to its default value"},
		{`"drop-cache":true,"x-check-cache-dropped":false`, ""},
	} {
		expect(t, c.more, b.Reopen(node(path, c.more)), c.want)
	}
	expect(t, "another file", b.Reopen(node(path+"x", `"drop-cache":true`)), "Cannot change the option 'filename'")
}

func TestReopenFixedOptions(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	given := `"locking":"on","aio":"native","aio-max-batch":3`
	b.Add(node(path, given+`,"cache":{"direct":true}`))
	for _, c := range []struct{ more, want string }{
		{``, "Option 'locking' cannot be reset to its default value"},
		{`"locking":"on","aio":"native"`, "Option 'aio-max-batch' cannot be reset to its default value"},
		{`"locking":"on","aio-max-batch":3`, "Option 'aio' cannot be reset to its default value"},
		{`"locking":"off","aio":"native","aio-max-batch":3`, "Cannot change the option 'locking'"},
		{given, ""},
	} {
		expect(t, c.more, b.Reopen(node(path, c.more)), c.want)
	}
}

func TestReopenGone(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path, _ := random(t, 4096)
	blk := b.Use(b.Add(node(path, "")))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, "nothing new", b.Reopen(node(path, "")), "")
	expect(t, "direct", b.Reopen(node(path, `"cache":{"direct":true}`)), "Could not open '"+path+"': No such file or directory")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	expect(t, "a directory", b.Reopen(node(path, `"cache":{"direct":true}`)), "Could not open '"+path+"': Is a directory")
	fill(t, blk, 0, 1, 4096)
	holds(t, blk, 0, 1, 4096)
}

// Permissions may change while a reopen waits for the graph. Whether it then
// happens or not, the file is open and locked as the node needs it.
func TestPermissionsDuringReopen(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	o := open(t, path)
	n := b.Add(node(path, ""))
	blk := use(t, b, n, read, all)
	reopener := n.Instance().(block.Reopener)
	st := &block.ReopenState{Node: n, Flags: n.Flags() &^ block.FlagRDWR, Options: block.NewOptions()}
	b.Main(func(l *aio.Lock) {
		expect(t, "prepare", reopener.ReopenPrepare(l, st), "")
	})
	between := use(t, b, n, write, all)
	b.Main(func(*aio.Lock) { reopener.ReopenAbort(st) })
	o.expect("aborted", "100 101")
	fill(t, between, 0, 1, 512)

	b.Main(func(l *aio.Lock) {
		st.Flags = n.Flags() | block.FlagNoCache
		expect(t, "prepare", reopener.ReopenPrepare(l, st), "")
	})
	b.Drop(between)
	b.Main(func(*aio.Lock) { reopener.ReopenCommit(st) })
	o.expect("committed", "100")
	holds(t, blk, 0, 1, 512)
}

// The limits of O_DIRECT come and go with it.
func TestReopenDirect(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path, _ := random(t, 8192)
	n := b.Add(node(path, ""))
	if l := n.Limits(); l.RequestAlignment != 1 || l.MinMemAlignment != 1 || l.OptMemAlignment != 4096 {
		t.Errorf("cached: %+v", l)
	}
	expect(t, "direct", b.Reopen(node(path, `"cache":{"direct":true}`)), "")
	if l := n.Limits(); l.RequestAlignment < 512 || l.MinMemAlignment < 512 {
		t.Errorf("direct: %+v", l)
	}
	expect(t, "cached", b.Reopen(node(path, "")), "")
	if l := n.Limits(); l.RequestAlignment != 1 {
		t.Errorf("cached again: %+v", l)
	}
}

// setActive hands a node over and takes it back, with the given error.
func setActive(t *testing.T, main func(func(*aio.Lock)), n *block.Node, want string) {
	t.Helper()
	main(func(l *aio.Lock) {
		if err := n.SetActive(l, false); err != nil {
			t.Fatal(err)
		}
		expect(t, "activation", n.SetActive(l, true), want)
	})
}

// A node that becomes active again forgets what it has read; a page that
// somebody has locked in memory stays, which x-check-cache-dropped notices.
func TestCacheDropped(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path, _ := random(t, 256<<10)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	checking := b.Add(named("checking", path, `"x-check-cache-dropped":true`))
	trusting := b.Add(named("trusting", path, ""))
	keeping := b.Add(named("keeping", path, `"drop-cache":false,"x-check-cache-dropped":true`))
	direct := b.Add(named("direct", path, `"x-check-cache-dropped":true,"cache":{"direct":true}`))
	setActive(t, b.Main, checking, "")

	page, err := unix.Mmap(int(f.Fd()), 64<<10, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(page); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Mlock(page); err != nil {
		t.Skip(err)
	}
	setActive(t, b.Main, trusting, "")
	setActive(t, b.Main, keeping, "")
	setActive(t, b.Main, direct, "")
	setActive(t, b.Main, checking, "page cache still in use!")
}
