package file_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

const (
	read           = block.PermConsistentRead
	write          = block.PermWrite
	writeUnchanged = block.PermWriteUnchanged
	resize         = block.PermResize
	all            = block.PermAll
)

// other is somebody else who has the file open.
type other struct {
	testing.TB
	f *os.File
}

func open(tb testing.TB, path string) *other {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return &other{tb, f}
}

func (o *other) fcntl(cmd int, kind int16, offset int64) unix.Flock_t {
	o.Helper()
	lk := unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: offset, Len: 1}
	if err := unix.FcntlFlock(o.f.Fd(), cmd, &lk); err != nil {
		o.Fatal(err)
	}
	return lk
}

func (o *other) lock(kind int16, offset int64) { o.fcntl(unix.F_OFD_SETLK, kind, offset) }
func (o *other) unlock(offset int64)           { o.fcntl(unix.F_OFD_SETLK, unix.F_UNLCK, offset) }

// sees lists the bytes that others have locked.
func (o *other) sees() string {
	o.Helper()
	var bytes []string
	for offset := int64(98); offset < 208; offset++ {
		lk := o.fcntl(unix.F_OFD_GETLK, unix.F_WRLCK, offset)
		if lk.Type == unix.F_RDLCK {
			bytes = append(bytes, fmt.Sprint(offset))
		} else if lk.Type == unix.F_WRLCK {
			bytes = append(bytes, fmt.Sprintf("w%d", offset))
		}
	}
	return strings.Join(bytes, " ")
}

func (o *other) expect(what, want string) {
	o.Helper()
	if got := o.sees(); got != want {
		o.Errorf("%s: locked %q, want %q", what, got, want)
	}
}

// What is locked follows what the users do (transcript blockdev/lock-bytes).
func TestLockedBytes(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	o := open(t, path)
	n := b.Add(node(path, ""))
	o.expect("no users", "")
	first := use(t, b, n, read, all&^resize)
	o.expect("a reader", "100 203")
	second := use(t, b, n, read|write, all&^resize)
	o.expect("and a writer", "100 101 203")
	b.Drop(second)
	o.expect("the reader alone", "100 203")
	b.Drop(first)
	o.expect("nobody", "")
	for _, c := range []struct {
		perm, shared block.Perm
		want         string
	}{
		{0, all, ""},
		{read | write | resize, all &^ (write | resize), "100 101 103 201 203"},
		{write, writeUnchanged, "101 200 201 203"},
		{all, 0, "100 101 102 103 200 201 202 203"},
		{writeUnchanged, all &^ writeUnchanged, "102 202"},
	} {
		blk := use(t, b, n, c.perm, c.shared)
		o.expect(fmt.Sprintf("%v, sharing %v", c.perm, c.shared), c.want)
		b.Drop(blk)
	}
	o.expect("nobody", "")
}

func use(t *testing.T, b *drivertest.Bench, n *block.Node, perm, shared block.Perm) *block.Backend {
	t.Helper()
	blk, err := b.TryUse(n, perm, shared)
	if err != nil {
		t.Fatal(err)
	}
	return blk
}

// Others are noticed by the bytes they hold (texts observed with the
// reference).
func TestLockConflicts(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	o := open(t, path)
	n := b.Add(node(path, ""))
	for _, c := range []struct {
		kind         int16
		offset       int64
		perm, shared block.Perm
		want         string
	}{
		{unix.F_RDLCK, 200, all, 0, `Failed to get "consistent read" lock`},
		{unix.F_RDLCK, 201, all, 0, `Failed to get "write" lock`},
		{unix.F_RDLCK, 202, all, 0, `Failed to get "write unchanged" lock`},
		{unix.F_RDLCK, 203, all, 0, `Failed to get "resize" lock`},
		{unix.F_RDLCK, 100, all, 0, `Failed to get shared "consistent read" lock`},
		{unix.F_RDLCK, 101, all, 0, `Failed to get shared "write" lock`},
		{unix.F_RDLCK, 102, all, 0, `Failed to get shared "write unchanged" lock`},
		{unix.F_RDLCK, 103, all, 0, `Failed to get shared "resize" lock`},
		{unix.F_RDLCK, 101, read | write, all &^ resize, ""},
		{unix.F_RDLCK, 201, read, all &^ resize, ""},
		{unix.F_WRLCK, 100, all, 0, "Failed to lock byte 100"},
		{unix.F_WRLCK, 203, all, 0, "Failed to lock byte 203"},
		{unix.F_WRLCK, 203, resize, all, `Failed to get "resize" lock`},
		{unix.F_WRLCK, 101, read, all &^ write, `Failed to get shared "write" lock`},
	} {
		what := fmt.Sprintf("%v of others on %d, %v, sharing %v", c.kind, c.offset, c.perm, c.shared)
		o.lock(c.kind, c.offset)
		blk, err := b.TryUse(n, c.perm, c.shared)
		expect(t, what, err, c.want)
		if err == nil {
			b.Drop(blk)
		}
		o.expect(what, "")
		o.unlock(c.offset)
	}
}

// A refused user leaves the locks of those before as they were; and users who
// go, or take nothing new, are not refused because of others.
func TestLocksAfterRefusal(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	o := open(t, path)
	n := b.Add(node(path, ""))
	first := use(t, b, n, read, all&^resize)
	second := use(t, b, n, read|write, all&^resize)
	o.lock(unix.F_RDLCK, 200) // somebody who did not look before
	_, err := b.TryUse(n, resize, all)
	expect(t, "resize", err, "Permission conflict on node 'n0': permissions 'resize' are both required by an unnamed block device "+
		"(uses node 'n0' as 'root' child) and unshared by an unnamed block device (uses node 'n0' as 'root' child).")
	_, err = b.TryUse(n, read|writeUnchanged, all)
	expect(t, "write unchanged", err, `Failed to get "consistent read" lock`)
	o.expect("after refusals", "100 101 203")
	third := use(t, b, n, read, all)
	expect(t, "reopen", b.Reopen(node(path, `"cache":{"direct":true}`)), "")
	o.expect("reopened", "100 101 203")
	b.Drop(second)
	b.Drop(first)
	o.expect("the last reader", "100")
	b.Drop(third)
	o.expect("nobody", "")
}

// Two nodes of one process over one file are as strange to each other as two
// processes.
func TestLocksWithinOneProcess(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	one, two := b.Add(named("one", path, "")), b.Add(named("two", path, `"locking":"on"`))
	off := b.Add(named("off", path, `"locking":"off"`))
	writer := use(t, b, one, read|write|resize, read)
	_, err := b.TryUse(two, read|write, all)
	expect(t, "second writer", err, `Failed to get "write" lock`)
	_, err = b.TryUse(two, read, read|writeUnchanged|resize)
	expect(t, "reader that keeps writers away", err, `Failed to get shared "write" lock`)
	use(t, b, two, read, all)
	use(t, b, off, all, 0)
	b.Drop(writer)
	use(t, b, two, write, all)
}

func TestLockingOff(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	o := open(t, path)
	n := b.Add(node(path, `"locking":"off","auto-read-only":true`))
	blk := use(t, b, n, all, 0)
	fill(t, blk, 0, 1, 512)
	o.expect("locking=off", "")
}

// A node that may not be written to keeps its locks as its users want them
// when it becomes read-only and back.
func TestLocksAcrossReopen(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := sparse(t, 1<<20)
	o := open(t, path)
	n := b.Add(node(path, ""))
	blk := use(t, b, n, read, all&^write)
	for _, more := range []string{`"read-only":true`, `"cache":{"direct":true}`, `"auto-read-only":true`, `"x-check-cache-dropped":true`} {
		expect(t, more, b.Reopen(node(path, more)), "")
		o.expect(more, "100 201")
		holds(t, blk, 0, 0, 4096)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, "gone", b.Reopen(node(path, `"read-only":true,"cache":{"direct":true}`)), "Could not open '"+path+"': No such file or directory")
	o.expect("after a failed reopen", "100 201")
	holds(t, blk, 0, 0, 4096)
}

// With auto-read-only the file is open for reading until a writer comes, and
// again when the last one has gone.
func TestDynamicAutoReadOnly(t *testing.T) {
	t.Parallel()
	path := sparse(t, 1<<20)
	var opened []string
	b := drivertest.NewWith(t, block.Config{Drivers: drivers(), OpenFile: func(name string, flags int) (*os.File, error) {
		opened = append(opened, map[int]string{unix.O_RDONLY: "r", unix.O_RDWR: "rw"}[flags])
		return os.OpenFile(name, flags, 0)
	}})
	after := func(what, want string) {
		t.Helper()
		if got := strings.Join(opened, " "); got != want {
			t.Errorf("%s: opened %q, want %q", what, got, want)
		}
		opened = nil
	}
	o := open(t, path)
	n := b.Add(node(path, `"auto-read-only":true`))
	after("add", "r")
	if n.ReadOnly() {
		t.Error("the node calls itself read-only")
	}
	reader := use(t, b, n, read, all)
	after("a reader", "")
	writer := use(t, b, n, read|write, all&^resize)
	after("a writer", "rw")
	o.expect("a writer", "100 101 203")
	fill(t, writer, 0, 7, 4096)
	another := use(t, b, n, write, all)
	b.Drop(writer)
	after("another writer", "")
	b.Drop(another)
	after("no writer", "r")
	o.expect("no writer", "100")
	holds(t, reader, 0, 7, 4096)
	expect(t, "reopen", b.Reopen(node(path, "")), "")
	after("reopen without", "rw")
	expect(t, "reopen", b.Reopen(node(path, `"auto-read-only":true`)), "")
	after("reopen with", "r")

	resizer := use(t, b, n, resize, all)
	after("to resize", "rw")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	b.Drop(resizer)
	after("gone behind our back", "r")
	o.expect("gone behind our back", "100")
	holds(t, reader, 0, 7, 4096)
}

// A refused writer leaves the file open as it was.
func TestAutoReadOnlyRefused(t *testing.T) {
	t.Parallel()
	path := sparse(t, 1<<20)
	b := drivertest.NewWith(t, block.Config{Drivers: drivers(), OpenFile: func(name string, flags int) (*os.File, error) {
		if flags&unix.O_RDWR != 0 {
			return nil, unix.EACCES
		}
		return os.OpenFile(name, flags, 0)
	}})
	_, err := b.TryAdd(node(path, ""))
	refusal := "Could not open '" + path + "': Permission denied"
	expect(t, "add", err, refusal)
	n := b.Add(node(path, `"auto-read-only":true`))
	reader := use(t, b, n, read, all)
	_, err = b.TryUse(n, write, all)
	expect(t, "writer", err, refusal)
	expect(t, "reopen", b.Reopen(node(path, "")), refusal)
	open(t, path).expect("after refusals", "100")
	holds(t, reader, 0, 0, 4096)
	if err := reader.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), 0); err == nil {
		t.Error("written through a descriptor for reading")
	}
}
