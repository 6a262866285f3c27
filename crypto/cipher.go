package crypto

import (
	"crypto/aes"
	"crypto/cipher"

	"github.com/aead/serpent"
	"golang.org/x/crypto/cast5"   //lint:ignore SA1019 There are volumes that use it.
	"golang.org/x/crypto/twofish" //lint:ignore SA1019 as above

	"github.com/qmpblock/qmpblock/qerr"
)

// algorithm is a block cipher with keys of one length.
type algorithm struct {
	name    string // as in QAPI
	luks    string // as in a LUKS header
	title   string // as in an error
	keySize int    // bytes
	block   int    // bytes
	new     func(key []byte) (cipher.Block, error)
}

// algorithms are the ciphers that can encrypt images. The reference's QAPI
// type knows des, 3des and sm4 besides, for other uses.
var algorithms = []algorithm{
	{"aes-128", "aes", "AES", 16, 16, aes.NewCipher},
	{"aes-192", "aes", "AES", 24, 16, aes.NewCipher},
	{"aes-256", "aes", "AES", 32, 16, aes.NewCipher},
	{"cast5-128", "cast5", "", 16, 8, newCast5},
	{"serpent-128", "serpent", "Serpent", 16, 16, serpent.NewCipher},
	{"serpent-192", "serpent", "Serpent", 24, 16, serpent.NewCipher},
	{"serpent-256", "serpent", "Serpent", 32, 16, serpent.NewCipher},
	{"twofish-128", "twofish", "Twofish", 16, 16, newTwofish},
	{"twofish-192", "twofish", "Twofish", 24, 16, newTwofish},
	{"twofish-256", "twofish", "Twofish", 32, 16, newTwofish},
}

func newCast5(key []byte) (cipher.Block, error)   { return cast5.NewCipher(key) }
func newTwofish(key []byte) (cipher.Block, error) { return twofish.NewCipher(key) }

// algorithmNamed finds a cipher by its name in QAPI.
func algorithmNamed(name string) (*algorithm, error) {
	for n := range algorithms {
		if a := &algorithms[n]; a.name == name {
			return a, nil
		}
	}
	return nil, qerr.New("Algorithm '%s' not supported", name)
}

// algorithmInHeader finds a cipher by its name in a LUKS header and the length
// of its key.
func algorithmInHeader(name string, keySize int) (*algorithm, error) {
	for n := range algorithms {
		if a := &algorithms[n]; a.luks == name && a.keySize == keySize {
			return a, nil
		}
	}
	return nil, qerr.New("Algorithm '%s' with key size %d bytes not supported", name, keySize)
}

// The modes, by their names in QAPI and in a LUKS header.
const (
	modeECB = "ecb"
	modeCBC = "cbc"
	modeXTS = "xts"
	modeCTR = "ctr"
)

func checkMode(name string) error {
	switch name {
	case modeECB, modeCBC, modeXTS, modeCTR:
		return nil
	}
	return qerr.New("Cipher mode '%s' not supported", name)
}

// The generators of initialization vectors, by their names in QAPI and in a
// LUKS header.
const (
	ivPlain   = "plain"
	ivPlain64 = "plain64"
	ivESSIV   = "essiv"
)

func checkIVGen(name string) error {
	switch name {
	case ivPlain, ivPlain64, ivESSIV:
		return nil
	}
	return qerr.New("IV generator '%s' not supported", name)
}

// suite is how sectors are encrypted, but for the key.
type suite struct {
	alg    *algorithm
	mode   string
	iv     string
	ivHash *digest // nil if none is named
}

// keySize is the length of the whole key in bytes: XTS takes two keys.
func (s *suite) keySize() int {
	if s.mode == modeXTS {
		return 2 * s.alg.keySize
	}
	return s.alg.keySize
}

// essiv is the cipher that encrypts the numbers of sectors, whose key is a hash
// of the key.
func (s *suite) essiv() (*algorithm, error) {
	size := s.ivHash.size
	for n := range algorithms {
		if a := &algorithms[n]; a.luks == s.alg.luks && a.keySize == size {
			return a, nil
		}
	}
	if s.alg.title == "" {
		return nil, qerr.New("Cipher %s not supported with essiv", s.alg.name)
	}
	return nil, qerr.New("No %s cipher with key size %d available", s.alg.title, size)
}
