// Package tlssession encrypts connections: TLS as an NBD server and client use
// it, with certificates or with a shared key.
//
// # Credentials
//
// [Credentials] are what one side proves itself with, and what it demands of
// the other. [LoadX509] reads certificates from a folder, [LoadPSK] keys; the
// files have the names, and the mistakes in them get the words, that QEMU's
// credential objects have. QEMU's words are partly those of GnuTLS, so the
// texts of that library appear here although it is not used.
//
// Sessions with certificates are made by package crypto/tls: TLS 1.2 and 1.3.
// Sessions with a shared key are TLS 1.3 alone, by package psk13, which says
// why it exists. A peer that knows pre-shared keys only in TLS 1.2 is refused.
//
// # Verification
//
// As in QEMU the handshake comes first and the judgement after: a peer that is
// turned away sees the connection close. A server that verifies demands a
// certificate, of its own authorities and on none of its revocation lists, and
// may ask whether the name in it is allowed ([Authorizer]). A client that
// verifies compares the name of the host too. What a certificate is for
// (extended key usage) is checked by nobody but the sanity check of one's own.
package tlssession
