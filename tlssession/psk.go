package tlssession

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/tlssession/psk13"
)

// PSK is a shared key, or for a server a file of them.
type PSK struct {
	// Priority is GnuTLS's priority string.
	Priority string

	file     string
	username string // client
	key      []byte // client
}

// minKey is the length that GnuTLS wants of a client's key, in bytes.
const minKey = 4

// LoadPSK reads the key of username, by default qemu, from the file keys.psk
// in dir. A server has no username, and reads the file whenever a client
// comes. What the folder must contain is checked in the reference's order.
func LoadPSK(dir *string, endpoint Endpoint, username *string) (*PSK, error) {
	if endpoint == Server && username != nil {
		return nil, qerr.New("username should not be set when endpoint=server")
	}
	if dir == nil {
		return nil, errNoDir()
	}
	p := &PSK{file: *dir + "/keys.psk", username: "qemu"}
	if err := access(p.file); err != nil {
		return nil, err
	}
	if endpoint == Server {
		return p, nil
	}
	if username != nil {
		p.username = *username
	}
	var err error
	p.key, err = p.load()
	return p, err
}

// load finds the client's key.
func (p *PSK) load() ([]byte, error) {
	text, err := os.ReadFile(p.file)
	if err != nil {
		return nil, qerr.New("Cannot read PSK file %s: Error reading file “%s”: %s",
			p.file, p.file, qerr.Strerror(qerr.ErrnoOf(err, syscall.EIO)))
	}
	digits, ok := lookupPSK(string(text), func(name string) bool { return name == p.username })
	if !ok {
		return nil, qerr.New("Username %s not found in PSK file %s", p.username, p.file)
	}
	key, err := hex.DecodeString(digits)
	switch {
	case err != nil:
		return nil, qerr.New("Cannot set PSK client credentials: Error in parsing.")
	case len(key) < minKey:
		return nil, qerr.New("Cannot set PSK client credentials: The request is invalid.")
	}
	return key, nil
}

// lookupPSK finds the first line "name:digits" of a name that is meant.
func lookupPSK(text string, meant func(name string) bool) (digits string, ok bool) {
	for line := range strings.Lines(text) {
		name, digits, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if ok && meant(name) {
			return digits, true
		}
	}
	return "", false
}

// find returns the key of a client that came, nil for none. A name in the
// file that begins with # is written in hexadecimal digits.
func (p *PSK) find(identity string) []byte {
	text, err := os.ReadFile(p.file)
	if err != nil {
		return nil
	}
	digits, ok := lookupPSK(string(text), func(name string) bool {
		if digits, coded := strings.CutPrefix(name, "#"); coded {
			plain, err := hex.DecodeString(digits)
			return err == nil && string(plain) == identity
		}
		return name == identity
	})
	if !ok {
		return nil
	}
	key, err := hex.DecodeString(strings.TrimRight(digits, "\r"))
	if err != nil || len(key) == 0 {
		return nil
	}
	return key
}

// Server implements Credentials.
func (p *PSK) Server(ctx context.Context, conn net.Conn, _ Authorizer) (net.Conn, error) {
	return p.session(ctx, conn, func() (*psk13.Conn, error) { return psk13.Server(ctx, honest{conn}, p.find) })
}

// Client implements Credentials.
func (p *PSK) Client(ctx context.Context, conn net.Conn, _ *string) (net.Conn, error) {
	return p.session(ctx, conn, func() (*psk13.Conn, error) { return psk13.Client(ctx, honest{conn}, p.username, p.key) })
}

func (p *PSK) session(ctx context.Context, conn net.Conn, handshake func() (*psk13.Conn, error)) (net.Conn, error) {
	v, err := parsePriority(p.Priority)
	if err == nil && v.max < tls.VersionTLS13 {
		err = errPriority(p.Priority, "shared keys need TLS 1.3")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c, err := handshake()
	if err != nil {
		return nil, handshakeError(ctx, err)
	}
	return c, nil
}
