package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/qerr"
)

// cryptSecret knows two secrets.
func cryptSecret(id string) ([]byte, error) {
	known := map[string]string{"s0": "hunter2", "s1": "second"}
	if s, ok := known[id]; ok {
		return []byte(s), nil
	}
	return nil, qerr.New("No secret with id '%s'", id)
}

func cryptBench(tb testing.TB, refuseOld bool) *drivertest.Bench {
	return drivertest.NewWith(tb, block.Config{
		Drivers:             []*block.Driver{qcow2.Driver(), file.Driver()},
		Secret:              cryptSecret,
		RefuseOldEncryption: refuseOld,
	})
}

// header memory for package crypto.
type cryptMemory []byte

func (m cryptMemory) ReadAt(p []byte, off int64) (int, error)  { return copy(p, m[off:]), nil }
func (m cryptMemory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

const (
	cryptCluster = 1 << 16
	cryptSize    = 4 << 20
)

// encrypted makes an empty encrypted image: header, refcount table and block,
// L1 table, and for LUKS its header.
func encrypted(tb testing.TB, format string) string {
	tb.Helper()
	be := binary.BigEndian
	b := make([]byte, 4*cryptCluster)
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], 16)
	be.PutUint64(b[24:], cryptSize)
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], 3*cryptCluster)
	be.PutUint64(b[48:], cryptCluster)
	be.PutUint32(b[56:], 1)
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], 104)
	be.PutUint64(b[cryptCluster:], 2*cryptCluster)
	be.PutUint32(b[32:], 1)
	if format == "luks" {
		var m cryptMemory
		o := crypto.CreateOptions{KeySecret: "s0", IterTime: new(int64(0)), Detached: false}
		_, _, err := crypto.CreateLUKS(o, cryptSecret, func(size int64) (crypto.Storage, error) {
			m = make([]byte, (size+cryptCluster-1)/cryptCluster*cryptCluster)
			return m, nil
		})
		if err != nil {
			tb.Fatal(err)
		}
		be.PutUint32(b[32:], 2)
		be.PutUint32(b[104:], 0x0537be77)
		be.PutUint32(b[108:], 16)
		be.PutUint64(b[112:], uint64(len(b)))
		be.PutUint64(b[120:], uint64(len(m)))
		b = append(b, m...)
	}
	for n := range len(b) / cryptCluster {
		be.PutUint16(b[2*cryptCluster+2*n:], 1)
	}
	path := filepath.Join(tb.TempDir(), "image")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func cryptNode(path, format, secret string) string {
	return fmt.Sprintf(`{"driver":"qcow2","node-name":"q","encrypt":{"format":%q,"key-secret":%q},"file":{"driver":"file","filename":%q}}`,
		format, secret, path)
}

// scribble changes a disk at random, and what it should hold.
func scribble(tb testing.TB, blk *block.Backend, model []byte, seed uint64) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	for step := range 200 {
		offset := rng.Int64N(cryptSize - 1)
		length := min(1+rng.Int64N(200<<10), cryptSize-offset)
		if rng.IntN(2) == 0 {
			offset, length = offset&^511, (length+511)&^511
			length = min(length, cryptSize-offset)
		}
		area := model[offset : offset+length]
		var err error
		switch rng.IntN(4) {
		case 0:
			clear(area)
			err = blk.PwriteZeroes(aio.Outside, offset, length, block.ReqMayUnmap)
		case 1:
			got := make([]byte, length)
			err = blk.Preadv(aio.Outside, offset, block.Vec{got[:length/3], got[length/3:]})
			if err == nil && !bytes.Equal(got, area) {
				tb.Fatalf("step %d: other data at %d+%d", step, offset, length)
			}
		default:
			for n := range area {
				area[n] = byte(step + n/512)
			}
			data := bytes.Clone(area)
			err = blk.Pwritev(aio.Outside, offset, block.Vec{data[:length/2], data[length/2:]}, 0)
			if !bytes.Equal(data, area) {
				tb.Fatal("the caller's data has changed")
			}
		}
		if err != nil {
			tb.Fatalf("step %d: %v", step, err)
		}
	}
}

// An encrypted image holds what was written, and shows nothing of it.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"luks", "aes"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			b := cryptBench(t, false)
			path := encrypted(t, format)
			model := make([]byte, cryptSize)
			for seed := range uint64(2) {
				n := b.Add(cryptNode(path, format, "s0"))
				if !n.Encrypted() || n.Limits().RequestAlignment != 512 {
					t.Error("not as encrypted as it should be")
				}
				blk := b.Use(n)
				got := make([]byte, cryptSize)
				if err := blk.Preadv(aio.Outside, 0, block.Vec{got}); err != nil || !bytes.Equal(got, model) {
					t.Fatalf("opened again: other data, %v", err)
				}
				scribble(t, blk, model, seed)
				b.Drop(blk)
				b.Delete("q")
			}
			raw, err := os.ReadFile(path)
			if err != nil || bytes.Contains(raw, bytes.Repeat([]byte{150}, 400)) {
				t.Errorf("something is to be seen in the file, %v", err)
			}
		})
	}
}

// The texts were observed: transcript qcow2/encrypted, and others like it.
func TestEncryptedErrors(t *testing.T) {
	t.Parallel()
	b := cryptBench(t, false)
	luks, aes := encrypted(t, "luks"), encrypted(t, "aes")
	change := func(path string, offset int, bytes ...byte) string {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copy(content[offset:], bytes)
		other := filepath.Join(t.TempDir(), "changed")
		if err := os.WriteFile(other, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return other
	}
	none := func(path string) string {
		return strings.Replace(cryptNode(path, "luks", "s0"), `"encrypt":{"format":"luks","key-secret":"s0"},`, "", 1)
	}
	const outside = "Request for data outside of extension header"
	for _, c := range []struct{ options, err string }{
		{none(luks), "Parameter 'encrypt.key-secret' is required for cipher"},
		{none(aes), "Parameter 'encrypt.key-secret' is required for cipher"},
		{cryptNode(luks, "luks", "nope"), "No secret with id 'nope'"},
		{cryptNode(luks, "luks", "s1"), "Invalid password, cannot unlock any keyslot"},
		{cryptNode(luks, "aes", "s0"), "Header reported 'luks' encryption format but options specify 'aes'"},
		{cryptNode(aes, "luks", "s0"), "Header reported 'aes' encryption format but options specify 'luks'"},
		{cryptNode(aes, "aes", "nope"), "No secret with id 'nope'"},
		{cryptNode(change(luks, 112, 0x80, 0, 0, 0, 0, 0, 0, 0), "luks", "s0"), "Could not read encryption header: Input/output error"},
		{cryptNode(change(luks, 112, 0, 0, 0, 0, 0, 0, 2, 0), "luks", "s0"), "Encryption header offset '512' is not a multiple of cluster size '65536'"},
		{cryptNode(change(luks, 112, 0, 0, 0, 0, 0, 0, 0, 0), "luks", "s0"), "Volume is not in LUKS format"},
		{cryptNode(change(luks, 120, 0, 0, 0, 0, 0, 0, 2, 0), "luks", "s0"), outside},
		{cryptNode(change(luks, 120, 0, 0, 0, 0, 0, 0, 0x10, 0), "luks", "s0"), outside},
		{cryptNode(change(luks, 104, 0, 0, 0, 1), "luks", "s0"), "Missing CRYPTO header for crypt method 2"},
		{none(change(luks, 32, 0, 0, 0, 0)), "CRYPTO header extension only expected with LUKS encryption method"},
		{cryptNode(change(luks, 4*cryptCluster, 'X'), "luks", "s0"), "Volume is not in LUKS format"},
	} {
		_, err := b.TryAdd(c.options)
		if err == nil || err.Error() != c.err {
			t.Errorf("%s: %v, want %s", c.options, err, c.err)
		}
		if err == nil {
			b.Delete("q")
		}
	}
	old := cryptBench(t, true)
	const refused = "Use of AES-CBC encrypted qcow2 images is no longer supported in system emulators"
	if _, err := old.TryAdd(cryptNode(aes, "luks", "nope")); err == nil || err.Error() != refused {
		t.Errorf("the old encryption: %v", err)
	}
	old.Add(cryptNode(luks, "luks", "s0"))
}

// Amending changes who can open the image.
func TestEncryptedAmend(t *testing.T) {
	t.Parallel()
	b := cryptBench(t, false)
	path := encrypted(t, "luks")
	n := b.Add(cryptNode(path, "luks", "s0"))
	amend := func(options string) string {
		err := in(n, func(co *aio.Co) error { return n.Amender().CoAmend(co, b.Options(options), false) })
		if err != nil {
			return err.Error()
		}
		return ""
	}
	for _, c := range []struct{ options, err string }{
		{`{}`, ""},
		{`{"encrypt":{"format":"qcow"}}`, "Amend can't be used to change the qcow2 encryption format"},
		{`{"encrypt":{"format":"luks","state":"active"}}`, "'new-secret' is required to activate a keyslot"},
		{`{"encrypt":{"format":"luks","state":"active","new-secret":"s1","iter-time":0}}`, ""},
		{`{"encrypt":{"format":"luks","state":"inactive","old-secret":"s0"}}`, ""},
	} {
		if got := amend(c.options); got != c.err {
			t.Errorf("%s: %s", c.options, got)
		}
	}
	info, err := aio.Mixed(aio.Outside, n.Context(), "info", n.Instance().(block.SpecificInfoGetter).SpecificInfo)
	if err != nil {
		t.Fatal(err)
	}
	if slots := info.Data.(qcow2.Specific).Encrypt.LUKS.Slots; slots[0].Active || !slots[1].Active {
		t.Errorf("slots %+v", slots)
	}
	b.Delete("q")
	if _, err := b.TryAdd(cryptNode(path, "luks", "s0")); err == nil {
		t.Error("opened with the old passphrase")
	}
	n = b.Add(strings.Replace(cryptNode(path, "luks", "s1"), `{"driver":"qcow2"`, `{"driver":"qcow2","read-only":true`, 1))
	if got := amend(`{"encrypt":{"format":"luks","state":"inactive","keyslot":1}}`); !strings.HasPrefix(got, "Attempt to erase the only") {
		t.Errorf("got %q", got)
	}
	b.Delete("q")
	n = b.Add(cryptNode(encrypted(t, "aes"), "aes", "s0"))
	if got := amend(`{"encrypt":{"format":"luks","state":"active"}}`); got != "Only LUKS encryption options can be amended for qcow2 with blockdev-amend" {
		t.Errorf("got %q", got)
	}
}

// checkEncrypted has the reference check an image, and compare it with what it
// should hold. It returns the options by which the reference opens it.
func checkEncrypted(t *testing.T, path string, model []byte) (opts string) {
	t.Helper()
	dir := filepath.Dir(path)
	if err := os.WriteFile(filepath.Join(dir, "model"), model, 0o600); err != nil {
		t.Fatal(err)
	}
	opts = "driver=qcow2,encrypt.key-secret=s0,file.driver=file,file.filename=" + path
	img(t, dir, "compare", "--object", "secret,id=s0,data=hunter2", "--image-opts", opts, "driver=raw,file.driver=file,file.filename=model")
	img(t, dir, "check", "--object", "secret,id=s0,data=hunter2", "--image-opts", opts)
	return opts
}

// The reference finds in an image what we wrote, and nothing wrong with it.
func TestEncryptedReference(t *testing.T) {
	t.Parallel()
	tool(t, "qemu-img")
	for _, format := range []string{"luks", "aes"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			path := encrypted(t, format)
			dir := filepath.Dir(path)
			model := make([]byte, cryptSize)
			b := cryptBench(t, false)
			blk := b.Use(b.Add(cryptNode(path, format, "s0")))
			scribble(t, blk, model, 7)
			b.Drop(blk)
			b.Delete("q")
			opts := checkEncrypted(t, path, model)

			out, status := run(t, dir, tool(t, "qemu-io"), "--object", "secret,id=s0,data=hunter2", "--image-opts",
				"-c", "write -P 0x11 70000 300000", opts)
			if status != 0 {
				t.Fatal(out)
			}
			copy(model[70000:], bytes.Repeat([]byte{0x11}, 300000))
			blk = b.Use(b.Add(cryptNode(path, format, "s0")))
			got := make([]byte, cryptSize)
			if err := blk.Preadv(aio.Outside, 0, block.Vec{got}); err != nil || !bytes.Equal(got, model) {
				t.Errorf("what the reference wrote is something else, %v", err)
			}
		})
	}
}
