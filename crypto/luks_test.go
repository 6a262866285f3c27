package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/containers/luksy"
	xtslib "golang.org/x/crypto/xts"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// disk is a file in memory, which reads as zeroes behind its end.
type disk struct{ b []byte }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(d.b)) {
		copy(p, d.b[off:])
	}
	return len(p), nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	return copy(d.b[off:], p), nil
}

// secrets is a store for tests.
func secrets(id string) ([]byte, error) {
	known := map[string]string{"s0": "hunter2", "s1": "second", "s2": "third", "empty": "", "binary": "\xff", "nul": "a\x00b"}
	if s, ok := known[id]; ok {
		return []byte(s), nil
	}
	return nil, qerr.New("No secret with id '%s'", id)
}

func create(tb testing.TB, o CreateOptions) (*disk, *LUKS, *Volume) {
	tb.Helper()
	d := &disk{}
	if o.KeySecret == "" {
		o.KeySecret = "s0"
	}
	if o.IterTime == nil {
		o.IterTime = new(int64(0))
	}
	l, v, err := CreateLUKS(o, secrets, func(size int64) (Storage, error) {
		d.b = make([]byte, size)
		return d, nil
	})
	if err != nil {
		tb.Fatalf("%+v: %v", o, err)
	}
	return d, l, v
}

// suites are all combinations that can be created.
func suites() []CreateOptions {
	var list []CreateOptions
	for _, a := range algorithms {
		for _, mode := range []string{modeECB, modeCBC, modeXTS, modeCTR} {
			for _, iv := range []string{ivPlain, ivPlain64, ivESSIV} {
				o := CreateOptions{CipherAlg: a.name, CipherMode: mode, IVGenAlg: iv}
				if a.block != xtsBlock {
					if mode == modeXTS {
						continue
					}
					if iv == ivESSIV {
						o.IVGenHashAlg = "md5"
					}
				}
				list = append(list, o)
			}
		}
	}
	return list
}

func name(o CreateOptions) string {
	return fmt.Sprintf("%s-%s-%s-%s-%s", o.CipherAlg, o.CipherMode, o.IVGenAlg, o.IVGenHashAlg, o.HashAlg)
}

// pattern is data of which no two sectors are alike.
func pattern(size int) []byte {
	b := make([]byte, size)
	for n := range b {
		b[n] = byte(n*7 + n/SectorSize*13)
	}
	return b
}

// Each combination can be created, opened and used; the position decides what
// a sector looks like, but with ECB.
func TestSuites(t *testing.T) {
	t.Parallel()
	for _, o := range suites() {
		t.Run(name(o), func(t *testing.T) {
			t.Parallel()
			d, _, v := create(t, o)
			l, opened, err := OpenLUKS(d, false, "s0", "", secrets)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Info(); got.CipherAlg != o.CipherAlg || got.CipherMode != o.CipherMode || got.IVGenAlg != o.IVGenAlg {
				t.Errorf("got %+v", got)
			}
			plain := pattern(2*parallelSize + 3*SectorSize)
			b := bytes.Clone(plain)
			v.Encrypt(b, 7*SectorSize)
			same := bytes.Clone(plain[SectorSize : 2*SectorSize])
			v.Encrypt(same, 8*SectorSize)
			if !bytes.Equal(same, b[SectorSize:2*SectorSize]) {
				t.Error("a sector alone is encrypted in another way")
			}
			zero := make([]byte, 2*SectorSize)
			v.Encrypt(zero, 0)
			if alike := bytes.Equal(zero[:SectorSize], zero[SectorSize:]); alike != (o.CipherMode == modeECB) {
				t.Errorf("two sectors look alike: %v", alike)
			}
			opened.Decrypt(b, 7*SectorSize)
			if !bytes.Equal(b, plain) {
				t.Error("another volume came out")
			}
		})
	}
}

// file is what luksy reads from.
type file struct {
	*bytes.Reader
}

func (file) Close() error { return nil }

// What we write is read by luksy as far as it knows the suite.
func TestLuksyReads(t *testing.T) {
	t.Parallel()
	for _, o := range suites() {
		for _, hash := range []string{"sha1", "sha256", "sha512", "ripemd160"} {
			o.HashAlg = hash
			spec := o.CipherMode + "-" + o.IVGenAlg
			known := spec == "cbc-plain" || spec == "cbc-plain64" || spec == "xts-plain" || spec == "xts-plain64" ||
				spec == "cbc-essiv" && o.IVGenHashAlg == ""
			if !known || hash != "sha256" && o.CipherAlg != "aes-128" {
				continue
			}
			if o.CipherMode == modeCBC && strings.HasSuffix(o.CipherAlg, "-192") {
				continue // it takes half a sector at the end of the key material for an error
			}
			t.Run(name(o), func(t *testing.T) {
				t.Parallel()
				d, l, v := create(t, o)
				plain := pattern(64 << 10)
				b := bytes.Clone(plain)
				v.Encrypt(b, 0)
				d.b = append(d.b, b...)
				decrypt, _, offset, size, err := l.hdr.Decrypt("hunter2", file{bytes.NewReader(d.b)})
				if err != nil {
					t.Fatal(err)
				}
				if offset != l.PayloadOffset() || size != int64(len(plain)) {
					t.Errorf("the data is at %d+%d", offset, size)
				}
				got, err := decrypt(d.b[offset:])
				if err != nil || !bytes.Equal(got, plain) {
					t.Errorf("other data, %v", err)
				}
			})
		}
	}
}

// We read what luksy writes.
func TestReadLuksy(t *testing.T) {
	t.Parallel()
	header, encrypt, _, err := luksy.EncryptV1([]string{"other", "hunter2"}, "aes-xts-plain64")
	if err != nil {
		t.Fatal(err)
	}
	plain := pattern(8 << 10)
	b, err := encrypt(plain)
	if err != nil {
		t.Fatal(err)
	}
	_, v, err := OpenLUKS(&disk{header}, false, "s0", "", secrets)
	if err != nil {
		t.Fatal(err)
	}
	if v.Decrypt(b, 0); !bytes.Equal(b, plain) {
		t.Error("other data")
	}
}

func TestHashes(t *testing.T) {
	t.Parallel()
	for _, h := range digests {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			d, _, _ := create(t, CreateOptions{HashAlg: h.name})
			l, _, err := OpenLUKS(d, false, "s0", "", secrets)
			if err != nil || l.Info().HashAlg != h.name {
				t.Errorf("got %v, %v", l, err)
			}
			if _, _, err := OpenLUKS(d, false, "s1", "", secrets); err == nil || err.Error() != "Invalid password, cannot unlock any keyslot" {
				t.Errorf("another passphrase: %v", err)
			}
		})
	}
}

// cryptsetup agrees about the header, and about the passphrase.
func TestCryptsetup(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("cryptsetup")
	if err != nil {
		daemon.Missing(t, "cryptsetup is not installed")
	}
	for _, o := range []CreateOptions{{}, {CipherAlg: "aes-192", CipherMode: modeCBC, IVGenAlg: ivESSIV, HashAlg: "sha512"}} {
		d, l, _ := create(t, o)
		path := filepath.Join(t.TempDir(), "volume")
		d.b = append(d.b, make([]byte, 1<<20)...)
		if err := os.WriteFile(path, d.b, 0o600); err != nil {
			t.Fatal(err)
		}
		dump, err := exec.Command(program, "luksDump", path).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, dump)
		}
		for _, want := range []string{
			"UUID:          \t" + l.Info().UUID, "Key Slot 0: ENABLED", "Key Slot 7: DISABLED", "Hash spec:     \t" + l.hash.name,
			fmt.Sprintf("Payload offset:\t%d", l.hdr.PayloadOffset()), fmt.Sprintf("MK bits:       \t%d", 8*l.keySize()),
		} {
			if !strings.Contains(string(dump), want) {
				t.Errorf("cryptsetup does not say %q:\n%s", want, dump)
			}
		}
	}
}

// amend is one step in the life of key slots, and what comes of it.
type amend struct {
	AmendOptions
	err  string
	want string // the slots: X for one in use
}

var (
	id   = func(s string) *string { return &s }
	slot = func(n int64) *int64 { return &n }
)

// The texts were observed: transcript qcow2/amend-luks, and others like it.
func amends() []amend {
	const first = "X......."
	return []amend{
		{AmendOptions{Active: true}, "'new-secret' is required to activate a keyslot", first},
		{AmendOptions{Active: true, OldSecret: id("s0")}, "'new-secret' is required to activate a keyslot", first},
		{
			AmendOptions{Active: true, OldSecret: id("none"), NewSecret: id("s1"), Keyslot: slot(8)},
			"'old-secret' must not be given when activating keyslots", first,
		},
		{AmendOptions{Active: true, NewSecret: id("none"), Keyslot: slot(8)}, "Invalid keyslot 8 specified, must be between 0 and 7", first},
		{AmendOptions{Active: true, NewSecret: id("s1"), Keyslot: slot(-1)}, "Invalid keyslot 4294967295 specified, must be between 0 and 7", first},
		{AmendOptions{Active: true, NewSecret: id("none"), Keyslot: slot(0)}, "Refusing to overwrite active keyslot 0 - please erase it first", first},
		{AmendOptions{Active: true, NewSecret: id("s1"), Keyslot: slot(1 << 33)}, "Refusing to overwrite active keyslot 0 - please erase it first", first},
		{AmendOptions{Active: true, NewSecret: id("none")}, "No secret with id 'none'", first},
		{AmendOptions{Active: true, NewSecret: id("binary")}, "Data from secret binary is not valid UTF-8", first},
		{AmendOptions{Active: true, NewSecret: id("none"), Secret: id("nope")}, "No secret with id 'nope'", first},
		{AmendOptions{Active: true, NewSecret: id("none"), Secret: id("s1")}, "Invalid password, cannot unlock any keyslot", first},
		{AmendOptions{}, "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given", first},
		{AmendOptions{NewSecret: id("s1"), Secret: id("s1")}, "'new-secret' must not be given when erasing keyslots", first},
		{AmendOptions{IterTime: slot(1), Secret: id("s1"), Keyslot: slot(8)}, "'iter-time' must not be given when erasing keyslots", first},
		{AmendOptions{Secret: id("s1"), Keyslot: slot(8)}, "'secret' must not be given when erasing keyslots", first},
		{AmendOptions{OldSecret: id("none"), Keyslot: slot(8)}, "No secret with id 'none'", first},
		{AmendOptions{OldSecret: id("s1")}, "No keyslots match given (old) password for erase operation", first},
		{AmendOptions{OldSecret: id("s1"), Force: true}, "No keyslots match given (old) password for erase operation", first},
		{AmendOptions{Keyslot: slot(8)}, "Invalid keyslot 8 specified, must be between 0 and 7", first},
		{AmendOptions{Keyslot: slot(-1)}, "Invalid keyslot -1 specified, must be between 0 and 7", first},
		{AmendOptions{Keyslot: slot(1)}, "Given keyslot 1 is already erased (inactive) ", first},
		{AmendOptions{Keyslot: slot(1), OldSecret: id("s0")}, "Given keyslot 1 doesn't contain the given old password for erase operation", first},
		{
			AmendOptions{Keyslot: slot(0), OldSecret: id("s0")},
			"Attempt to erase the only active keyslot 0 which will erase all the data in the image irreversibly - refusing operation", first,
		},
		{
			AmendOptions{OldSecret: id("s0")}, "All the active keyslots match the (old) password that was given " +
				"and erasing them will erase all the data in the image irreversibly - refusing operation", first,
		},
		{
			AmendOptions{Active: true, NewSecret: id("s1"), IterTime: slot(-1)},
			"PBKDF iterations N too large to scale: Numerical result out of range", first,
		},
		{AmendOptions{Active: true, NewSecret: id("s1"), Keyslot: slot(5), IterTime: slot(0)}, "", "X....X.."},
		{AmendOptions{Active: true, NewSecret: id("s1"), IterTime: slot(0)}, "", "XX...X.."},
		{AmendOptions{OldSecret: id("s1")}, "", first},
		{AmendOptions{Active: true, NewSecret: id("s1"), IterTime: slot(0)}, "", "XX......"},
		{AmendOptions{Keyslot: slot(0)}, "", ".X......"},
		{AmendOptions{Active: true, NewSecret: id("s2"), IterTime: slot(0)}, "Invalid password, cannot unlock any keyslot", ".X......"},
		{AmendOptions{Active: true, NewSecret: id("s2"), Secret: id("s1"), Keyslot: slot(1), Force: true, IterTime: slot(0)}, "", ".X......"},
		{AmendOptions{OldSecret: id("s1")}, "No keyslots match given (old) password for erase operation", ".X......"},
		{AmendOptions{Keyslot: slot(3), Force: true}, "", ".X......"},
		{AmendOptions{Keyslot: slot(1), OldSecret: id("s2"), Force: true}, "", "........"},
		{AmendOptions{Active: true, NewSecret: id("s1"), Secret: id("s2")}, "Invalid password, cannot unlock any keyslot", "........"},
	}
}

func slotsOf(l *LUKS) string {
	s := make([]byte, keySlots)
	for n := range s {
		s[n] = '.'
		if l.active(n) {
			s[n] = 'X'
		}
	}
	return string(s)
}

// textOf is the text of an error; how fast this machine is does not matter.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return regexp.MustCompile(`iterations \d+`).ReplaceAllString(err.Error(), "iterations N")
}

func TestAmend(t *testing.T) {
	t.Parallel()
	d, l, v := create(t, CreateOptions{})
	want := make([]byte, SectorSize)
	v.Encrypt(want, 0)
	for n, a := range amends() {
		a.Opened = "s0"
		err := l.Amend(d, a.AmendOptions, secrets)
		if got := textOf(err); got != a.err {
			t.Errorf("step %d: %q, want %q", n, got, a.err)
		}
		again, err := ReadLUKS(d, false)
		if err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		if got := slotsOf(again); got != a.want || slotsOf(l) != got {
			t.Errorf("step %d: slots %s on disk, %s, want %s", n, got, slotsOf(l), a.want)
		}
		for _, s := range []string{"s0", "s1", "s2"} {
			passphrase, _ := secrets(s)
			v, err := again.Unlock(d, passphrase)
			if err != nil {
				continue
			}
			b := make([]byte, SectorSize)
			if v.Encrypt(b, 0); !bytes.Equal(b, want) {
				t.Errorf("step %d: %s opens another volume", n, s)
			}
		}
	}
}

// A full header takes no more.
func TestAllSlots(t *testing.T) {
	t.Parallel()
	d, l, _ := create(t, CreateOptions{})
	add := AmendOptions{Active: true, NewSecret: id("s1"), IterTime: slot(0), Opened: "s0"}
	for range keySlots - 1 {
		if err := l.Amend(d, add, secrets); err != nil {
			t.Fatal(err)
		}
	}
	add.NewSecret = id("none")
	if err := l.Amend(d, add, secrets); textOf(err) != "Can't add a keyslot - all keyslots are in use" {
		t.Errorf("got %v", err)
	}
	if err := l.Amend(d, AmendOptions{OldSecret: id("s1")}, secrets); err != nil || slotsOf(l) != "X......." {
		t.Errorf("slots %s, %v", slotsOf(l), err)
	}
}

// broken fails to write from some write on.
type broken struct {
	*disk
	left int
}

func (b *broken) WriteAt(p []byte, off int64) (int, error) {
	if b.left--; b.left < 0 {
		return 0, syscall.ENOSPC
	}
	return b.disk.WriteAt(p, off)
}

// A slot is in use when all of it is written, and not before.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	for left := range 2 {
		d, l, _ := create(t, CreateOptions{})
		b := &broken{d, left}
		err := l.Amend(b, AmendOptions{Active: true, NewSecret: id("s1"), IterTime: slot(0), Opened: "s0"}, secrets)
		if !errors.Is(err, syscall.ENOSPC) || slotsOf(l) != "X......." {
			t.Errorf("slots %s, %v", slotsOf(l), err)
		}
		if again, err := ReadLUKS(d, false); err != nil || slotsOf(again) != "X......." {
			t.Errorf("on disk: %v", err)
		}
	}
}

func TestQCow(t *testing.T) {
	t.Parallel()
	v, err := OpenQCow("s0", "", secrets)
	if err != nil {
		t.Fatal(err)
	}
	b := pattern(2 * SectorSize)
	v.Encrypt(b, 5*SectorSize)
	block, _ := aes.NewCipher([]byte("hunter2\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	iv := make([]byte, aes.BlockSize)
	iv[0] = 6
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(b[SectorSize:], b[SectorSize:])
	if !bytes.Equal(b[SectorSize:], pattern(2 * SectorSize)[SectorSize:]) {
		t.Error("other data")
	}
	for id, want := range map[string]string{
		"":       "Parameter 'encrypt.key-secret' is required for cipher",
		"none":   "No secret with id 'none'",
		"binary": "Data from secret binary is not valid UTF-8",
	} {
		if _, err := OpenQCow(id, "encrypt.", secrets); textOf(err) != want {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Buffers of any lengths are as good as one.
func TestDecryptVec(t *testing.T) {
	t.Parallel()
	_, _, v := create(t, CreateOptions{})
	want := pattern(8 * SectorSize)
	for _, cuts := range [][]int{{}, {512}, {1}, {511, 513}, {100, 200, 300, 1024, 1025}, {0, 0, 4095}, {600, 2000, 2000, 2048}} {
		b := bytes.Clone(want)
		v.Encrypt(b, 3*SectorSize)
		var vec [][]byte
		from := 0
		for _, to := range append(cuts, len(b)) {
			vec = append(vec, b[from:to])
			from = to
		}
		if v.DecryptVec(vec, 3*SectorSize); !bytes.Equal(b, want) {
			t.Errorf("cut at %v: other data", cuts)
		}
	}
}

// XTS is what golang.org/x/crypto makes of it, whose tests have the standard's
// vectors.
func TestXTS(t *testing.T) {
	t.Parallel()
	key := pattern(64)
	alg, _ := algorithmNamed("aes-256")
	v, err := newVolume(suite{alg: alg, mode: modeXTS, iv: ivPlain64}, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := xtslib.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	const sector = 1<<40 + 3
	got, want := pattern(SectorSize), make([]byte, SectorSize)
	v.Encrypt(got, sector*SectorSize)
	c.Encrypt(want, pattern(SectorSize), sector)
	if !bytes.Equal(got, want) {
		t.Error("other data")
	}
}

// Any header is opened or refused, in little time and memory.
func FuzzHeader(f *testing.F) {
	d, l, _ := create(f, CreateOptions{CipherAlg: "aes-128", CipherMode: modeCBC, IVGenAlg: ivESSIV})
	f.Add(d.b[:headerSize], false)
	f.Add(l.hdr[:], true)
	f.Fuzz(func(t *testing.T, b []byte, apart bool) {
		if len(b) > headerSize {
			b = b[:headerSize]
		}
		l, err := ReadLUKS(&disk{b}, apart)
		if err != nil {
			return
		}
		l.Info()
		for n := range keySlots {
			s := l.slot(n)
			s.SetIterations(min(s.Iterations(), 2)) // as many as it says would take time
			_ = l.hdr.SetKeySlot(n, s)
		}
		l.hdr.SetMKDigestIter(1)
		if _, err := l.Unlock(&disk{b}, []byte("hunter2")); err == nil {
			t.Error("opened")
		}
	})
}
