package file

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// lockSet is a set of bytes to lock: bit p for permission p in use, bit 4+p
// for permission p kept from others.
type lockSet uint8

const permBits = 4

func lockSetOf(perm, shared block.Perm) lockSet {
	return lockSet(perm&block.PermAll) | lockSet(block.PermAll&^shared)<<permBits
}

func (s lockSet) perm() block.Perm { return block.Perm(s) & block.PermAll }

func (s lockSet) has(bit int) bool { return s&(1<<bit) != 0 }

// offset is where in the file the byte of a bit is.
func offset(bit int) int64 {
	if bit < permBits {
		return 100 + int64(bit)
	}
	return 200 + int64(bit-permBits)
}

// rival is the bit that others hold if they are in conflict with one.
func rival(bit int) int { return (bit + permBits) % (2 * permBits) }

// resolve makes auto, and on, what the system can do with the file. Locks of
// whole processes are lost as soon as any descriptor of the file is closed,
// so they are used on demand only.
func (l locking) resolve(d *descriptor) locking {
	if l == lockOff || d.hasOFDLocks() {
		return l
	}
	if l == lockAuto {
		return lockOff
	}
	d.posix = true
	return lockPOSIX
}

func (d *descriptor) hasOFDLocks() bool {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	return unix.FcntlFlock(uintptr(d.fd), unix.F_OFD_GETLK, &lk) == nil
}

// lock takes the bytes of want that are not held. Those it got before an
// error stay.
func (d *descriptor) lock(want lockSet) error {
	for bit := range 2 * permBits {
		if !want.has(bit) || d.held.has(bit) {
			continue
		}
		if err := d.setLock(unix.F_RDLCK, bit); err != nil {
			return lockError(bit, err)
		}
		d.held |= 1 << bit
	}
	return nil
}

// lockError: a lock that is refused because of another one needs no further
// words; it is a write lock, which programs of our kind never take.
func lockError(bit int, err error) error {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return qerr.WithErrnoOnly(unix.EAGAIN, "Failed to lock byte %d", offset(bit))
	}
	return qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "Failed to lock byte %d", offset(bit))
}

// unlock gives up every byte but those of keep. Should that fail, somebody
// else waits for no reason; there is nothing better to do than to go on.
func (d *descriptor) unlock(keep lockSet) {
	for bit := range 2 * permBits {
		if d.held.has(bit) && !keep.has(bit) {
			_ = d.setLock(unix.F_UNLCK, bit)
			d.held &^= 1 << bit
		}
	}
}

// checkRivals looks for others whose use of the file, which has the given name,
// is in conflict with what is wanted.
func (d *descriptor) checkRivals(want lockSet, name string) error {
	for bit := range 2 * permBits {
		if !want.has(bit) {
			continue
		}
		taken, err := d.taken(rival(bit))
		if err == nil && !taken {
			continue
		}
		refusal := qerr.WithErrnoOnly(unix.EAGAIN, "%s", conflict(bit))
		if err != nil {
			refusal = qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "%s", conflict(bit))
		}
		return refusal.WithHint("Is another process using the image [" + name + "]?\n")
	}
	return nil
}

func conflict(bit int) string {
	if bit < permBits {
		return `Failed to get "` + permName(bit) + `" lock`
	}
	return `Failed to get shared "` + permName(bit-permBits) + `" lock`
}

func permName(p int) string { return block.Perm(1 << p).String() }

func (d *descriptor) setLock(kind int16, bit int) error {
	cmd := unix.F_OFD_SETLK
	if d.posix {
		cmd = unix.F_SETLK
	}
	lk := unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: offset(bit), Len: 1}
	return retry(func() error { return unix.FcntlFlock(uintptr(d.fd), cmd, &lk) })
}

// taken tells whether somebody else holds a byte.
func (d *descriptor) taken(bit int) (bool, error) {
	cmd := unix.F_OFD_GETLK
	if d.posix {
		cmd = unix.F_GETLK
	}
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: offset(bit), Len: 1}
	err := retry(func() error { return unix.FcntlFlock(uintptr(d.fd), cmd, &lk) })
	return lk.Type != unix.F_UNLCK, err
}
