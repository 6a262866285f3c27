package tlssession

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/tlssession/psk13"
)

// Endpoint is the side of a connection that credentials are for.
type Endpoint uint8

// The sides.
const (
	Client Endpoint = iota // connects
	Server                 // listens
)

func (e Endpoint) String() string {
	if e == Server {
		return "server"
	}
	return "client"
}

// Authorizer tells whether an identity may come in. That of a certificate is
// its distinguished name, see [DistinguishedName].
type Authorizer func(identity string) (bool, error)

// Credentials make sessions. The connection that is passed belongs to the
// session, or is closed if there is an error. The handshake ends with ctx.
//
// A session has a concurrent reader and writer, and deadlines. Its Read
// returns [ErrTerminated] when the other side vanishes without a goodbye.
type Credentials interface {
	// Server does the handshake of the side that listens. allowed is asked
	// about verified clients; nil lets all in. Shared keys have no names to
	// ask about.
	Server(ctx context.Context, conn net.Conn, allowed Authorizer) (net.Conn, error)
	// Client does the handshake of the side that connects. host is the
	// server's name for its certificate, nil if there is none.
	Client(ctx context.Context, conn net.Conn, host *string) (net.Conn, error)
}

// ErrTerminated is what reading ends with when the other side did not say that
// it is leaving: somebody between may have cut off the rest. The words are the
// reference's.
var ErrTerminated = qerr.New("Cannot read from TLS channel: The TLS connection was non-properly terminated.")

// honest is a connection whose end is that error: crypto/tls would forgive a
// peer that leaves between two records.
type honest struct{ net.Conn }

func (c honest) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		err = ErrTerminated
	}
	return n, err
}

// access wants a file to be there and readable.
func access(path string) error {
	if err := unix.Access(path, unix.R_OK); err != nil {
		return qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "Unable to access credentials %s", path)
	}
	return nil
}

func errNoDir() error { return qerr.New("Missing 'dir' property value") }

// handshakeError puts an error of a handshake into GnuTLS's words, as far as
// it has some.
func handshakeError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return qerr.New("TLS handshake failed: %s", handshakeText(err))
}

func handshakeText(err error) string {
	var alert tls.AlertError
	var remote psk13.RemoteError
	var header tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.Is(err, ErrTerminated):
		return "The TLS connection was non-properly terminated."
	case errors.Is(err, syscall.EPIPE):
		return "Error in the push function.: Unable to write to socket: Broken pipe"
	case errors.Is(err, syscall.ECONNRESET):
		return "Error in the pull function.: Unable to read from socket: Connection reset by peer"
	case errors.As(err, &header):
		return "An unexpected TLS packet was received."
	case errors.As(err, &remote), errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
		return "A TLS fatal alert has been received."
	case errors.Is(err, psk13.ErrNoPSK):
		return "Insufficient credentials for that request."
	case errors.Is(err, psk13.ErrNoCommonCipher):
		return "No supported cipher suites have been found."
	case errors.Is(err, psk13.ErrWrongKey):
		return "An illegal parameter has been received."
	}
	return err.Error()
}
