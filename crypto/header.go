package crypto

import (
	"bytes"
	"io"
	"strings"

	"github.com/containers/luksy"

	"github.com/qmpblock/qmpblock/qerr"
)

const (
	headerSize  = len(luksy.V1Header{})
	headerSpace = luksy.V1AlignKeyslots // which it takes on disk
	stripes     = luksy.V1Stripes
	keySlots    = 8
	digestSize  = 20 // of the master key's digest
	saltSize    = 32
	// LUKS counts in sectors of 512 bytes.
	headerSectors = headerSpace / SectorSize
)

// LUKS is the header of a LUKS volume of version 1, which says how the volume
// is encrypted and keeps its key in slots, each under a passphrase of its own.
// It is not for more than one goroutine at a time.
type LUKS struct {
	hdr luksy.V1Header
	suite
	hash *digest
	// apart says that the data is in another file than the header, and so
	// cannot overlap with it.
	apart bool
}

// ReadLUKS reads and checks a header. The texts of the errors are the
// reference's. apart says that the data is in another file.
func ReadLUKS(r io.ReaderAt, apart bool) (*LUKS, error) {
	l := &LUKS{apart: apart}
	if _, err := r.ReadAt(l.hdr[:], 0); err != nil {
		return nil, err
	}
	if err := l.checkHeader(); err != nil {
		return nil, err
	}
	for n := range keySlots {
		if err := l.checkSlot(n); err != nil {
			return nil, err
		}
	}
	return l, l.parseNames()
}

// ProbeLUKS tells whether a file that begins with head has a header.
func ProbeLUKS(head []byte) bool {
	return len(head) >= 8 && bytes.HasPrefix(head, []byte(luksy.V1Magic)) && head[6] == 0 && head[7] == 1
}

func (l *LUKS) checkHeader() error {
	h := &l.hdr
	switch {
	case !bytes.HasPrefix(h[:], []byte(luksy.V1Magic)):
		return qerr.New("Volume is not in LUKS format")
	case h.Version() != 1:
		return qerr.New("LUKS version %d is not supported", h.Version())
	case !terminated(h.CipherName(), 32):
		return qerr.New("LUKS header cipher name is not NUL terminated")
	case !terminated(h.CipherMode(), 32):
		return qerr.New("LUKS header cipher mode is not NUL terminated")
	case !terminated(h.HashSpec(), 32):
		return qerr.New("LUKS header hash spec is not NUL terminated")
	case !l.apart && h.PayloadOffset() < headerSectors:
		return qerr.New("LUKS payload is overlapping with the header")
	case h.MKDigestIter() == 0:
		return qerr.New("LUKS key iteration count is zero")
	}
	return nil
}

// terminated: luksy cuts zeroes off at the end, so what fills the field has
// none there.
func terminated(name string, space int) bool { return len(name) < space }

// cString is a name up to its first zero.
func cString(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	return name
}

func (l *LUKS) checkSlot(n int) error {
	s := l.slot(n)
	active, err := s.Active()
	start, length := s.KeyMaterialOffset(), slotSectors(l.hdr.KeyBytes())
	switch {
	case s.Stripes() != stripes:
		return qerr.New("Keyslot %d is corrupted (stripes %d != %d)", n, int32(s.Stripes()), stripes)
	case err != nil:
		return qerr.New("Keyslot %d state (active/disable) is corrupted", n)
	case active && s.Iterations() == 0:
		return qerr.New("Keyslot %d iteration count is zero", n)
	case start < headerSectors:
		return qerr.New("Keyslot %d is overlapping with the LUKS header", n)
	case !l.apart && start+length > l.hdr.PayloadOffset():
		return qerr.New("Keyslot %d is overlapping with the encrypted payload", n)
	}
	for m := n + 1; m < keySlots; m++ {
		other := l.slot(m).KeyMaterialOffset()
		if start+length > other && other+length > start {
			return qerr.New("Keyslots %d and %d are overlapping in the header", n, m)
		}
	}
	return nil
}

// slotSectors is the room of a key slot. As in the reference it wraps around
// at 32 bits: a key that is too long is found later.
func slotSectors(keyBytes uint32) uint32 {
	material := keyBytes * stripes
	sectors := material / SectorSize
	if material%SectorSize != 0 {
		sectors++
	}
	return (sectors + headerSectors - 1) / headerSectors * headerSectors
}

func (l *LUKS) slot(n int) luksy.V1KeySlot {
	s, _ := l.hdr.KeySlot(n)
	return s
}

// parseNames finds out what the header's names stand for, in the reference's
// order.
func (l *LUKS) parseNames() error {
	spec := cString(l.hdr.CipherMode())
	mode, iv, ok := strings.Cut(spec, "-")
	if !ok {
		return qerr.New("Unexpected cipher mode string format '%s'", spec)
	}
	iv, ivHash, hashed := strings.Cut(iv, ":")
	var err error
	if hashed {
		if l.ivHash, err = digestNamed(ivHash); err != nil {
			return err
		}
	}
	if err := checkMode(mode); err != nil {
		return err
	}
	l.mode = mode
	size := l.hdr.KeyBytes()
	if mode == modeXTS {
		size /= 2
	}
	if l.alg, err = algorithmInHeader(cString(l.hdr.CipherName()), int(size)); err != nil {
		return err
	}
	if l.hash, err = digestNamed(cString(l.hdr.HashSpec())); err != nil {
		return err
	}
	if err := checkIVGen(iv); err != nil {
		return err
	}
	l.iv = iv
	if iv != ivESSIV {
		return nil
	}
	if l.ivHash == nil {
		return qerr.New("Missing IV generator hash specification")
	}
	_, err = l.essiv()
	return err
}

// PayloadOffset is where the data begins, in bytes, in the file that holds it.
func (l *LUKS) PayloadOffset() int64 { return int64(l.hdr.PayloadOffset()) * SectorSize }

// Info is what a header says, with the names of QAPI.
type Info struct {
	CipherAlg, CipherMode, IVGenAlg, HashAlg string
	// IVGenHashAlg is "" if the generator uses none.
	IVGenHashAlg string
	// Detached says that the data begins where its file does, and so is not
	// in the header's.
	Detached       bool
	PayloadOffset  int64 // bytes
	MasterKeyIters int64
	UUID           string
	Slots          []SlotInfo
}

// SlotInfo describes a key slot.
type SlotInfo struct {
	Active    bool
	Iters     int64
	Stripes   int64
	KeyOffset int64 // bytes
}

// Info describes the header.
func (l *LUKS) Info() Info {
	info := Info{
		CipherAlg:      l.alg.name,
		CipherMode:     l.mode,
		IVGenAlg:       l.iv,
		HashAlg:        l.hash.name,
		Detached:       l.PayloadOffset() == 0,
		PayloadOffset:  l.PayloadOffset(),
		MasterKeyIters: int64(l.hdr.MKDigestIter()),
		UUID:           cString(l.hdr.UUID()),
	}
	if l.iv == ivESSIV {
		info.IVGenHashAlg = l.ivHash.name
	}
	for n := range keySlots {
		s := l.slot(n)
		active, _ := s.Active()
		info.Slots = append(info.Slots, SlotInfo{
			Active:    active,
			Iters:     int64(s.Iterations()),
			Stripes:   int64(s.Stripes()),
			KeyOffset: int64(s.KeyMaterialOffset()) * SectorSize,
		})
	}
	return info
}
