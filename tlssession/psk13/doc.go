// Package psk13 is TLS 1.3 (RFC 8446) between two parties who share a key:
// external PSK with (EC)DHE, and nothing else.
//
// # Why
//
// Package crypto/tls knows pre-shared keys only as tickets of its own earlier
// sessions. When this was written no kept Go library offered external ones for
// TLS 1.3: forks of crypto/tls stop at resumption or at the fingerprint of a
// hello, those with "PSK" in their name stop at TLS 1.2. So here is the part
// of the protocol that such a session needs, over the primitives of the
// standard library and golang.org/x/crypto. There are no certificates, no
// session tickets, no early data and no older version, hence no downgrade.
//
// # What is spoken
//
//   - key exchange psk_dhe_ke, with X25519, P-256 and P-384
//   - AES-128-GCM and ChaCha20-Poly1305, with SHA-256: the hash of external
//     keys that have no other (RFC 8446, section 4.2.11), as GnuTLS has it
//   - HelloRetryRequest, cookies, KeyUpdate, middlebox compatibility mode
//   - tickets of a server are read and dropped
//
// A key that stands for a password can be guessed by whoever sees a handshake
// fail or succeed; keys must be random, such as psktool makes them.
//
// # Use
//
// [Client] and [Server] do the handshake and give a [Conn]. One goroutine may
// read while another writes. Deadlines work; after one that struck a write in
// the middle the connection cannot be written to any more.
package psk13
