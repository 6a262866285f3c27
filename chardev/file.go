package chardev

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func openFile(b *File) (device, error) {
	mode := os.O_TRUNC
	if b.Append {
		mode = os.O_APPEND
	}
	out, err := os.OpenFile(b.Out, os.O_WRONLY|os.O_CREATE|mode, 0o666)
	if err != nil {
		return nil, sysError(err, "Could not open '%s'", b.Out)
	}
	if b.In == nil {
		return newStream("file", nil, out).onClose(func() { out.Close() }), nil
	}
	in, err := os.Open(*b.In)
	if err != nil {
		out.Close()
		return nil, sysError(err, "Could not open '%s'", *b.In)
	}
	return newStream("file", in, out).onClose(func() { out.Close() }).onClose(func() { in.Close() }), nil
}

// openPipe opens named pipes for reading and writing both, so that it does not
// have to wait for the other side.
func openPipe(b *Pipe) (device, error) {
	in, err := os.OpenFile(b.Device+".in", os.O_RDWR, 0)
	if err == nil {
		out, err := os.OpenFile(b.Device+".out", os.O_RDWR, 0)
		if err == nil {
			return newStream("pipe", in, out).onClose(func() { in.Close() }).onClose(func() { out.Close() }), nil
		}
		in.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, sysError(err, "Could not open '%s'", b.Device)
	}
	both, err := os.OpenFile(b.Device, os.O_RDWR, 0)
	if err != nil {
		return nil, sysError(err, "Could not open '%s'", b.Device)
	}
	return newStream("pipe", both, both).onClose(func() { both.Close() }), nil
}

// serial is a stream over a terminal which can send a break.
type serial struct {
	*stream
	tty *os.File
}

func openSerial(b *Serial) (device, error) {
	tty, err := os.OpenFile(b.Device, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, sysError(err, "Could not open '%s'", b.Device)
	}
	// What is no terminal has no line to set up; the reference takes it too.
	_ = control(tty, func(fd int) error { return makeRaw(fd, unix.B115200) })
	return &serial{newStream("serial", tty, tty).onClose(func() { tty.Close() }), tty}, nil
}

func (s *serial) sendBreak() {
	// Nobody hears of a failure: chardev-send-break succeeds on anything.
	_ = control(s.tty, func(fd int) error { return unix.IoctlSetInt(fd, unix.TCSBRKP, 1) })
}

// ppClaim is the request that only parallel ports know (linux/ppdev.h).
const ppClaim = 0x708B

func openParallel(b *Parallel) (device, error) {
	port, err := os.OpenFile(b.Device, os.O_RDWR, 0)
	if err != nil {
		return nil, sysError(err, "Could not open '%s'", b.Device)
	}
	if err := control(port, func(fd int) error { return unix.IoctlSetInt(fd, ppClaim, 0) }); err != nil {
		port.Close()
		return nil, sysError(err, "not a parallel port")
	}
	return newStream("parallel", nil, nil).onClose(func() { port.Close() }), nil
}

// control runs f with a file's descriptor, which stays as it is.
func control(file syscall.Conn, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}
