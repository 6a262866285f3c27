package crypto

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"github.com/emmansun/gmsm/sm3"
	"golang.org/x/crypto/ripemd160" //lint:ignore SA1019 There are volumes that use it.

	"github.com/qmpblock/qmpblock/qerr"
)

// digest is a hash function, by its name in QAPI and in LUKS headers.
type digest struct {
	name string
	size int // bytes
	new  func() hash.Hash
}

var digests = []digest{
	{"md5", md5.Size, md5.New},
	{"sha1", sha1.Size, sha1.New},
	{"sha224", sha256.Size224, sha256.New224},
	{"sha256", sha256.Size, sha256.New},
	{"sha384", sha512.Size384, sha512.New384},
	{"sha512", sha512.Size, sha512.New},
	{"ripemd160", ripemd160.Size, ripemd160.New},
	{"sm3", sm3.Size, sm3.New},
}

func digestNamed(name string) (*digest, error) {
	for n := range digests {
		if d := &digests[n]; d.name == name {
			return d, nil
		}
	}
	return nil, qerr.New("Hash algorithm '%s' not supported", name)
}
