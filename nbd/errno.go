package nbd

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/qmpblock/qmpblock/qerr"
)

// complain makes an error in the reference's words, which begin as they like.
func complain(format string, args ...any) error { return fmt.Errorf(format, args...) }

// The errors that go over the wire (section "Error values"). The numbers are
// the protocol's own, which Linux happens to share.
var wireErrors = []struct {
	code  uint32
	errno syscall.Errno
}{
	{1, syscall.EPERM},
	{5, syscall.EIO},
	{12, syscall.ENOMEM},
	{22, syscall.EINVAL},
	{28, syscall.ENOSPC},
	{75, syscall.EOVERFLOW},
	{95, syscall.ENOTSUP},
	{108, syscall.ESHUTDOWN},
}

// ErrorCode is how an errno goes over the wire. What the protocol has no number
// for is an invalid argument, as the reference sends it.
func ErrorCode(errno syscall.Errno) uint32 {
	switch errno {
	case 0:
		return 0
	case syscall.EROFS:
		errno = syscall.EPERM
	case syscall.EDQUOT, syscall.EFBIG:
		errno = syscall.ENOSPC
	}
	for _, e := range wireErrors {
		if e.errno == errno {
			return e.code
		}
	}
	return ErrorCode(syscall.EINVAL)
}

// Errno is the errno that a number on the wire stands for; unknown ones count
// as invalid arguments.
func Errno(code uint32) syscall.Errno {
	if code == 0 {
		return 0
	}
	for _, e := range wireErrors {
		if e.code == code {
			return e.errno
		}
	}
	return syscall.EINVAL
}

// SocketError puts what happened to a connection into the reference's words. Doing is
// what met it, "read from" or "write to". The end of a connection is one in the middle
// of data; an error that the system did not tell of is returned as it is.
func SocketError(err error, doing string) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return qerr.WithErrnoOnly(syscall.EIO, "Unexpected end-of-file before all data were read")
	case errors.As(err, &errno):
		return qerr.WithErrno(errno, "Unable to %s socket", doing)
	}
	return err
}
