package sockets

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// NumberedFD is the source for a command line: it takes a descriptor that the
// process inherited.
func NumberedFD(_ context.Context, name string) (*os.File, error) {
	n, err := strconv.ParseInt(strings.TrimLeft(name, " \t\n\v\f\r"), 10, 32)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return nil, qerr.WithErrno(unix.ERANGE, "Unable to parse FD number %s", name)
	case err != nil:
		return nil, qerr.New("Unable to parse FD number %s", name)
	case n < 0:
		return nil, errNoSocket(name)
	}
	if _, err := unix.GetsockoptInt(int(n), unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, errNoSocket(name)
	}
	unix.CloseOnExec(int(n))
	return os.NewFile(uintptr(n), "fd "+name), nil
}

// NoFDs is the source where clients cannot pass descriptors by name, as in the
// storage daemon.
func NoFDs(context.Context, string) (*os.File, error) {
	return nil, qerr.New("only QEMU supports file descriptor passing")
}

func errNoSocket(name string) error { return qerr.New("File descriptor '%s' is not a socket", name) }

// openFD turns a descriptor into a listener or a connection.
func openFD[T any](ctx context.Context, name string, fds FDSource, open func(*os.File) (T, error)) (result T, err error) {
	file, err := fds(ctx, name)
	if err != nil {
		return result, err
	}
	defer file.Close()
	result, err = open(file)
	var told *qerr.Error
	var errno syscall.Errno
	if !errors.As(err, &told) && errors.As(err, &errno) {
		err = errNoSocket(name)
	}
	return result, err
}
