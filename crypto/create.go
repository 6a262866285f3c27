package crypto

import (
	"crypto/rand"
	"io"

	"github.com/containers/luksy"
	"github.com/google/uuid"

	"github.com/qmpblock/qmpblock/qerr"
)

// defaultIterTime is how long a passphrase takes, in milliseconds.
const defaultIterTime = 2000

// CreateOptions say how a new volume is encrypted, with the names of QAPI; ""
// is the default.
type CreateOptions struct {
	KeySecret    string // id of the secret with the passphrase
	CipherAlg    string // aes-256
	CipherMode   string // xts
	IVGenAlg     string // plain64
	IVGenHashAlg string // sha256 for essiv
	HashAlg      string // sha256
	// IterTime is how many milliseconds the derivation of the key from the
	// passphrase takes; nil for 2000.
	IterTime *int64
	// Detached says that the data is in another file than the header.
	Detached bool
	// Prefix stands before the names of options in errors.
	Prefix string
}

// Storage is where a header and its key slots are.
type Storage interface {
	io.ReaderAt
	io.WriterAt
}

// CreateLUKS makes a header for a new volume with a random key, which its
// first slot keeps. room makes space for header and slots, size bytes, and
// says where it is; nothing is changed before it is called.
func CreateLUKS(o CreateOptions, secrets Secrets, room func(size int64) (Storage, error)) (*LUKS, *Volume, error) {
	passphrase, err := secrets.required(o.KeySecret, o.Prefix)
	if err != nil {
		return nil, nil, err
	}
	l, err := newLUKS(o)
	if err != nil {
		return nil, nil, err
	}
	key := make([]byte, l.keySize())
	rand.Read(key)
	v, err := newVolume(l.suite, key)
	if err != nil {
		return nil, nil, err
	}
	size, ms := l.layOut(), iterTime(o.IterTime)
	if err := l.sign(key, ms); err != nil {
		return nil, nil, err
	}
	iterations, err := l.hash.iterations(ms, 1, len(key))
	if err != nil {
		return nil, nil, err
	}
	s, err := room(size)
	if err != nil {
		return nil, nil, err
	}
	return l, v, l.storeKey(s, 0, key, passphrase, iterations)
}

func iterTime(ms *int64) uint64 {
	if ms == nil {
		return defaultIterTime
	}
	return uint64(*ms)
}

// newLUKS makes a header that says how the volume is encrypted.
func newLUKS(o CreateOptions) (*LUKS, error) {
	l := &LUKS{apart: o.Detached, suite: suite{mode: or(o.CipherMode, modeXTS), iv: or(o.IVGenAlg, ivPlain64)}}
	var err error
	if l.alg, err = algorithmNamed(or(o.CipherAlg, "aes-256")); err != nil {
		return nil, err
	}
	if l.hash, err = digestNamed(or(o.HashAlg, "sha256")); err != nil {
		return nil, err
	}
	if l.iv == ivESSIV {
		o.IVGenHashAlg = or(o.IVGenHashAlg, "sha256")
	}
	spec := l.mode + "-" + l.iv
	if o.IVGenHashAlg != "" {
		if l.ivHash, err = digestNamed(o.IVGenHashAlg); err != nil {
			return nil, err
		}
		spec += ":" + l.ivHash.name
	}
	h := &l.hdr
	h.SetCipherName(l.alg.luks)
	h.SetCipherMode(spec)
	h.SetHashSpec(l.hash.name)
	h.SetKeyBytes(uint32(l.keySize()))
	if err := h.SetMagic(luksy.V1Magic); err != nil {
		return nil, err
	}
	if err := h.SetVersion(1); err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, qerr.From(err)
	}
	h.SetUUID(id.String())
	return l, nil
}

func or(name, def string) string {
	if name == "" {
		return def
	}
	return name
}

// layOut gives each slot a place. It returns the room for all of them, in
// bytes.
func (l *LUKS) layOut() int64 {
	each := slotSectors(l.hdr.KeyBytes())
	for n := range keySlots {
		var s luksy.V1KeySlot
		s.SetActive(false)
		s.SetStripes(stripes)
		s.SetKeyMaterialOffset(headerSectors + uint32(n)*each)
		_ = l.hdr.SetKeySlot(n, s) // of the slots there are
	}
	end := headerSectors + keySlots*each
	if !l.apart {
		l.hdr.SetPayloadOffset(end)
	}
	return int64(end) * SectorSize
}

// sign puts the digest of the volume's key into the header, by which the
// right passphrase is known.
func (l *LUKS) sign(key []byte, ms uint64) error {
	// An eighth of the time is for this.
	iterations, err := l.hash.iterations(ms, 8, digestSize)
	if err != nil {
		return err
	}
	salt := make([]byte, saltSize)
	rand.Read(salt)
	sum, err := l.hash.derive(key, salt, iterations, digestSize)
	if err != nil {
		return err
	}
	l.hdr.SetMKDigestIter(iterations)
	l.hdr.SetMKDigestSalt(salt)
	l.hdr.SetMKDigest(sum)
	return nil
}
