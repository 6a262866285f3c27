package luks_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// reference starts the reference with the secrets of the tests.
func reference(tb testing.TB) *drivertest.Reference {
	tb.Helper()
	r := drivertest.StartReference(tb)
	for id, data := range known {
		if id == "nul" {
			continue // JSON has no way to say it
		}
		r.Do("object-add", fmt.Sprintf(`{"qom-type":"secret","id":%q,"data":%q}`, id, data))
	}
	r.Do("object-add", `{"qom-type":"secret","id":"nul","data":"YQBi","format":"base64"}`)
	return r
}

// damage is a change of a header.
type damage struct {
	what string
	do   func(h []byte)
}

func put(offset int, b ...byte) func([]byte) {
	return func(h []byte) { copy(h[offset:], b) }
}

func number(offset int, n uint32) func([]byte) {
	return func(h []byte) { binary.BigEndian.PutUint32(h[offset:], n) }
}

func words(offset int, s string) func([]byte) { return put(offset, append([]byte(s), 0)...) }

func both(list ...func([]byte)) func([]byte) {
	return func(h []byte) {
		for _, f := range list {
			f(h)
		}
	}
}

// Where the fields are (LUKS1 On-Disk Format, 2.1).
const (
	atVersion  = 6
	atCipher   = 8
	atMode     = 40
	atHash     = 72
	atPayload  = 104
	atKeyBytes = 108
	atIters    = 164
	atSlots    = 208
	slotSize   = 48
)

func slotAt(n, offset int) int { return atSlots + n*slotSize + offset }

// damages are single ones, and pairs of which one is found first.
func damages() []damage {
	list := []damage{
		{"nothing", func([]byte) {}},
		{"magic", put(0, 'X')},
		{"version 2", put(atVersion, 0, 2)},
		{"version 65535", put(atVersion, 0xff, 0xff)},
		{"uuid not terminated", put(168, []byte(strings.Repeat("x", 40))...)},
		{"master key never derived", number(atIters, 0)},
		{"master key derived once", number(atIters, 1)},
		{"cipher not terminated", put(atCipher, []byte(strings.Repeat("a", 32))...)},
		{"mode not terminated", put(atMode, []byte(strings.Repeat("a", 32))...)},
		{"hash not terminated", put(atHash, []byte(strings.Repeat("a", 32))...)},
		{"garbage behind a name", put(atCipher, []byte("aes\x00x")...)},
		{"payload and iterations", both(number(atPayload, 7), number(atIters, 0))},
		{"iterations and slot", both(number(atIters, 0), number(slotAt(0, 0), 1))},
		{"state and stripes", both(number(slotAt(0, 0), 1), number(slotAt(0, 44), 1))},
		{"state and place", both(number(slotAt(0, 0), 1), number(slotAt(0, 40), 0))},
		{"iterations and place", both(number(slotAt(0, 4), 0), number(slotAt(0, 40), 0))},
		{"place and stripes of the next", both(number(slotAt(0, 40), 9), number(slotAt(1, 44), 0))},
		{"cipher and hash", both(words(atCipher, "foo"), words(atHash, "bar"))},
		{"cipher and mode", both(words(atCipher, "foo"), words(atMode, "bar-plain64"))},
		{"mode and hash of its generator", words(atMode, "foo-bar:baz")},
		{"hash and generator", both(words(atHash, "foo"), words(atMode, "xts-bar"))},
		{"cipher and no hash for essiv", both(words(atCipher, "foo"), words(atMode, "xts-essiv"))},
		{"odd key and cipher", both(number(atKeyBytes, 33), words(atCipher, "foo"))},
		{"cast5 in xts", both(number(atKeyBytes, 32), words(atCipher, "cast5"))},
		{"no slot in use", number(slotAt(0, 0), 0xdead)},
	}
	for _, name := range []string{"", "foo", "AES", "serpent", "twofish", "cast5", "cast6", "des", "sm4"} {
		list = append(list, damage{"cipher " + name, words(atCipher, name)})
	}
	for _, name := range []string{
		"", "xts", "xts-", "xts-plain", "xts-plain64:sha256", "xts-plain:", "xts-plain-x", "xts-benbi", "foo-plain64", "-plain64", "XTS-plain64",
		"xts-essiv", "xts-essiv:", "xts-essiv:foo", "xts-essiv:sha256", "xts-essiv:sha1", "xts-essiv:md5", "cbc-plain64", "ecb",
	} {
		list = append(list, damage{"mode " + name, words(atMode, name)})
	}
	for _, name := range []string{"", "foo", "SHA256", "md5", "sha1", "sha224", "sha384", "sha512", "ripemd160", "rmd160", "sm3"} {
		list = append(list, damage{"hash " + name, words(atHash, name)})
		for _, cipher := range []string{"aes", "serpent", "twofish", "cast5"} {
			list = append(list, damage{"essiv with " + name + " and " + cipher, both(
				words(atCipher, cipher), words(atMode, "cbc-essiv:"+name), number(atKeyBytes, 16))})
		}
	}
	for _, n := range []uint32{0, 1, 7, 8, 9, 600, 4039, 4040, 4041, 5000, 1<<32 - 1} {
		list = append(list, damage{fmt.Sprint("payload ", n), number(atPayload, n)})
	}
	for _, n := range []uint32{0, 1, 16, 24, 32, 33, 48, 63, 65, 128, 1000, 1<<27 + 64, 1 << 30, 1 << 31, 1<<32 - 1} {
		list = append(list, damage{fmt.Sprint("key bytes ", n), number(atKeyBytes, n)})
	}
	for _, slot := range []int{0, 1, 7} {
		for _, n := range []uint32{0, 1, 7, 8, 9, 507, 512, 600, 3536, 4036, 4040, 1 << 31, 1<<32 - 1} {
			list = append(list, damage{fmt.Sprintf("slot %d at %d", slot, n), number(slotAt(slot, 40), n)})
		}
		for _, n := range []uint32{0, 1, 3999, 4001, 1<<32 - 1} {
			list = append(list, damage{fmt.Sprintf("slot %d with %d stripes", slot, n), number(slotAt(slot, 44), n)})
		}
		list = append(list,
			damage{fmt.Sprintf("slot %d in no state", slot), number(slotAt(slot, 0), 1)},
			damage{fmt.Sprintf("slot %d in use", slot), number(slotAt(slot, 0), 0xac71f3)},
			damage{fmt.Sprintf("slot %d never derived", slot), number(slotAt(slot, 4), 0)},
		)
	}
	return list
}

// A damaged header is opened, or refused, as by the reference.
func TestDamagedHeaders(t *testing.T) {
	t.Parallel()
	r := reference(t)
	b := bench(t)
	whole := append(header(t, crypto.CreateOptions{}), make([]byte, 1<<20)...)
	path := filepath.Join(r.Dir, "volume")
	try := func(what, options string) {
		t.Helper()
		_, want := r.Ask("blockdev-add", options)
		n, err := b.TryAdd(options)
		if text(err) != want {
			t.Errorf("%s: %q, want %q", what, text(err), want)
		}
		if err == nil && want == "" {
			length, err := n.GetLength(aio.Outside)
			if want := r.Node("l").Get("image").Get("virtual-size").Int(); err != nil || length != want {
				t.Errorf("%s: %d bytes, %v, want %d", what, length, err, want)
			}
		}
		if want == "" {
			r.Do("blockdev-del", `{"node-name":"l"}`)
		}
		if err == nil {
			b.Delete("l")
		}
	}
	for _, d := range damages() {
		image := append([]byte(nil), whole...)
		d.do(image)
		write(t, path, image)
		try(d.what, node(path))
	}
	for _, n := range []int{0, 6, 8, 500, 512, 592, 4096, 260000, 2068479, 2068480, 2068480 + 700} {
		write(t, path, whole[:n])
		try(fmt.Sprint("cut off at ", n), node(path))
	}
	write(t, path, whole)
	for _, id := range []string{"s1", "none", "nul"} {
		try("secret "+id, strings.Replace(node(path), `"s0"`, `"`+id+`"`, 1))
	}
	try("no secret", strings.Replace(node(path), `"key-secret":"s0",`, "", 1))
	whole[0] = 0
	write(t, path, whole)
	try("no secret for garbage", strings.Replace(node(path), `"key-secret":"s0",`, "", 1))
}

// Headers apart from the data are checked in another way.
func TestDamagedDetached(t *testing.T) {
	t.Parallel()
	r := reference(t)
	b := bench(t)
	for _, d := range damages() {
		options := detached(t, r.Dir, d.do)
		_, want := r.Ask("blockdev-add", options)
		_, err := b.TryAdd(options)
		if text(err) != want {
			t.Errorf("%s: %q, want %q", d.what, text(err), want)
		}
		if want == "" {
			r.Do("blockdev-del", `{"node-name":"l"}`)
		}
		if err == nil {
			b.Delete("l")
		}
	}
}

// suites are all ways to encrypt a volume that the reference survives: it
// ends when key material does not fill its last sector.
func suites() []crypto.CreateOptions {
	var list []crypto.CreateOptions
	for _, cipher := range []string{
		"aes-128", "aes-192", "aes-256", "cast5-128", "serpent-128", "serpent-192", "serpent-256", "twofish-128", "twofish-192", "twofish-256",
	} {
		for _, mode := range []string{"ecb", "cbc", "xts", "ctr"} {
			for _, iv := range []string{"plain", "plain64", "essiv"} {
				o := crypto.CreateOptions{CipherAlg: cipher, CipherMode: mode, IVGenAlg: iv}
				if cipher == "cast5-128" {
					o.IVGenHashAlg = "md5"
				}
				if mode == "xts" && cipher == "cast5-128" || mode != "xts" && strings.HasSuffix(cipher, "-192") {
					continue
				}
				list = append(list, o)
			}
		}
	}
	for _, hash := range []string{"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3"} {
		list = append(list, crypto.CreateOptions{HashAlg: hash})
	}
	return append(list, crypto.CreateOptions{IVGenAlg: "essiv", IVGenHashAlg: "sm3"})
}

// The reference reads what we write, of each kind, and we what it writes.
func TestInterchange(t *testing.T) {
	t.Parallel()
	r := reference(t)
	b := bench(t)
	const size, begin = 256 << 10, 70<<10 + 100
	for _, o := range suites() {
		what := fmt.Sprint(o)
		path := image(t, r.Dir, o, size)
		blk := b.Use(b.Add(node(path)))
		if err := blk.Pwritev(aio.Outside, 512, drivertest.Fill(0x5a, 100<<10), 0); err != nil {
			t.Fatal(err)
		}
		b.Drop(blk)
		b.Delete("l")
		r.Do("blockdev-add", node(path))
		// Where its write begins it has to read the sector, which is ours.
		r.IO("l", fmt.Sprintf("write -P 0x77 %d 100k", begin))
		r.Do("blockdev-del", `{"node-name":"l"}`)
		blk = b.Use(b.Add(node(path)))
		same(t, what, read(t, blk, begin, 100<<10), drivertest.Fill(0x77, 100<<10)[0])
		same(t, what, read(t, blk, 512, begin-512), drivertest.Fill(0x5a, begin-512)[0])
		b.Drop(blk)
		b.Delete("l")
	}
}

// concluded tells whether the only job is over; while the reference works on
// it, it does not answer.
func concluded(r *drivertest.Reference) bool {
	for j := range r.Do("query-jobs", "{}").Elems() {
		return j.Get("status").Is("concluded")
	}
	return false
}

// We read what the reference makes; it takes a second for each volume.
func TestReferenceCreates(t *testing.T) {
	t.Parallel()
	r := reference(t)
	b := bench(t)
	path := filepath.Join(r.Dir, "volume")
	write(t, path, nil)
	r.Do("blockdev-add", fmt.Sprintf(`{"driver":"file","node-name":"f","filename":%q}`, path))
	for _, o := range []string{"", `,"cipher-alg":"serpent-128","cipher-mode":"cbc","ivgen-alg":"essiv","hash-alg":"sha1"`} {
		r.Do("blockdev-create", `{"job-id":"j","options":{"driver":"luks","file":"f","size":1048576,"key-secret":"s0","iter-time":1`+o+`}}`)
		for deadline := time.Now().Add(5 * time.Minute); !concluded(r); {
			if time.Now().After(deadline) {
				t.Fatal("the reference is not done")
			}
		}
		r.Do("job-dismiss", `{"id":"j"}`)
		r.Do("blockdev-add", `{"driver":"luks","node-name":"l","key-secret":"s0","file":"f"}`)
		r.IO("l", "write -P 0x33 0 64k")
		want := r.Node("l").Get("image").Get("format-specific").Get("data")
		r.Do("blockdev-del", `{"node-name":"l"}`)
		n := b.Add(strings.Replace(node(path), `"node-name":"f"`, `"node-name":"f","locking":"off"`, 1))
		blk := b.Use(n)
		same(t, o, read(t, blk, 0, 64<<10), drivertest.Fill(0x33, 64<<10)[0])
		info, err := aio.Mixed(aio.Outside, n.Context(), "info", n.Instance().(block.SpecificInfoGetter).SpecificInfo)
		if err != nil {
			t.Fatal(err)
		}
		if l := info.Data.(crypto.Info); l.UUID != want.Get("uuid").Str() || l.CipherAlg != want.Get("cipher-alg").Str() ||
			l.MasterKeyIters != want.Get("master-key-iters").Int() || l.PayloadOffset != want.Get("payload-offset").Int() {
			t.Errorf("%+v, want %v", l, want)
		}
		b.Drop(blk)
		b.Delete("l")
	}
}
