package crypto

import (
	"crypto/pbkdf2"
	"math"
	"math/bits"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

const (
	// minIterations is the least that LUKS asks for.
	minIterations = 1000
	// measureFor is how long the speed of this machine is measured.
	measureFor = 10 * time.Millisecond
)

// derive makes a key of size bytes of a passphrase.
func (d *digest) derive(passphrase, salt []byte, iterations uint32, size int) ([]byte, error) {
	return pbkdf2.Key(d.new, string(passphrase), salt, int(iterations), size)
}

// iterations is how many this machine does in some milliseconds, divided by
// share, for a key of size bytes.
func (d *digest) iterations(ms, share uint64, size int) (uint32, error) {
	if ms == 0 {
		return minIterations, nil
	}
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

// speed is how many iterations this machine does in a second of a thread that
// nobody disturbs.
func (d *digest) speed(size int) (uint64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	salt := make([]byte, saltSize)
	for n := uint32(1 << 10); ; n *= 2 {
		start := threadTime()
		if _, err := d.derive(salt, salt, n, size); err != nil {
			return 0, err
		}
		if took := threadTime() - start; took >= measureFor || n >= 1<<30 {
			return uint64(n) * uint64(time.Second) / uint64(max(took, 1)), nil
		}
	}
}

// threadTime is how long this thread has been on a processor.
func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
