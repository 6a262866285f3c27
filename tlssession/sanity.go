package tlssession

import (
	"crypto/x509"
	"encoding/asn1"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
)

// maxAuthorities is how many certificates of ca-cert.pem the sanity check
// looks at.
const maxAuthorities = 16

func strerror(err error) string { return qerr.Strerror(qerr.ErrnoOf(err, syscall.EIO)) }

// checkSanity looks for mistakes in one's own certificate, "" if there is none,
// and those of the authorities, before a peer finds them. The order of the
// checks is the reference's.
func checkSanity(endpoint Endpoint, certFile, caFile string) error {
	var own *x509.Certificate
	if certFile != "" {
		list, err := readCertificates(certFile, 1)
		if err != nil {
			return err
		}
		if list.err != nil {
			return qerr.New("Unable to import %s certificate %s: %s", endpoint, certFile, orNone(list.err, errNoHeader))
		}
		own = list.certs[0]
	}
	authorities, err := readCertificates(caFile, maxAuthorities)
	if err != nil {
		return err
	}
	if authorities.err != nil {
		return qerr.New("Unable to import CA certificate list %s", caFile)
	}
	now := time.Now()
	if own != nil {
		if err := checkOwn(own, certFile, endpoint, now); err != nil {
			return err
		}
	}
	for _, ca := range authorities.certs {
		if err := checkAuthority(ca, caFile, now); err != nil {
			return err
		}
	}
	if own == nil {
		return nil
	}
	if reason := verify([]*x509.Certificate{own}, authorities.certs, nil, now); reason != "" {
		return qerr.New("Our own certificate %s failed validation against %s: %s", certFile, caFile, reason)
	}
	return nil
}

// certificates are those of a file, or why they cannot be imported.
type certificates struct {
	certs []*x509.Certificate
	err   error
}

func readCertificates(file string, limit int) (certificates, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return certificates{}, qerr.New("Cannot load CA cert list %s: Error reading file “%s”: %s", file, file, strerror(err))
	}
	certs, err := parseCertificates(data, limit)
	return certificates{certs, err}, nil
}

func checkOwn(c *x509.Certificate, file string, endpoint Endpoint, now time.Time) error {
	if err := checkTimes(c, file, endpoint.String(), now); err != nil {
		return err
	}
	if c.BasicConstraintsValid && c.IsCA {
		return qerr.New("The certificate %s basic constraints show a CA, but we need one for a %s", file, endpoint)
	}
	usage := extension(c, 15)
	if usage != nil && usage.Critical {
		if c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
			return qerr.New("Certificate %s usage does not permit digital signature", file)
		}
		if c.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
			return qerr.New("Certificate %s usage does not permit key encipherment", file)
		}
	}
	purpose := extension(c, 37)
	needed := x509.ExtKeyUsageClientAuth
	if endpoint == Server {
		needed = x509.ExtKeyUsageServerAuth
	}
	if purpose != nil && purpose.Critical &&
		!slices.Contains(c.ExtKeyUsage, needed) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return qerr.New("Certificate %s purpose does not allow use with a TLS %s", file, endpoint)
	}
	return nil
}

func checkAuthority(c *x509.Certificate, file string, now time.Time) error {
	if err := checkTimes(c, file, "CA", now); err != nil {
		return err
	}
	if !c.BasicConstraintsValid {
		return qerr.New("The certificate %s is missing basic constraints for a CA", file)
	}
	if !c.IsCA {
		return qerr.New("The certificate %s basic constraints do not show a CA", file)
	}
	if usage := extension(c, 15); usage != nil && usage.Critical && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return qerr.New("Certificate %s usage does not permit certificate signing", file)
	}
	return nil
}

func checkTimes(c *x509.Certificate, file, kind string, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return qerr.New("The %s certificate %s has expired", kind, file)
	case now.Before(c.NotBefore):
		return qerr.New("The %s certificate %s is not yet active", kind, file)
	}
	return nil
}

// certificateExtension is an extension as far as it matters here.
type certificateExtension struct{ Critical bool }

// extension finds an extension by the end of its object identifier, 2.5.29.n.
func extension(c *x509.Certificate, n int) *certificateExtension {
	for _, e := range c.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, n}) {
			return &certificateExtension{e.Critical}
		}
	}
	return nil
}
