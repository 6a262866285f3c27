package luks_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/luks"
)

// Requests of any place and length, in buffers of any length, do what they do
// on a plain disk; on the disk nothing of it is to be seen.
func TestRequests(t *testing.T) {
	t.Parallel()
	b := bench(t)
	const size = 3 << 20
	path := image(t, t.TempDir(), crypto.CreateOptions{}, size)
	n := b.Add(node(path))
	blk := b.Use(n)
	want := read(t, blk, 0, size)
	data := pattern(size)
	for _, r := range []struct{ offset, bytes, cut int }{
		{0, 512, 0}, {512, 4096, 0}, {100, 1000, 0}, {4096, 1<<20 + 512, 700}, {1 << 20, 2 << 20, 1<<20 + 1}, {size - 1, 1, 0}, {65536, 65536, 512},
	} {
		part := data[:r.bytes]
		v := block.Vec{part}
		if r.cut > 0 {
			v = block.Vec{part[:r.cut], part[r.cut:]}
		}
		if err := blk.Pwritev(aio.Outside, int64(r.offset), v, 0); err != nil {
			t.Fatal(err)
		}
		copy(want[r.offset:], part)
		got := make([]byte, r.bytes)
		v = block.Vec{got}
		if r.cut > 0 {
			v = block.Vec{got[:r.cut], got[r.cut:]}
		}
		if err := blk.Preadv(aio.Outside, int64(r.offset), v); err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("%+v", r), got, part)
	}
	if err := blk.PwriteZeroes(aio.Outside, 8192, 100000, 0); err != nil {
		t.Fatal(err)
	}
	clear(want[8192:108192])
	if err := blk.Pdiscard(aio.Outside, 0, size); err != nil {
		t.Fatal(err)
	}
	same(t, "in the end", read(t, blk, 0, size), want)
	same(t, "the caller's data", data, pattern(size))
	b.Drop(blk)
	b.Delete("l")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, data[1024:1088]) || bytes.Contains(raw[len(raw)-size:], make([]byte, 64)) {
		t.Error("something is to be seen in the file")
	}
	same(t, "opened again", read(t, b.Use(b.Add(node(path))), 0, size), want)
}

// Many requests at a time do not disturb each other.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	b := bench(t)
	blk := b.Use(b.Add(node(image(t, t.TempDir(), crypto.CreateOptions{}, 4<<20))))
	var wg sync.WaitGroup
	for k := range 16 {
		wg.Go(func() {
			offset := int64(k) << 18
			v := drivertest.Fill(byte(k+1), 1<<18)
			if err := blk.Pwritev(aio.Outside, offset, v, 0); err != nil {
				t.Error(err)
			}
			if got := read(t, blk, offset, 1<<18); !bytes.Equal(got, v[0]) {
				t.Errorf("request %d reads something else", k)
			}
		})
	}
	wg.Wait()
}

func TestLimits(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(node(image(t, t.TempDir(), crypto.CreateOptions{}, 1<<20)))
	if got := n.Limits().RequestAlignment; got != 512 {
		t.Errorf("alignment %d", got)
	}
	if !n.Encrypted() || n.File().Node().Encrypted() {
		t.Error("the wrong node is encrypted")
	}
	st, err := aio.Mixed(aio.Outside, n.Context(), "status", func(co *aio.Co) (block.Status, error) {
		return n.CoBlockStatus(co, true, 0, 1<<20)
	})
	if err != nil || st.Bytes != 1<<20 || st.Flags&(block.StatusData|block.StatusZero) != block.StatusData {
		t.Errorf("status %+v, %v", st, err)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := image(t, t.TempDir(), crypto.CreateOptions{}, 1<<20)
	n := b.Add(node(path))
	blk := b.Use(n)
	for _, size := range []int64{2 << 20, 512, 0} {
		if err := blk.Truncate(aio.Outside, size, true, block.PreallocOff, 0); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		length, _ := n.GetLength(aio.Outside)
		if err != nil || length != size || info.Size() != size+2068480 {
			t.Errorf("%d bytes in a file of %d, %v", length, info.Size(), err)
		}
	}
	err := blk.Truncate(aio.Outside, math.MaxInt64&^511, true, block.PreallocOff, 0)
	if err == nil {
		t.Error("resized to what no file can hold")
	}
}

// perms is what a node takes and shares on its children.
func perms(n *block.Node) string {
	var s []string
	for _, c := range n.Children() {
		s = append(s, fmt.Sprintf("%s: %v, denies (%v)", c.Name(), c.Perm(), block.PermAll&^c.Shared()))
	}
	slices.Sort(s)
	return strings.Join(s, "; ")
}

// The permissions are the reference's (observed).
func TestPermissions(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(node(image(t, t.TempDir(), crypto.CreateOptions{}, 1<<20)))
	check := func(perm, denied block.Perm) {
		t.Helper()
		f := n.File()
		if f.Perm() != perm || block.PermAll&^f.Shared() != denied {
			t.Error(perms(n))
		}
	}
	check(block.PermConsistentRead, 0)
	blk, err := b.TryUse(n, block.PermWrite, block.PermAll&^block.PermResize)
	if err != nil {
		t.Fatal(err)
	}
	check(block.PermConsistentRead|block.PermWrite, block.PermResize)
	b.Drop(blk)
	check(block.PermConsistentRead, 0)
	b.Main(func(l *aio.Lock) {
		p := n.Instance().(block.AmendPreparer)
		if err := p.AmendBegin(l); err != nil {
			t.Fatal(err)
		}
		check(block.PermConsistentRead|block.PermWrite, block.PermConsistentRead)
		p.AmendEnd(l)
	})
	check(block.PermConsistentRead, 0)
}

func TestReopen(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(node(image(t, t.TempDir(), crypto.CreateOptions{}, 1<<20)))
	for _, c := range []struct{ options, err string }{
		{`"key-secret":"s0","read-only":true`, ""},
		{`"key-secret":"s0"`, ""},
		{`"key-secret":"s1"`, "Cannot change the option 'key-secret'"},
		{`"key-secret":"none"`, "Cannot change the option 'key-secret'"},
		{`"read-only":true`, "Option 'key-secret' cannot be reset to its default value"},
	} {
		if err := b.Reopen(`{"driver":"luks","node-name":"l","file":"f",` + c.options + `}`); text(err) != c.err {
			t.Errorf("%s: %v", c.options, err)
		}
	}
	if n.ReadOnly() {
		t.Error("read-only")
	}
}

// detached makes a header and a file with data.
func detached(tb testing.TB, dir string, change func(header []byte)) string {
	tb.Helper()
	h := header(tb, crypto.CreateOptions{Detached: true})
	if change != nil {
		change(h)
	}
	write(tb, filepath.Join(dir, "header"), h)
	write(tb, filepath.Join(dir, "data"), make([]byte, 1<<20))
	return fmt.Sprintf(`{"driver":"luks","node-name":"l","key-secret":"s0",
		"header":{"driver":"file","filename":"%s/header","node-name":"h"},"file":{"driver":"file","filename":"%[1]s/data","node-name":"f"}}`, dir)
}

func TestDetached(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(detached(t, t.TempDir(), nil))
	blk := b.Use(n)
	want := pattern(8192)
	if err := blk.Pwritev(aio.Outside, 0, block.Vec{want}, 0); err != nil {
		t.Fatal(err)
	}
	same(t, "detached", read(t, blk, 0, 8192), want)
	info, err := aio.Mixed(aio.Outside, n.Context(), "info", n.Instance().(block.SpecificInfoGetter).SpecificInfo)
	if l := info.Data.(crypto.Info); err != nil || !l.Detached || l.PayloadOffset != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	b.Drop(blk)
	if got := perms(n); got != "file: consistent read, denies (); header: consistent read, denies ()" {
		t.Error(got)
	}
	if err := b.Reopen(`{"driver":"luks","node-name":"l","file":"f","key-secret":"s0"}`); text(err) != "Option 'driver' cannot be reset to its default value" {
		t.Errorf("reopened without its header: %v", err)
	}
	b.Delete("l")

	// A header apart from the data may say that the data begins anywhere.
	n = b.Add(detached(t, t.TempDir(), func(h []byte) { binary.BigEndian.PutUint32(h[104:], 1) }))
	if length, err := n.GetLength(aio.Outside); err != nil || length != 1<<20-512 {
		t.Errorf("%d bytes, %v", length, err)
	}
	b.Delete("l")
	_, err = b.TryAdd(detached(t, t.TempDir(), func(h []byte) { binary.BigEndian.PutUint32(h[104:], 1e6) }))
	if text(err) != "Could not refresh total sector count: Input/output error" {
		t.Errorf("data behind the end: %v", err)
	}
}

// What the file does not do is no success.
func TestErrorsBelow(t *testing.T) {
	t.Parallel()
	b := bench(t)
	h := header(t, crypto.CreateOptions{})
	mem := b.Add(fmt.Sprintf(`{"driver":"mem","node-name":"m","size":%d}`, len(h)+1<<20))
	disk := drivertest.DiskOf(mem)
	if err := b.Use(mem).Pwritev(aio.Outside, 0, block.Vec{h}, 0); err != nil {
		t.Fatal(err)
	}
	blk := b.Use(b.Add(`{"driver":"luks","node-name":"l","key-secret":"s0","file":"m"}`))
	disk.TakeCalls()
	if err := blk.Pwritev(aio.Outside, 512, drivertest.Fill(1, 1024), block.ReqFUA); err != nil {
		t.Fatal(err)
	}
	if got := disk.TakeCalls(); !slices.Equal(got, []string{fmt.Sprintf("write %d+1024", len(h)+512), "flush"}) {
		t.Errorf("the file got %q", got)
	}
	disk.SetHook(func(*aio.Co, drivertest.Call) error { return syscall.EIO })
	for _, err := range []error{
		blk.Preadv(aio.Outside, 0, block.Vec{make([]byte, 512)}),
		blk.Preadv(aio.Outside, 0, block.Vec{make([]byte, 500), make([]byte, 12)}),
		blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), 0),
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v", err)
		}
	}
	_, err := b.TryAdd(`{"driver":"luks","node-name":"again","key-secret":"s0","file":"m"}`)
	if text(err) != "Could not read encryption header: Input/output error" {
		t.Errorf("opening: %v", err)
	}
	disk.SetHook(nil)
}

// in runs f in a coroutine.
func in(b *drivertest.Bench, f func(co *aio.Co) error) error {
	_, err := aio.Mixed(aio.Outside, b.Graph.Main(), "test", func(co *aio.Co) (struct{}, error) { return struct{}{}, f(co) })
	return err
}

func TestAmend(t *testing.T) {
	t.Parallel()
	b := bench(t)
	path := image(t, t.TempDir(), crypto.CreateOptions{}, 1<<20)
	n := b.Add(node(path))
	amend := func(options string, force bool) error {
		p := n.Instance().(block.AmendPreparer)
		var err error
		b.Main(func(l *aio.Lock) { err = p.AmendBegin(l) })
		if err == nil {
			err = in(b, func(co *aio.Co) error { return n.Amender().CoAmend(co, b.Options(options), force) })
		}
		b.Main(func(l *aio.Lock) { p.AmendEnd(l) })
		return err
	}
	for _, c := range []struct {
		options string
		force   bool
		err     string
	}{
		{`{"state":"active"}`, false, "'new-secret' is required to activate a keyslot"},
		{`{"state":"active","new-secret":"s1","keyslot":0}`, false, "Refusing to overwrite active keyslot 0 - please erase it first"},
		{`{"state":"active","new-secret":"s1","iter-time":0}`, false, ""},
		{`{"state":"inactive","old-secret":"s0"}`, false, ""},
		{`{"state":"inactive","keyslot":1}`, false, "Attempt to erase the only active keyslot 1 " +
			"which will erase all the data in the image irreversibly - refusing operation"},
	} {
		if err := amend(c.options, c.force); text(err) != c.err {
			t.Errorf("%s: %v", c.options, err)
		}
	}
	b.Delete("l")
	if _, err := b.TryAdd(node(path)); text(err) != "Invalid password, cannot unlock any keyslot" {
		t.Errorf("with the old passphrase: %v", err)
	}
	n = b.Add(strings.Replace(node(path), `"s0"`, `"s1"`, 1))
	if err := amend(`{"state":"inactive","keyslot":1}`, true); err != nil {
		t.Error(err)
	}
	// The key is gone, but whoever has the volume open goes on.
	read(t, b.Use(n), 0, 512)
}

// Who reads the header, or cannot be written to, is in the way of an amendment.
func TestAmendRefused(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(node(image(t, t.TempDir(), crypto.CreateOptions{}, 1<<20)))
	if _, err := b.TryUse(b.Graph.Node("f"), block.PermConsistentRead, block.PermAll); err != nil {
		t.Fatal(err)
	}
	p := n.Instance().(block.AmendPreparer)
	before := perms(n)
	b.Main(func(l *aio.Lock) {
		if err := p.AmendBegin(l); err == nil {
			t.Error("begun")
		}
		p.AmendEnd(l)
	})
	if got := perms(n); got != before {
		t.Errorf("%s, was %s", got, before)
	}
}

// Each way to make a volume makes one that can be used.
func TestCreate(t *testing.T) {
	t.Parallel()
	b := bench(t)
	dir := t.TempDir()
	for _, name := range []string{"a", "h"} {
		write(t, filepath.Join(dir, name), nil)
		b.Add(fmt.Sprintf(`{"driver":"file","node-name":%q,"filename":"%s/%[1]s"}`, name, dir))
	}
	b.Add(`{"driver":"null-co","node-name":"ro","size":1048576,"read-only":true}`)
	b.Add(`{"driver":"null-co","node-name":"n","size":1048576}`)
	b.Add(`{"driver":"raw","node-name":"fixed","file":"n","size":1048576}`)
	const wantsFile = "Parameter 'preallocation' requires 'file' to be specified for formatting LUKS disk"
	for _, c := range []struct {
		options string
		err     string
		open    string // how to open it
	}{
		{`"size":1048576`, "Either the parameter 'header' or 'file' must be specified", ""},
		{`"size":1048576,"header":"none","preallocation":"full"`, wantsFile, ""},
		{`"size":1048576,"header":"h","preallocation":"metadata"`, wantsFile, ""},
		{`"size":1048576,"file":"none","header":"nope"`, "Cannot find device='nope' nor node-name='nope'", ""},
		{`"size":1048576,"file":"none","header":"ro"`, "Block node is read-only", ""},
		{`"size":1048576,"file":"ro","key-secret":"s9"`, "Block node is read-only", ""},
		{`"size":1048576,"file":"a","key-secret":"s9"`, "No secret with id 's9'", ""},
		{`"size":1048576,"file":"a","key-secret":"nul"`, "Data from secret nul is not valid UTF-8", ""},
		{`"size":1048576,"file":"a","cipher-alg":"des","key-secret":"s9"`, "No secret with id 's9'", ""},
		{`"size":1048576,"file":"a","cipher-alg":"des"`, "Algorithm 'des' not supported", ""},
		{`"size":1048576,"file":"a","cipher-alg":"cast5-128"`, "Unsupported cipher mode xts", ""},
		{`"size":1048576,"file":"a","cipher-alg":"cast5-128","ivgen-alg":"essiv"`, "Cipher cast5-128 not supported with essiv", ""},
		{`"size":1048576,"file":"a","ivgen-alg":"essiv","ivgen-hash-alg":"sha1"`, "No AES cipher with key size 20 available", ""},
		{`"size":18446744073709551615,"file":"a"`, "The requested file size is too large", ""},
		{`"size":1048576,"file":"fixed"`, "Cannot resize fixed-size raw disks", ""},
		{`"size":1048576,"file":"fixed","header":"h"`, "Operation not supported", ""},
		{`"size":1048576,"file":"a"`, "", `"file":"a"`},
		{`"size":1048576,"file":"a","preallocation":"metadata"`, "", `"file":"a"`},
		{`"size":1048576,"file":"a","preallocation":"full","hash-alg":"sm3","ivgen-alg":"plain","ivgen-hash-alg":"md5"`, "", `"file":"a"`},
		{`"size":1048576,"file":"a","header":"h"`, "", `"file":"a","header":"h"`},
		{`"size":5,"header":"h"`, "", `"file":"a","header":"h"`},
	} {
		options := `{` + c.options + `,"iter-time":0}`
		if !strings.Contains(options, "key-secret") {
			options = `{"key-secret":"s0",` + options[1:]
		}
		err := in(b, func(co *aio.Co) error { return b.Graph.CoCreate(co, luks.Driver(), b.Options(options)) })
		if text(err) != c.err {
			t.Errorf("%s: %v", options, err)
		}
		if c.open == "" || err != nil {
			continue
		}
		n := b.Add(`{"driver":"luks","node-name":"l","key-secret":"s0",` + c.open + `}`)
		if length, err := n.GetLength(aio.Outside); err != nil || length != 1<<20 {
			t.Errorf("%s: %d bytes, %v", options, length, err)
		}
		b.Delete("l")
	}
	if err := in(b, func(co *aio.Co) error {
		return b.Graph.CoCreate(co, luks.Driver(), b.Options(`{"size":1048576,"file":"a"}`))
	}); text(err) != "Parameter 'key-secret' is required for cipher" {
		t.Errorf("without a secret: %v", err)
	}
}

// BenchmarkRequests is how fast requests are read and written through a volume
// whose file is in the page cache.
func BenchmarkRequests(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		bn := bench(b)
		bn.Add(fmt.Sprintf(`{"driver":"file","node-name":"m","filename":%q}`, image(b, b.TempDir(), crypto.CreateOptions{}, 8<<20)))
		blk := bn.Use(bn.Add(`{"driver":"luks","node-name":"l","key-secret":"s0","file":"m"}`))
		v := drivertest.Fill(1, size)
		err := in(bn, func(co *aio.Co) error {
			for name, f := range map[string]func() error{
				"read":  func() error { return blk.CoPreadv(co, 0, v, 0) },
				"write": func() error { return blk.CoPwritev(co, 0, v, 0) },
			} {
				b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						if err := f(); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
