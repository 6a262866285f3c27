package file

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// descriptor is an open file. The locks held on it end with it.
type descriptor struct {
	file     *os.File
	fd       int // of file, which must outlive it
	flags    int // of open(2)
	fileType uint32
	align    alignment
	held     lockSet
	posix    bool // locks belong to the process
	shared   bool // the open file, and with it OFD locks, may be others' too

	// noImmediate: the file system cannot read without waiting.
	noImmediate atomic.Bool
}

// newDescriptor makes a descriptor of the file of that name, which is open.
func newDescriptor(f *os.File, name string, flags int) *descriptor {
	return &descriptor{file: f, fd: int(f.Fd()), flags: flags, shared: strings.HasPrefix(name, "/dev/fdset/")}
}

// openDescriptor opens the node's file and checks that it can be used as the
// flags say.
func (n *node) openDescriptor(flags int) (*descriptor, error) {
	if n.wouldBlock(flags) {
		return nil, n.wrongKind()
	}
	f, err := n.graph.OpenFile(n.name, flags)
	if err != nil {
		return nil, n.openError(err, flags)
	}
	d := newDescriptor(f, n.name, flags)
	d.posix = n.locking == lockPOSIX
	if err := d.examine(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// wouldBlock finds out whether opening waits for a writer, as it does with a
// FIFO. The reference waits for ever there.
func (n *node) wouldBlock(flags int) bool {
	var st unix.Stat_t
	return flags&unix.O_ACCMODE == unix.O_RDONLY && unix.Stat(n.name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

func (n *node) openError(err error, flags int) error {
	var known *qerr.Error
	if errors.As(err, &known) {
		return known
	}
	errno := qerr.ErrnoOf(err, syscall.EIO)
	if errno == unix.EINVAL && flags&unix.O_DIRECT != 0 && n.opensWithout(flags, unix.O_DIRECT) {
		return qerr.WithErrnoOnly(errno, "Could not open '%s': filesystem does not support O_DIRECT", n.name)
	}
	return qerr.WithErrno(errno, "Could not open '%s'", n.name)
}

func (n *node) opensWithout(flags, flag int) bool {
	f, err := n.graph.OpenFile(n.name, flags&^flag)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// examine finds out what the file is and what requests it can take.
func (d *descriptor) examine() error {
	st, err := d.stat()
	if err != nil {
		return failed(err, "Could not stat file")
	}
	d.fileType = st.Mode & unix.S_IFMT
	if d.isBlock() && d.writable() {
		readOnly, err := unix.IoctlGetUint32(d.fd, unix.BLKROGET)
		if err == nil && readOnly != 0 {
			return qerr.WithErrno(unix.EACCES, "The device is not writable")
		}
	}
	if d.direct() && (d.isBlock() || d.fileType == unix.S_IFREG) {
		return d.probe()
	}
	d.align = alignment{request: 1, memory: 1}
	return nil
}

// close gives up the locks first: a child that is being started by this process
// holds the open file, and its locks, a little longer.
func (d *descriptor) close() {
	if !d.shared {
		d.unlock(0)
	}
	d.file.Close()
}

func (d *descriptor) writable() bool { return d.flags&unix.O_ACCMODE == unix.O_RDWR }
func (d *descriptor) direct() bool   { return d.flags&unix.O_DIRECT != 0 }
func (d *descriptor) isBlock() bool  { return d.fileType == unix.S_IFBLK }

func (d *descriptor) stat() (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstat(d.fd, &st) })
	return st, err
}

// length is the size in bytes, of devices as well.
func (d *descriptor) length() (int64, error) {
	return unix.Seek(d.fd, 0, unix.SEEK_END)
}

// failed makes the error that a client sees of one that the system gave; nil
// stays nil.
func failed(err error, text string) error {
	if err == nil {
		return nil
	}
	return qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "%s", text)
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		err := call()
		if err != unix.EINTR {
			return err
		}
	}
}
