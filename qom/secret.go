package qom

import (
	"crypto/aes"
	"crypto/cipher"
	"io"
	"os"
	"syscall"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qom/base64"
)

// Secret is the value of a secret object: a password or key, given directly or
// in a file, plain or in base64, in the clear or encrypted with AES-256-CBC
// under another secret.
type Secret struct {
	guarded[secretProps]
	plain []byte
}

// secretProps are the properties; nil for what was not given. Changing them
// later does not change the secret.
type secretProps struct {
	data, file, keyID, iv *string
	format                string
}

func newSecret(*Object) any {
	return &Secret{guarded: guarded[secretProps]{props: secretProps{format: "raw"}}}
}

// Bytes returns the secret itself.
func (s *Secret) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plain
}

// Secret returns the content of the secret of that id.
func (t *Tree) Secret(id string) ([]byte, error) {
	o := t.Lookup(id)
	if o == nil {
		return nil, qerr.New("No secret with id '%s'", id)
	}
	s, ok := o.Value.(*Secret)
	if !ok {
		return nil, qerr.New("Object with id '%s' is not a secret", id)
	}
	if b := s.Bytes(); b != nil {
		return b, nil
	}
	// It is being made, and names itself as its key.
	return nil, qerr.New("Secret with id '%s' has no data", id)
}

// Complete reads and decrypts the secret.
func (s *Secret) Complete(o *Object) error {
	props := s.snapshot()
	plain, err := props.read(o.tree)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain = plain
	return err
}

func (s *secretProps) read(t *Tree) ([]byte, error) {
	input, err := s.load()
	if err != nil {
		return nil, err
	}
	if s.keyID != nil {
		return s.decrypt(t, input)
	}
	return s.decode(input)
}

func (s *secretProps) load() ([]byte, error) {
	switch {
	case s.file != nil && s.data != nil:
		return nil, qerr.New("'file' and 'data' are mutually exclusive")
	case s.file != nil:
		return readFile(*s.file)
	case s.data != nil:
		return []byte(*s.data), nil
	}
	return nil, qerr.New("Either 'file' or 'data' must be provided")
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, qerr.New("Unable to read %s: Failed to open file “%s”: %s", name, name, strerror(err))
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, qerr.New("Unable to read %s: Error reading file “%s”: %s", name, name, strerror(err))
	}
	return data, nil
}

func strerror(err error) string { return qerr.Strerror(qerr.ErrnoOf(err, syscall.EIO)) }

func (s *secretProps) decode(input []byte) ([]byte, error) {
	if s.format != "base64" {
		return input, nil
	}
	return base64.Decode(input)
}

// decrypt is in the reference's order of checks: key, iv, length, padding.
func (s *secretProps) decrypt(t *Tree, input []byte) ([]byte, error) {
	key, err := t.Secret(*s.keyID)
	if err != nil {
		return nil, err
	}
	if len(key) != 32 {
		return nil, qerr.New("Key should be 32 bytes in length")
	}
	if s.iv == nil {
		return nil, qerr.New("IV is required to decrypt secret")
	}
	iv, err := base64.Decode([]byte(*s.iv))
	if err != nil {
		return nil, err
	}
	if len(iv) != aes.BlockSize {
		return nil, qerr.New("IV should be %d bytes in length not %d", aes.BlockSize, len(iv))
	}
	if input, err = s.decode(input); err != nil {
		return nil, err
	}
	if len(input)%aes.BlockSize != 0 {
		return nil, qerr.New("Length %d must be a multiple of block size %d", len(input), aes.BlockSize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(input, input)
	return unpad(input)
}

// unpad cuts off as many bytes as the last one says, 0 … 16. As in the
// reference the others are not looked at.
func unpad(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return data, nil
	}
	n := int(data[len(data)-1])
	if n > aes.BlockSize {
		return nil, qerr.New("Incorrect number of padding bytes (%d) found on decrypted data", n)
	}
	return data[:len(data)-n], nil
}

// secretTypes are secret_common and its descendants.
func secretTypes() []*Type {
	return []*Type{
		{Name: "secret_common", Parent: typeObject, Abstract: true, Interfaces: []string{typeUserCreatable}, Properties: []*Property{
			enumProperty("format", "QCryptoSecretFormat", []string{"raw", "base64"}, func(s *secretProps) *string { return &s.format }),
			optionalProperty("keyid", func(s *secretProps) **string { return &s.keyID }),
			optionalProperty("iv", func(s *secretProps) **string { return &s.iv }),
		}},
		{Name: "secret", Parent: "secret_common", New: newSecret, Properties: []*Property{
			optionalProperty("data", func(s *secretProps) **string { return &s.data }),
			optionalProperty("file", func(s *secretProps) **string { return &s.file }),
		}},
		{Name: "secret_keyring", Parent: "secret_common", Properties: []*Property{{Name: "serial", Type: "int32_t"}}},
	}
}
