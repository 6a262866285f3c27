package psk13

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	suiteAES128GCM = 0x1301
	suiteChaCha20  = 0x1303
)

// suites are the cipher suites in order of preference.
func suites() []uint16 { return []uint16{suiteAES128GCM, suiteChaCha20} }

// expandLabel is HKDF-Expand-Label (RFC 8446, section 7.1).
func expandLabel(secret []byte, label string, context []byte, length int) []byte {
	info := make([]byte, 0, 4+6+len(label)+len(context))
	info = binary.BigEndian.AppendUint16(info, uint16(length))
	info = append(append(append(info, byte(6+len(label))), "tls13 "...), label...)
	info = append(append(info, byte(len(context))), context...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		panic(err) // only for lengths that nobody asks for
	}
	return out
}

// deriveSecret is Derive-Secret with the hash of the messages so far.
func deriveSecret(secret []byte, label string, transcript []byte) []byte {
	return expandLabel(secret, label, transcript, sha256.Size)
}

func extract(secret, salt []byte) []byte {
	out, err := hkdf.Extract(sha256.New, secret, salt)
	if err != nil {
		panic(err) // only under FIPS restrictions that are not in force
	}
	return out
}

func emptyHash() []byte {
	h := sha256.Sum256(nil)
	return h[:]
}

// secrets are the key schedule of one connection.
type secrets struct {
	early             []byte
	client, server    []byte // of handshake traffic, then of application traffic
	handshake         []byte
	clientFin, srvFin []byte
}

func newSecrets(psk []byte) *secrets { return &secrets{early: extract(psk, nil)} }

// binder authenticates a hello up to its binders, whose hash is given.
func (s *secrets) binder(truncated []byte) []byte {
	key := deriveSecret(s.early, "ext binder", emptyHash())
	return finished(expandLabel(key, "finished", nil, sha256.Size), truncated)
}

// exchange enters the result of the key exchange; transcript ends in the
// ServerHello.
func (s *secrets) exchange(shared, transcript []byte) {
	s.handshake = extract(shared, deriveSecret(s.early, "derived", emptyHash()))
	s.client = deriveSecret(s.handshake, "c hs traffic", transcript)
	s.server = deriveSecret(s.handshake, "s hs traffic", transcript)
	s.clientFin = expandLabel(s.client, "finished", nil, sha256.Size)
	s.srvFin = expandLabel(s.server, "finished", nil, sha256.Size)
}

// application turns to the secrets of application traffic; transcript ends in
// the server's Finished.
func (s *secrets) application(transcript []byte) {
	master := extract(make([]byte, sha256.Size), deriveSecret(s.handshake, "derived", emptyHash()))
	s.client = deriveSecret(master, "c ap traffic", transcript)
	s.server = deriveSecret(master, "s ap traffic", transcript)
}

func finished(key, transcript []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(transcript)
	return mac.Sum(nil)
}

// protection encrypts or decrypts the records of one direction.
type protection struct {
	suite  uint16
	secret []byte
	aead   cipher.AEAD
	iv     [12]byte
	seq    uint64
	room   [12]byte // for a nonce
}

func newProtection(suite uint16, secret []byte) *protection {
	p := &protection{suite: suite}
	p.use(secret)
	return p
}

// use begins with a new secret.
func (p *protection) use(secret []byte) {
	p.secret, p.seq = secret, 0
	var err error
	if p.suite == suiteChaCha20 {
		p.aead, err = chacha20poly1305.New(expandLabel(secret, "key", nil, chacha20poly1305.KeySize))
	} else {
		var block cipher.Block
		if block, err = aes.NewCipher(expandLabel(secret, "key", nil, 16)); err == nil {
			p.aead, err = cipher.NewGCM(block)
		}
	}
	if err != nil {
		panic(err) // the keys have the right length
	}
	copy(p.iv[:], expandLabel(secret, "iv", nil, len(p.iv)))
}

// update is the step to the next secret that KeyUpdate makes.
func (p *protection) update() {
	p.use(expandLabel(p.secret, "traffic upd", nil, sha256.Size))
}

// nonce returns the next record's, good until the one after.
func (p *protection) nonce() []byte {
	p.room = p.iv
	for i := range 8 {
		p.room[4+i] ^= byte(p.seq >> (56 - 8*i))
	}
	p.seq++
	return p.room[:]
}

// transcript is the hash of the handshake's messages.
type transcript struct{ hash.Hash }

func newTranscript() transcript { return transcript{sha256.New()} }

func (t transcript) sum() []byte { return t.Sum(nil) }

// retry replaces the first hello by its hash (RFC 8446, section 4.4.1).
func (t transcript) retry() {
	first := t.sum()
	t.Reset()
	t.Write([]byte{typeMessageHash, 0, 0, byte(len(first))})
	t.Write(first)
}

// with returns the hash as it would be after more, and leaves t alone.
func (t transcript) with(more []byte) []byte {
	c, err := t.Hash.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // SHA-256 can be cloned
	}
	c.Write(more)
	return c.Sum(nil)
}
