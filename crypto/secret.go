package crypto

import (
	"bytes"
	"unicode/utf8"

	"github.com/qmpblock/qmpblock/qerr"
)

// Secrets finds the content of a secret by its id.
type Secrets func(id string) ([]byte, error)

// passphrase is the content of a secret as a passphrase, which is text
// without NUL.
func (s Secrets) passphrase(id string) ([]byte, error) {
	b, err := s(id)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return nil, qerr.New("Data from secret %s is not valid UTF-8", id)
	}
	return b, nil
}

// required is the passphrase in a secret that must be named; prefix stands
// before the name of the option.
func (s Secrets) required(id, prefix string) ([]byte, error) {
	if id == "" {
		return nil, qerr.New("Parameter '%skey-secret' is required for cipher", prefix)
	}
	return s.passphrase(id)
}
