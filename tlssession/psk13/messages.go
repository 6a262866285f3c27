package psk13

import (
	"bytes"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Types of handshake messages.
const (
	typeClientHello         = 1
	typeServerHello         = 2
	typeNewSessionTicket    = 4
	typeEncryptedExtensions = 8
	typeFinished            = 20
	typeKeyUpdate           = 24
	typeMessageHash         = 254
)

// Types of extensions.
const (
	extSupportedGroups   = 10
	extPreSharedKey      = 41
	extEarlyData         = 42
	extSupportedVersions = 43
	extCookie            = 44
	extPSKModes          = 45
	extKeyShare          = 51
)

const (
	version12  = 0x0303 // what TLS 1.3 calls itself outside of the extension
	version13  = 0x0304
	modeDHEKE  = 1
	binderSize = 32
)

// retryRandom marks a ServerHello as a HelloRetryRequest (RFC 8446, section
// 4.1.3): the SHA-256 of that word.
var retryRandom = [32]byte{
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
	0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
}

type keyShare struct {
	group uint16
	data  []byte
}

// clientHello is a ClientHello as far as it matters here.
type clientHello struct {
	random     [32]byte
	sessionID  []byte
	suites     []uint16
	versions   []uint16
	groups     []uint16
	shares     []keyShare
	modes      []byte
	cookie     []byte
	earlyData  bool
	identities [][]byte
	binders    [][]byte
	// truncated is how much of the message comes before the binders.
	truncated int
}

// share returns the client's share of a group, nil if there is none.
func (m *clientHello) share(group uint16) []byte {
	for _, s := range m.shares {
		if s.group == group {
			return s.data
		}
	}
	return nil
}

// marshal makes the message with binders of zeroes for its one identity.
func (m *clientHello) marshal() ([]byte, error) {
	return message(typeClientHello, func(b *cryptobyte.Builder) {
		b.AddUint16(version12)
		b.AddBytes(m.random[:])
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.sessionID) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { addUint16s(b, m.suites) })
		b.AddBytes([]byte{1, 0}) // no compression
		b.AddUint16LengthPrefixed(m.addExtensions)
	})
}

func (m *clientHello) addExtensions(b *cryptobyte.Builder) {
	addExtension(b, extSupportedVersions, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { addUint16s(b, m.versions) })
	})
	addExtension(b, extSupportedGroups, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { addUint16s(b, m.groups) })
	})
	addExtension(b, extKeyShare, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, s := range m.shares {
				s.add(b)
			}
		})
	})
	addExtension(b, extPSKModes, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.modes) })
	})
	if m.cookie != nil {
		addExtension(b, extCookie, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.cookie) })
		})
	}
	// It must be the last.
	addExtension(b, extPreSharedKey, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.identities[0]) })
			b.AddUint32(0) // the age of a ticket, which this is none
		})
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, binderSize)) })
		})
	})
}

func (s keyShare) add(b *cryptobyte.Builder) {
	b.AddUint16(s.group)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s.data) })
}

func addExtension(b *cryptobyte.Builder, typ uint16, body func(*cryptobyte.Builder)) {
	b.AddUint16(typ)
	b.AddUint16LengthPrefixed(body)
}

func addUint16s(b *cryptobyte.Builder, values []uint16) {
	for _, v := range values {
		b.AddUint16(v)
	}
}

func message(typ uint8, body func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint8(typ)
	b.AddUint24LengthPrefixed(body)
	return b.Bytes()
}

var errDecode = &Error{DecodeError, "a message cannot be read"}

// parseClientHello reads a whole message, header included.
func parseClientHello(msg []byte) (*clientHello, error) {
	m := &clientHello{}
	s := cryptobyte.String(msg)
	var version uint16
	var sessionID, suites, compression, extensions cryptobyte.String
	if !s.Skip(4) || !s.ReadUint16(&version) || !s.CopyBytes(m.random[:]) ||
		!s.ReadUint8LengthPrefixed(&sessionID) || len(sessionID) > 32 ||
		!s.ReadUint16LengthPrefixed(&suites) || !readUint16s(suites, &m.suites) ||
		!s.ReadUint8LengthPrefixed(&compression) {
		return nil, errDecode
	}
	m.sessionID = sessionID
	if s.Empty() {
		return nil, fail(ProtocolVersion, "the client speaks an older version")
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return nil, errDecode
	}
	err := eachExtension(extensions, func(typ uint16, body cryptobyte.String, last bool) error {
		if typ == extPreSharedKey && !last {
			return fail(IllegalParameter, "pre_shared_key is not the last extension")
		}
		if !m.parseExtension(typ, body, len(msg)) {
			return errDecode
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case version < version12 || !slices.Contains(m.versions, version13):
		return nil, fail(ProtocolVersion, "the client does not speak TLS 1.3")
	case !bytes.Equal(compression, []byte{0}):
		return nil, fail(IllegalParameter, "the client wants compression")
	}
	return m, nil
}

// parseExtension returns false for a body that cannot be read. total is the
// length of the message.
func (m *clientHello) parseExtension(typ uint16, body cryptobyte.String, total int) bool {
	var list cryptobyte.String
	switch typ {
	case extSupportedVersions:
		return body.ReadUint8LengthPrefixed(&list) && body.Empty() && readUint16s(list, &m.versions)
	case extSupportedGroups:
		return body.ReadUint16LengthPrefixed(&list) && body.Empty() && readUint16s(list, &m.groups)
	case extPSKModes:
		ok := body.ReadUint8LengthPrefixed(&list) && body.Empty() && len(list) > 0
		m.modes = list
		return ok
	case extCookie:
		ok := body.ReadUint16LengthPrefixed(&list) && body.Empty() && len(list) > 0
		m.cookie = list
		return ok
	case extKeyShare:
		return body.ReadUint16LengthPrefixed(&list) && body.Empty() && m.parseShares(list)
	case extEarlyData:
		m.earlyData = true
		return body.Empty()
	case extPreSharedKey:
		var binders cryptobyte.String
		if !body.ReadUint16LengthPrefixed(&list) || !m.parseIdentities(list) {
			return false
		}
		m.truncated = total - len(body)
		return body.ReadUint16LengthPrefixed(&binders) && body.Empty() && m.parseBinders(binders) &&
			len(m.binders) == len(m.identities)
	}
	return true
}

func (m *clientHello) parseShares(list cryptobyte.String) bool {
	for !list.Empty() {
		var s keyShare
		if !s.read(&list) || m.share(s.group) != nil {
			return false
		}
		m.shares = append(m.shares, s)
	}
	return true
}

func (s *keyShare) read(from *cryptobyte.String) bool {
	var data cryptobyte.String
	ok := from.ReadUint16(&s.group) && from.ReadUint16LengthPrefixed(&data) && len(data) > 0
	s.data = data
	return ok
}

func (m *clientHello) parseIdentities(list cryptobyte.String) bool {
	for !list.Empty() {
		var identity cryptobyte.String
		var age uint32
		if !list.ReadUint16LengthPrefixed(&identity) || len(identity) == 0 || !list.ReadUint32(&age) {
			return false
		}
		m.identities = append(m.identities, identity)
	}
	return len(m.identities) > 0
}

func (m *clientHello) parseBinders(list cryptobyte.String) bool {
	for !list.Empty() {
		var binder cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&binder) || len(binder) < binderSize {
			return false
		}
		m.binders = append(m.binders, binder)
	}
	return true
}

func readUint16s(from cryptobyte.String, to *[]uint16) bool {
	for !from.Empty() {
		var v uint16
		if !from.ReadUint16(&v) {
			return false
		}
		*to = append(*to, v)
	}
	return len(*to) > 0
}

// eachExtension calls f for each extension; none may come twice.
func eachExtension(s cryptobyte.String, f func(typ uint16, body cryptobyte.String, last bool) error) error {
	seen := map[uint16]bool{}
	for !s.Empty() {
		var typ uint16
		var body cryptobyte.String
		if !s.ReadUint16(&typ) || !s.ReadUint16LengthPrefixed(&body) {
			return errDecode
		}
		if seen[typ] {
			return fail(IllegalParameter, "extension %d comes twice", typ)
		}
		seen[typ] = true
		if err := f(typ, body, s.Empty()); err != nil {
			return err
		}
	}
	return nil
}

// serverHello is a ServerHello or HelloRetryRequest.
type serverHello struct {
	retry     bool
	random    [32]byte
	sessionID []byte
	suite     uint16
	// share is the server's; a HelloRetryRequest has only the group.
	share    keyShare
	hasShare bool
	cookie   []byte
	selected uint16 // the identity
	hasPSK   bool
}

func (m *serverHello) marshal() ([]byte, error) {
	return message(typeServerHello, func(b *cryptobyte.Builder) {
		b.AddUint16(version12)
		if m.retry {
			b.AddBytes(retryRandom[:])
		} else {
			b.AddBytes(m.random[:])
		}
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.sessionID) })
		b.AddUint16(m.suite)
		b.AddUint8(0)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			addExtension(b, extSupportedVersions, func(b *cryptobyte.Builder) { b.AddUint16(version13) })
			addExtension(b, extKeyShare, func(b *cryptobyte.Builder) {
				if m.retry {
					b.AddUint16(m.share.group)
				} else {
					m.share.add(b)
				}
			})
			if m.hasPSK {
				addExtension(b, extPreSharedKey, func(b *cryptobyte.Builder) { b.AddUint16(m.selected) })
			}
		})
	})
}

// parseServerHello reads a whole message, header included.
func parseServerHello(msg []byte) (*serverHello, error) {
	m := &serverHello{}
	s := cryptobyte.String(msg)
	var version uint16
	var compression uint8
	var sessionID, extensions cryptobyte.String
	if !s.Skip(4) || !s.ReadUint16(&version) || !s.CopyBytes(m.random[:]) ||
		!s.ReadUint8LengthPrefixed(&sessionID) || len(sessionID) > 32 || !s.ReadUint16(&m.suite) || !s.ReadUint8(&compression) {
		return nil, errDecode
	}
	m.sessionID = sessionID
	m.retry = m.random == retryRandom
	if s.Empty() {
		return nil, fail(ProtocolVersion, "the server speaks an older version")
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return nil, errDecode
	}
	var chosen uint16
	err := eachExtension(extensions, func(typ uint16, body cryptobyte.String, _ bool) error {
		if typ == extSupportedVersions {
			if !body.ReadUint16(&chosen) || !body.Empty() {
				return errDecode
			}
			return nil
		}
		return m.parseExtension(typ, body)
	})
	switch {
	case err != nil:
		return nil, err
	case chosen == 0:
		return nil, fail(ProtocolVersion, "the server does not speak TLS 1.3")
	case version != version12 || chosen != version13 || compression != 0:
		return nil, fail(IllegalParameter, "the server chose what was not offered")
	}
	return m, nil
}

func (m *serverHello) parseExtension(typ uint16, body cryptobyte.String) error {
	ok := false
	switch {
	case typ == extKeyShare && m.retry:
		m.hasShare, ok = true, body.ReadUint16(&m.share.group)
	case typ == extKeyShare:
		m.hasShare, ok = true, m.share.read(&body)
	case typ == extPreSharedKey && !m.retry:
		m.hasPSK, ok = true, body.ReadUint16(&m.selected)
	case typ == extCookie && m.retry:
		var cookie cryptobyte.String
		ok = body.ReadUint16LengthPrefixed(&cookie) && len(cookie) > 0
		m.cookie = cookie
	default:
		return fail(IllegalParameter, "extension %d does not belong into a ServerHello", typ)
	}
	if !ok || !body.Empty() {
		return errDecode
	}
	return nil
}

// parseEncryptedExtensions only checks the form. What a server tells there
// (its groups, mostly) is of no use; what was not asked for is an error.
func parseEncryptedExtensions(msg []byte) error {
	s := cryptobyte.String(msg)
	var extensions cryptobyte.String
	if !s.Skip(4) || !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return errDecode
	}
	return eachExtension(extensions, func(typ uint16, _ cryptobyte.String, _ bool) error {
		if typ != extSupportedGroups {
			return fail(UnsupportedExtension, "the server answers extension %d, which was not sent", typ)
		}
		return nil
	})
}
