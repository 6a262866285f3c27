package file

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// Where the system lacks locks of open files, auto does without and on uses
// locks of the process, which others see as well.
func TestLockingFallback(t *testing.T) {
	t.Parallel()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := &descriptor{file: f, fd: int(f.Fd())}
	lacking := &descriptor{fd: -1}
	for _, c := range []struct {
		d         *descriptor
		asked, is locking
	}{
		{d, lockAuto, lockAuto}, {d, lockOn, lockOn}, {d, lockOff, lockOff},
		{lacking, lockAuto, lockOff}, {lacking, lockOff, lockOff}, {lacking, lockOn, lockPOSIX},
	} {
		if got := c.asked.resolve(c.d); got != c.is {
			t.Errorf("%d became %d, want %d", c.asked, got, c.is)
		}
	}
	if !lacking.posix || d.posix {
		t.Error("the descriptors do not know their kind of locks")
	}

	d.posix = true
	all := lockSetOf(block.PermAll, 0)
	if err := d.lock(all); err != nil {
		t.Fatal(err)
	}
	second, err := os.OpenFile(f.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := &descriptor{file: second, fd: int(second.Fd())}
	defer second.Close()
	for _, want := range []bool{true, false} {
		for bit := range 2 * permBits {
			if taken, err := other.taken(bit); taken != want || err != nil {
				t.Errorf("byte %d taken: %v (%v), want %v", offset(bit), taken, err, want)
			}
			if taken, err := d.taken(bit); taken || err != nil {
				t.Errorf("byte %d: in conflict with itself (%v)", offset(bit), err)
			}
		}
		d.unlock(0)
	}
}

func TestProbed(t *testing.T) {
	t.Parallel()
	for smallest, want := range map[int64]int64{1: maxAlignment, 512: 512, 1024: 1024, 4096: 4096, 8192: 0} {
		if got := probed(func(n int64) bool { return n >= smallest }); got != want {
			t.Errorf("%d: %d, want %d", smallest, got, want)
		}
	}
}

// What cannot be done has one name.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]error{
		unix.ENOSYS: unix.ENOTSUP, unix.ENODEV: unix.ENOTSUP, unix.ENOTTY: unix.ENOTSUP, unix.EOPNOTSUPP: unix.ENOTSUP,
		unix.EINVAL: unix.EINVAL, unix.EPERM: unix.EPERM, unix.ENOSPC: unix.ENOSPC,
	} {
		if got := unsupported(err); !errors.Is(got, want) {
			t.Errorf("%v became %v", err, got)
		}
	}
	if unsupported(nil) != nil || failed(nil, "x") != nil {
		t.Error("nothing became an error")
	}
	if got := failed(qerr.From(unix.ENOSPC), "Could not write").Error(); got != "Could not write: No space left on device" {
		t.Error(got)
	}
}
