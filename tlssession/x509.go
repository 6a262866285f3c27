package tlssession

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
)

// X509 are certificates.
type X509 struct {
	// VerifyPeer demands a certificate of the other side that is in order.
	VerifyPeer bool
	// Priority is GnuTLS's priority string.
	Priority string

	authorities []*x509.Certificate
	own         *tls.Certificate // nil: none, for a client
	revoked     []*x509.RevocationList
}

// X509Options say which certificates.
type X509Options struct {
	Dir      *string
	Endpoint Endpoint
	// SanityCheck looks for mistakes in the certificates.
	SanityCheck bool
	// PasswordID names the secret that decrypts the key; nil: it is not
	// encrypted.
	PasswordID *string
	// Secret finds a secret.
	Secret func(id string) ([]byte, error)
}

// LoadX509 reads ca-cert.pem and, for the endpoint server,
//
//	server-cert.pem, server-key.pem
//	ca-crl.pem       (optional) revoked certificates of clients
//	dh-params.pem    (optional) of no use
//
// or, for a client, client-cert.pem and client-key.pem, unless one of the two
// is missing. Files and checks are in the reference's order.
func LoadX509(o X509Options) (*X509, error) {
	if o.Dir == nil {
		return nil, errNoDir()
	}
	caFile := *o.Dir + "/ca-cert.pem"
	if err := access(caFile); err != nil {
		return nil, err
	}
	certFile, keyFile, err := o.pairFiles()
	if err != nil {
		return nil, err
	}
	if o.SanityCheck {
		if err := checkSanity(o.Endpoint, certFile, caFile); err != nil {
			return nil, err
		}
	}
	x := &X509{}
	if x.authorities, err = loadAuthorities(caFile); err != nil {
		return nil, err
	}
	if certFile != "" && keyFile != "" {
		if err := x.loadOwn(o, certFile, keyFile); err != nil {
			return nil, err
		}
	}
	if o.Endpoint == Server {
		return x, x.loadServer(*o.Dir)
	}
	return x, nil
}

// pairFiles names the files of the own certificate and its key, "" for one
// that may be missing and is.
func (o *X509Options) pairFiles() (certFile, keyFile string, err error) {
	certFile = *o.Dir + "/" + o.Endpoint.String() + "-cert.pem"
	keyFile = *o.Dir + "/" + o.Endpoint.String() + "-key.pem"
	for _, file := range []*string{&certFile, &keyFile} {
		err := access(*file)
		if err == nil {
			continue
		}
		if o.Endpoint == Server || !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		*file = ""
	}
	return certFile, keyFile, nil
}

func (x *X509) loadOwn(o X509Options, certFile, keyFile string) error {
	var password *string
	if o.PasswordID != nil {
		secret, err := o.Secret(*o.PasswordID)
		if err != nil {
			return err
		}
		text, err := passwordText(*o.PasswordID, secret)
		if err != nil {
			return err
		}
		password = &text
	}
	chain, key, err := loadPair(certFile, keyFile, password)
	if err != nil {
		return err
	}
	x.own = &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		x.own.Certificate = append(x.own.Certificate, c.Raw)
	}
	return nil
}

// loadServer reads what only servers have.
func (x *X509) loadServer(dir string) (err error) {
	if file := dir + "/ca-crl.pem"; exists(file) {
		if x.revoked, err = loadRevoked(file); err != nil {
			return err
		}
	}
	if file := dir + "/dh-params.pem"; exists(file) {
		return checkDH(file)
	}
	return nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// config is what both sides have in common. Who the other one is is judged
// after the handshake, by judge.
func (x *X509) config() (*tls.Config, error) {
	v, err := parsePriority(x.Priority)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: v.min, MaxVersion: v.max, InsecureSkipVerify: true, SessionTicketsDisabled: true}
	if x.own != nil {
		c.Certificates = []tls.Certificate{*x.own}
	}
	return c, nil
}

// Server implements Credentials.
func (x *X509) Server(ctx context.Context, conn net.Conn, allowed Authorizer) (net.Conn, error) {
	return x.session(ctx, conn, func(conn net.Conn, config *tls.Config) *tls.Conn {
		if x.VerifyPeer {
			config.ClientAuth = tls.RequestClientCert
			config.ClientCAs = x509.NewCertPool()
			for _, ca := range x.authorities {
				config.ClientCAs.AddCert(ca)
			}
			config.GetConfigForClient = x.preferTLS12(config)
		}
		return tls.Server(conn, config)
	}, func(peer *x509.Certificate) error {
		if allowed == nil {
			return nil
		}
		name := DistinguishedName(peer)
		ok, err := allowed(name)
		if err == nil && !ok {
			err = qerr.New("TLS x509 authz check for %s is denied", name)
		}
		return err
	})
}

// preferTLS12 makes a server of RSA's certificates choose TLS 1.2 where it can.
// In TLS 1.3 crypto/tls names PKCS #1 signatures, which these certificates have,
// only in an extension of its own, and GnuTLS 3.7 does not look there:
// it would find that none of its certificates will do and send none.
func (x *X509) preferTLS12(config *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	if config.MinVersion > tls.VersionTLS12 || !slices.ContainsFunc(x.authorities, func(ca *x509.Certificate) bool {
		return ca.PublicKeyAlgorithm == x509.RSA
	}) {
		return nil
	}
	older := config.Clone()
	older.MaxVersion = tls.VersionTLS12
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedVersions, tls.VersionTLS12) {
			return older, nil
		}
		return nil, nil
	}
}

// Client implements Credentials.
func (x *X509) Client(ctx context.Context, conn net.Conn, host *string) (net.Conn, error) {
	return x.session(ctx, conn, tls.Client, func(peer *x509.Certificate) error {
		switch {
		case host == nil:
			return qerr.New("No hostname for certificate validation")
		case !names(peer, *host):
			return qerr.New("Certificate does not match the hostname %s", *host)
		}
		return nil
	})
}

// session does a handshake and judges the other side. further are the checks
// of a certificate that is in order.
func (x *X509) session(ctx context.Context, conn net.Conn, start func(net.Conn, *tls.Config) *tls.Conn, further func(*x509.Certificate) error) (net.Conn, error) {
	config, err := x.config()
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := start(honest{conn}, config)
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, handshakeError(ctx, err)
	}
	if x.VerifyPeer {
		if err := x.judge(c.ConnectionState().PeerCertificates, further); err != nil {
			conn.Close() // without a word, as the reference does
			return nil, err
		}
	}
	return c, nil
}

func (x *X509) judge(chain []*x509.Certificate, further func(*x509.Certificate) error) error {
	if len(chain) == 0 {
		return qerr.New("Verify failed: No certificate was found.")
	}
	if reason := verify(chain, x.authorities, x.revoked, time.Now()); reason != "" {
		return qerr.New("%s", reason)
	}
	return further(chain[0])
}
