package crypto

import (
	"crypto/rand"
	"crypto/subtle"
	"io"

	"github.com/containers/luksy"

	"github.com/qmpblock/qmpblock/qerr"
)

// OpenLUKS reads a header and opens its volume with the passphrase in a secret.
// As in the reference the secret is looked for first; prefix stands before the
// name of its option in errors.
func OpenLUKS(r io.ReaderAt, apart bool, id, prefix string, secrets Secrets) (*LUKS, *Volume, error) {
	passphrase, err := secrets.required(id, prefix)
	if err != nil {
		return nil, nil, err
	}
	l, err := ReadLUKS(r, apart)
	if err != nil {
		return nil, nil, err
	}
	v, err := l.Unlock(r, passphrase)
	return l, v, err
}

// Unlock opens the volume with a passphrase that any of the slots knows. r is
// where the header is.
func (l *LUKS) Unlock(r io.ReaderAt, passphrase []byte) (*Volume, error) {
	key, err := l.masterKey(r, passphrase)
	if err != nil {
		return nil, err
	}
	return newVolume(l.suite, key)
}

// masterKey finds the volume's key.
func (l *LUKS) masterKey(r io.ReaderAt, passphrase []byte) ([]byte, error) {
	for n := range keySlots {
		key, err := l.openSlot(r, n, passphrase)
		if key != nil || err != nil {
			return key, err
		}
	}
	return nil, qerr.New("Invalid password, cannot unlock any keyslot")
}

// openSlot gets the volume's key out of a slot; nil if the slot is free or the
// passphrase is not the slot's.
func (l *LUKS) openSlot(r io.ReaderAt, n int, passphrase []byte) ([]byte, error) {
	s := l.slot(n)
	if !l.active(n) {
		return nil, nil
	}
	size := int(l.hdr.KeyBytes())
	derived, err := l.hash.derive(passphrase, s.KeySlotSalt(), s.Iterations(), size)
	if err != nil {
		return nil, err
	}
	v, err := newVolume(l.suite, derived)
	if err != nil {
		return nil, err
	}
	material := make([]byte, roundUp(size*stripes, SectorSize))
	if _, err := r.ReadAt(material, int64(s.KeyMaterialOffset())*SectorSize); err != nil {
		return nil, err
	}
	v.Decrypt(material, 0)
	key := afMerge(material[:size*stripes], l.hash.new())
	sum, err := l.hash.derive(key, l.hdr.MKDigestSalt(), l.hdr.MKDigestIter(), digestSize)
	if err != nil || subtle.ConstantTimeCompare(sum, l.hdr.MKDigest()) == 0 {
		return nil, err
	}
	return key, nil
}

// storeKey puts the volume's key into a slot under a passphrase, derived with so
// many iterations, and then says so in the header.
func (l *LUKS) storeKey(w io.WriterAt, n int, key, passphrase []byte, iterations uint32) error {
	s := l.slot(n)
	salt := make([]byte, saltSize)
	rand.Read(salt)
	derived, err := l.hash.derive(passphrase, salt, iterations, len(key))
	if err != nil {
		return err
	}
	v, err := newVolume(l.suite, derived)
	if err != nil {
		return err
	}
	material := make([]byte, roundUp(len(key)*stripes, SectorSize))
	copy(material, afSplit(key, l.hash.new()))
	v.Encrypt(material, 0)
	if _, err := w.WriteAt(material, int64(s.KeyMaterialOffset())*SectorSize); err != nil {
		return err
	}
	s.SetActive(true)
	s.SetIterations(iterations)
	s.SetKeySlotSalt(salt)
	s.SetStripes(stripes)
	return l.change(w, n, s)
}

// eraseSlot overwrites a slot's key material and then gives the slot up.
func (l *LUKS) eraseSlot(w io.WriterAt, n int) error {
	s := l.slot(n)
	material := make([]byte, roundUp(int(l.hdr.KeyBytes())*stripes, SectorSize))
	rand.Read(material)
	if _, err := w.WriteAt(material, int64(s.KeyMaterialOffset())*SectorSize); err != nil {
		return err
	}
	s.SetActive(false)
	s.SetIterations(0)
	s.SetKeySlotSalt(make([]byte, saltSize))
	return l.change(w, n, s)
}

// change puts a slot's description into the header, and the header on disk.
func (l *LUKS) change(w io.WriterAt, n int, s luksy.V1KeySlot) error {
	hdr := l.hdr
	if err := hdr.SetKeySlot(n, s); err != nil {
		return err
	}
	if _, err := w.WriteAt(hdr[:], 0); err != nil {
		return err
	}
	l.hdr = hdr
	return nil
}

func (l *LUKS) active(n int) bool {
	active, _ := l.slot(n).Active()
	return active
}

// countActive is how many slots hold the key.
func (l *LUKS) countActive() int {
	count := 0
	for n := range keySlots {
		if l.active(n) {
			count++
		}
	}
	return count
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
