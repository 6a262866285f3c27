package psk13

import (
	"crypto/ecdh"
	"crypto/rand"
)

const (
	groupP256   = 0x0017
	groupP384   = 0x0018
	groupX25519 = 0x001d
)

// groups are the groups in order of preference.
func groups() []uint16 { return []uint16{groupX25519, groupP256, groupP384} }

func curve(group uint16) ecdh.Curve {
	switch group {
	case groupX25519:
		return ecdh.X25519()
	case groupP256:
		return ecdh.P256()
	case groupP384:
		return ecdh.P384()
	}
	return nil
}

func newKey(group uint16) (*ecdh.PrivateKey, error) {
	key, err := curve(group).GenerateKey(rand.Reader)
	if err != nil {
		return nil, fail(InternalError, "no random numbers: %v", err)
	}
	return key, nil
}

// agree combines a key with the other side's share. It refuses points outside
// of the curve and those without effect.
func agree(key *ecdh.PrivateKey, share []byte) ([]byte, error) {
	peer, err := key.Curve().NewPublicKey(share)
	if err != nil {
		return nil, fail(IllegalParameter, "the key share is none")
	}
	shared, err := key.ECDH(peer)
	if err != nil {
		return nil, fail(IllegalParameter, "the key share is none")
	}
	return shared, nil
}
