package crypto

import (
	"crypto/pbkdf2"
	"math"
	"math/bits"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
)

const (
	// minIterations is the least that LUKS asks for.
	minIterations = 1000
	// measureFor is how long the speed of this machine is measured.
	measureFor = 20 * time.Millisecond
)

// derive makes a key of size bytes of a passphrase.
func (d *digest) derive(passphrase, salt []byte, iterations uint32, size int) ([]byte, error) {
	return pbkdf2.Key(d.new, string(passphrase), salt, int(iterations), size)
}

// iterations is how many this machine does in some milliseconds, divided by
// share, for a key of size bytes.
func (d *digest) iterations(ms uint64, share uint64, size int) (uint32, error) {
	perSecond, err := d.speed(size)
	if err != nil {
		return 0, err
	}
	high, count := bits.Mul64(perSecond, ms)
	if high != 0 {
		return 0, qerr.WithErrno(syscall.ERANGE, "PBKDF iterations %d too large to scale", perSecond)
	}
	count /= 1000 * share
	if count > math.MaxUint32 {
		return 0, qerr.WithErrno(syscall.ERANGE, "PBKDF iterations %d larger than %d", count, uint32(math.MaxUint32))
	}
	return max(uint32(count), minIterations), nil
}

// speed is how many iterations this machine does in a second.
func (d *digest) speed(size int) (uint64, error) {
	salt := make([]byte, saltSize)
	for n := uint32(1 << 10); ; n *= 2 {
		start := time.Now()
		if _, err := d.derive(salt, salt, n, size); err != nil {
			return 0, err
		}
		if took := time.Since(start); took >= measureFor || n >= 1<<30 {
			return uint64(n) * uint64(time.Second) / uint64(max(took, 1)), nil
		}
	}
}
