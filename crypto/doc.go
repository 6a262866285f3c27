// Package crypto is the cryptography of disk images. It knows bytes: files and
// nodes are the drivers' (drivers/luks, drivers/qcow2).
//
// # Volumes
//
// A [Volume] encrypts and decrypts sectors of 512 bytes in place. A cipher, a
// mode (ecb, cbc, xts, ctr) and a generator of initialization vectors (plain,
// plain64, essiv) make a suite; with a key it is a volume. Long requests are
// shared out among the processors.
//
// # LUKS
//
// A [LUKS] header (version 1: LUKS1 On-Disk Format Specification 1.2.3) names
// the suite and has eight key slots. Each of those in use holds the volume's
// key, spread over 4000 stripes (the anti-forensic splitter) and encrypted with
// a key that PBKDF2 derives from a passphrase. [OpenLUKS] finds the slot of a
// passphrase, [CreateLUKS] makes a volume, [LUKS.Amend] fills and erases slots.
// The checks of a header and their texts are the reference's, observed with
// damaged headers.
//
// Where the reference ends with an assertion, this does not: key material that
// does not fill its last sector (ciphers with keys of 192 bits, in modes other
// than XTS) is filled up with zeroes, as cryptsetup does.
//
// A header decides how long its passphrase takes, by the number of iterations;
// up to 2^32-1 are honoured, as by the reference. Memory is bounded by the
// longest key: 64 bytes times 4000 stripes.
//
// # Libraries
//
// github.com/containers/luksy has the layout of the header and of key slots. It
// decrypts a volume only as a stream from its beginning, allocates for each
// request, and keeps its splitter and ciphers to itself, so those are here:
// ciphers come from the standard library, golang.org/x/crypto and
// github.com/aead/serpent (which luksy uses too), SM3 from
// github.com/emmansun/gmsm. The tests let luksy read what this package writes,
// and the other way round.
//
// # qcow2's old encryption
//
// [OpenQCow]: AES-128-CBC with the password for a key.
package crypto
