package chardev

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// makeRaw makes a terminal pass on every byte as it is, with 8 bits and no
// parity. speed is one of unix.B…, 0 for as it was.
func makeRaw(fd int, speed uint32) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB|unix.CSTOPB) | unix.CS8
	if speed != 0 {
		t.Cflag = t.Cflag&^unix.CBAUD | speed
	}
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// pty is a stream over the near side of a pseudo-terminal.
type pty struct {
	*stream
	name string // the far side
}

func (p *pty) filename() string { return "pty:" + p.name }

// openPTY keeps the far side open as well: without that, reading would fail
// while no other program has it open.
func openPTY(b *PTY) (device, error) {
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, sysError(err, "Failed to create PTY")
	}
	p := &pty{stream: newStream("pty", near, near).onClose(func() { near.Close() })}
	if err := p.openFar(near); err != nil {
		p.close()
		return nil, sysError(err, "Failed to create PTY")
	}
	if b.Path != nil {
		if err := os.Symlink(p.name, *b.Path); err != nil {
			p.close()
			return nil, sysError(err, "Failed to create PTY symlink")
		}
		p.onClose(func() { os.Remove(*b.Path) })
	}
	return p, nil
}

func (p *pty) openFar(near *os.File) error {
	var number uint32
	err := control(near, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN)
		}
		return err
	})
	if err != nil {
		return err
	}
	p.name = fmt.Sprintf("/dev/pts/%d", number)
	far, err := os.OpenFile(p.name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	p.onClose(func() { far.Close() })
	return control(far, func(fd int) error { return makeRaw(fd, 0) })
}

// stdioLock sees to it that one device at most uses the standard input and
// output.
type stdioLock struct {
	mu    sync.Mutex
	taken bool
}

func (l *stdioLock) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken {
		return false
	}
	l.taken = true
	return true
}

func (l *stdioLock) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = false
}

func (s *Set) openStdio(b *Stdio) (device, error) {
	if !s.stdio.take() {
		return nil, qerr.New("cannot use stdio by multiple character devices")
	}
	st := newStream("stdio", nil, nil).onClose(s.stdio.give)
	in, err := st.borrow(s.cfg.Stdin)
	if err == nil {
		st.in = in
		st.out, err = st.borrow(s.cfg.Stdout)
	}
	if err != nil {
		st.close()
		return nil, sysError(err, "Failed to set FD nonblocking")
	}
	signals := b.Signal == nil || *b.Signal
	if restore := quietTerminal(in, signals); restore != nil {
		st.onClose(restore)
	}
	return st, nil
}

// borrow returns another File for an open one that does not block the process
// in its system calls. When the device is closed everything is as before.
func (s *stream) borrow(file *os.File) (*os.File, error) {
	var dup int
	var flags int
	err := control(file, func(fd int) (err error) {
		if flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
			dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		unix.Close(dup)
		return nil, err
	}
	borrowed := os.NewFile(uintptr(dup), file.Name())
	s.onClose(func() {
		if flags&unix.O_NONBLOCK == 0 {
			_ = control(borrowed, func(fd int) error { return unix.SetNonblock(fd, false) })
		}
		borrowed.Close()
	})
	return borrowed, nil
}

// quietTerminal switches echo and line editing off if file is a terminal. It
// returns how to switch them back on, nil if there is nothing to do.
func quietTerminal(file *os.File, signals bool) (restore func()) {
	var old *unix.Termios
	err := control(file, func(fd int) (err error) {
		if old, err = unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return err
		}
		if err = makeRaw(fd, 0); err != nil {
			return err
		}
		quiet, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		quiet.Oflag |= unix.OPOST
		if signals {
			quiet.Lflag |= unix.ISIG
		}
		return unix.IoctlSetTermios(fd, unix.TCSETS, quiet)
	})
	if err != nil {
		return nil
	}
	return func() {
		_ = control(file, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, old) })
	}
}
