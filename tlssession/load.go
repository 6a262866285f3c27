package tlssession

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/youmark/pkcs8"

	"github.com/qmpblock/qmpblock/qerr"
)

// gnutlsError is what GnuTLS says of a file.
type gnutlsError string

const (
	errNoHeader gnutlsError = "Base64 unexpected header error."
	errBase64   gnutlsError = "Base64 decoding error."
	errTag      gnutlsError = "ASN1 parser: Error in TAG."
	errDER      gnutlsError = "ASN1 parser: Error in DER parsing."
	errNoData   gnutlsError = "The requested data were not available."
	errDecrypt  gnutlsError = "Decryption has failed."
	errMismatch gnutlsError = "The certificate and the given key do not match."
	errRead     gnutlsError = "Error while reading file."
)

// Error implements error.
func (e gnutlsError) Error() string { return string(e) }

// errNone says that a file has no block of the kinds that were looked for, and
// becomes one of those above: GnuTLS does not say the same everywhere.
var errNone = errors.New("there is none")

// orNone replaces errNone.
func orNone(err, none error) error {
	if errors.Is(err, errNone) {
		return none
	}
	return err
}

// nextPEM finds the next block of one of the kinds, and what follows it.
func nextPEM(data []byte, kinds ...string) (block *pem.Block, rest []byte, err error) {
	start, end := -1, 0
	for _, kind := range kinds {
		if i := bytes.Index(data, []byte("-----BEGIN "+kind+"-----")); i >= 0 && (start < 0 || i < start) {
			start = i
		}
	}
	if start < 0 {
		return nil, nil, errNone
	}
	data = data[start:]
	if end = bytes.Index(data, []byte("-----END ")); end < 0 {
		return nil, nil, errNoHeader
	}
	if line := bytes.IndexByte(data[end:], '\n'); line < 0 {
		end = len(data)
	} else {
		end += line + 1
	}
	if block, _ = pem.Decode(data[:end]); block == nil {
		return nil, nil, errNoHeader
	}
	return block, data[end:], nil
}

// asn1Error is what GnuTLS says of bytes that cannot be parsed.
func asn1Error(der []byte) error {
	const sequence = 0x30
	if len(der) == 0 || der[0] != sequence {
		return errTag
	}
	return errDER
}

// parseCertificates reads up to limit certificates, all for 0.
func parseCertificates(data []byte, limit int) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for limit == 0 || len(list) < limit {
		block, rest, err := nextPEM(data, "CERTIFICATE", "X509 CERTIFICATE")
		if errors.Is(err, errNone) && list != nil {
			break
		}
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, asn1Error(block.Bytes)
		}
		list, data = append(list, cert), rest
	}
	return list, nil
}

// loadAuthorities reads all certificates of a file; none are no mistake.
func loadAuthorities(file string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		err = errRead
	} else {
		var list []*x509.Certificate
		if list, err = parseCertificates(data, 0); err == nil || errors.Is(err, errNone) {
			return list, nil
		}
	}
	return nil, qerr.New("Cannot load CA certificate '%s': %s", file, err)
}

// loadPair reads a key and then its certificate, which others may follow.
func loadPair(certFile, keyFile string, password *string) (chain []*x509.Certificate, key crypto.Signer, err error) {
	if key, err = loadKey(keyFile, password); err == nil {
		if chain, err = loadChain(certFile); err == nil && !matches(chain[0], key) {
			err = errMismatch
		}
	}
	if err != nil {
		return nil, nil, qerr.New("Cannot load certificate '%s' & key '%s': %s", certFile, keyFile, err)
	}
	return chain, key, nil
}

func loadChain(file string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, errRead
	}
	list, err := parseCertificates(data, 0)
	return list, orNone(err, errBase64)
}

func matches(cert *x509.Certificate, key crypto.Signer) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

func loadKey(file string, password *string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, errRead
	}
	block, _, err := nextPEM(data, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
	switch {
	case errors.Is(err, errNone):
		return nil, errNoData
	case err != nil:
		return nil, errBase64
	}
	key, err := parseKey(block, password)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errNoData
	}
	return signer, nil
}

func parseKey(block *pem.Block, password *string) (any, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" {
		if password == nil {
			return nil, errDecrypt
		}
		key, _, err := pkcs8.ParsePrivateKey(block.Bytes, []byte(*password))
		if err != nil {
			return nil, errDecrypt
		}
		return key, nil
	}
	der := block.Bytes
	//lint:ignore SA1019 QEMU's users have such keys, and nothing else reads them.
	if x509.IsEncryptedPEMBlock(block) {
		if password == nil {
			return nil, errDecrypt
		}
		var err error
		//lint:ignore SA1019 as above
		if der, err = x509.DecryptPEMBlock(block, []byte(*password)); err != nil {
			return nil, errDecrypt
		}
	}
	for _, parse := range []func([]byte) (any, error){
		x509.ParsePKCS8PrivateKey,
		func(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) },
		func(der []byte) (any, error) { return x509.ParseECPrivateKey(der) },
	} {
		if key, err := parse(der); err == nil {
			return key, nil
		}
	}
	return nil, asn1Error(der)
}

func loadRevoked(file string) ([]*x509.RevocationList, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, qerr.New("Cannot load CRL '%s': %s", file, errRead)
	}
	var lists []*x509.RevocationList
	for {
		block, rest, err := nextPEM(data, "X509 CRL")
		if errors.Is(err, errNone) && lists != nil {
			return lists, nil
		}
		if err == nil {
			var list *x509.RevocationList
			if list, err = x509.ParseRevocationList(block.Bytes); err != nil {
				err = asn1Error(block.Bytes)
			}
			lists, data = append(lists, list), rest
		}
		if err != nil {
			return nil, qerr.New("Cannot load CRL '%s': %s", file, orNone(err, errBase64))
		}
	}
}

// checkDH looks at a file of Diffie-Hellman parameters, of which elliptic
// curves have no need.
func checkDH(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return qerr.New("Unable to load DH parameters from %s: Error reading file “%s”: %s", file, file, strerror(err))
	}
	if _, _, err := nextPEM(data, "DH PARAMETERS"); err != nil {
		return qerr.New("Unable to load DH parameters from %s: %s", file, orNone(err, errNoHeader))
	}
	return nil
}

// passwordText is what the key is decrypted with.
func passwordText(id string, secret []byte) (string, error) {
	if !utf8.Valid(secret) || strings.Contains(string(secret), "\x00") {
		return "", qerr.New("Data from secret %s is not valid UTF-8", id)
	}
	return string(secret), nil
}
