package crypto

import (
	"crypto/cipher"
	"runtime"
	"sync"

	"github.com/qmpblock/qmpblock/qerr"
)

// SectorSize is the unit of encryption, in bytes: each sector has its own
// initialization vector.
const SectorSize = 512

// parallelSize is how many bytes are worth a goroutine of their own.
const parallelSize = 64 << 10

// Volume encrypts and decrypts the sectors of an image. Any number of
// goroutines can use it at a time.
type Volume struct {
	suite
	data  cipher.Block
	tweak cipher.Block // for XTS
	essiv cipher.Block // for ESSIV
	// workers are those that rest.
	workers sync.Pool
}

// newVolume makes a volume with a key of whatever length; the texts of the
// errors are the reference's.
func newVolume(s suite, key []byte) (*Volume, error) {
	v := &Volume{suite: s}
	v.workers.New = func() any { return newWorker(v) }
	var err error
	if s.iv == ivESSIV {
		if v.essiv, err = s.newESSIV(key); err != nil {
			return nil, err
		}
	}
	if s.mode == modeXTS {
		if s.alg.block != xtsBlock {
			return nil, qerr.New("Unsupported cipher mode xts")
		}
		if len(key)%2 != 0 {
			return nil, qerr.New("XTS cipher key length should be a multiple of 2")
		}
		if v.tweak, err = s.alg.new(key[len(key)/2:]); err != nil {
			return nil, err
		}
		key = key[:len(key)/2]
	}
	v.data, err = s.alg.new(key)
	return v, err
}

// newESSIV makes the cipher that encrypts the numbers of sectors.
func (s *suite) newESSIV(key []byte) (cipher.Block, error) {
	alg, err := s.essiv()
	if err != nil {
		return nil, err
	}
	h := s.ivHash.new()
	h.Write(key)
	return alg.new(h.Sum(nil))
}

// Encrypt encrypts sectors in place. offset is where they lie in the volume,
// which decides their initialization vectors; it and the length are bytes,
// multiples of [SectorSize].
func (v *Volume) Encrypt(b []byte, offset int64) { v.crypt(b, offset, true) }

// Decrypt is the reverse of Encrypt.
func (v *Volume) Decrypt(b []byte, offset int64) { v.crypt(b, offset, false) }

// DecryptVec decrypts sectors that lie in several buffers of any lengths, one
// behind the other.
func (v *Volume) DecryptVec(vec [][]byte, offset int64) {
	for n, at := 0, 0; n < len(vec); {
		b := vec[n][at:]
		if whole := len(b) / SectorSize * SectorSize; whole > 0 {
			v.Decrypt(b[:whole], offset)
			offset += int64(whole)
			at += whole
		}
		if at == len(vec[n]) {
			n, at = n+1, 0
			continue
		}
		n, at = v.decryptAcross(vec, n, at, offset)
		offset += SectorSize
	}
}

// decryptAcross decrypts a sector that begins in one buffer and goes on in
// others. It returns where the sector ends.
func (v *Volume) decryptAcross(vec [][]byte, n, at int, offset int64) (int, int) {
	sector := make([]byte, SectorSize)
	across(vec, n, at, func(part []byte, done int) { copy(sector[done:], part) })
	v.Decrypt(sector, offset)
	return across(vec, n, at, func(part []byte, done int) { copy(part, sector[done:]) })
}

// across visits the parts of a sector, with what was visited before.
func across(vec [][]byte, n, at int, visit func(part []byte, done int)) (int, int) {
	for done := 0; done < SectorSize && n < len(vec); {
		part := vec[n][at:min(len(vec[n]), at+SectorSize-done)]
		visit(part, done)
		done += len(part)
		if at += len(part); at == len(vec[n]) {
			n, at = n+1, 0
		}
	}
	return n, at
}

// crypt shares the work out among the processors if there is enough of it.
func (v *Volume) crypt(b []byte, offset int64, encrypt bool) {
	parts := min(len(b)/parallelSize, runtime.GOMAXPROCS(0))
	sector := uint64(offset) / SectorSize
	own := v.worker()
	for part := parts; part > 1; part-- {
		n := len(b) / SectorSize / part * SectorSize
		w := v.worker()
		w.set(b[:n], sector, encrypt)
		own.others = append(own.others, w)
		w.done.Add(1)
		go w.background()
		b, sector = b[n:], sector+uint64(n/SectorSize)
	}
	own.set(b, sector, encrypt)
	own.run()
	for n, w := range own.others {
		w.done.Wait()
		w.rest()
		own.others[n] = nil
	}
	own.others = own.others[:0]
	own.rest()
}

func (v *Volume) worker() *worker { return v.workers.Get().(*worker) }
