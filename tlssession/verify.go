package tlssession

import (
	"bytes"
	"crypto/x509"
	"net"
	"slices"
	"strings"
	"time"
)

// verify tells why a chain of certificates, its owner's first, does not lead
// to one of the authorities, in GnuTLS's words. "" says that it does. Whatever
// stands among the authorities is trusted, the root of all or not.
func verify(chain, authorities []*x509.Certificate, revoked []*x509.RevocationList, now time.Time) string {
	const (
		unknown   = "The certificate hasn't got a known issuer"
		untrusted = "The certificate is not trusted"
		weak      = "The certificate uses an insecure algorithm"
		gone      = "The certificate has been revoked"
	)
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	for _, ca := range authorities {
		roots.AddCert(ca)
	}
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: others, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	switch {
	case err == nil && isRevoked(paths[0], revoked):
		return gone
	case err == nil:
		return ""
	case !issued(chain, authorities):
		return unknown
	case slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return isWeak(c.SignatureAlgorithm) }):
		return weak
	}
	return untrusted
}

// issued tells whether the names of issuers lead from a certificate to an
// authority.
func issued(chain, authorities []*x509.Certificate) bool {
	for i, c := range chain {
		if slices.ContainsFunc(authorities, func(ca *x509.Certificate) bool { return mayIssue(ca, c) }) {
			return true
		}
		if i+1 == len(chain) || !mayIssue(chain[i+1], c) {
			break
		}
	}
	return false
}

// mayIssue compares names, and keys as far as the certificates identify them.
func mayIssue(ca, c *x509.Certificate) bool {
	sameKey := len(c.AuthorityKeyId) == 0 || len(ca.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, ca.SubjectKeyId)
	return sameKey && bytes.Equal(ca.RawSubject, c.RawIssuer)
}

func isWeak(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// isRevoked looks for the certificates of a path on the lists of their
// issuers. The lists come from the same folder as the authorities and are
// believed as they are.
func isRevoked(path []*x509.Certificate, lists []*x509.RevocationList) bool {
	for _, c := range path {
		for _, list := range lists {
			if !bytes.Equal(list.RawIssuer, c.RawIssuer) {
				continue
			}
			if slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
				return e.SerialNumber.Cmp(c.SerialNumber) == 0
			}) {
				return true
			}
		}
	}
	return false
}

// names tells whether a certificate is one of a host. One without alternative
// names has only its common name for that, which counts as GnuTLS lets it.
func names(c *x509.Certificate, host string) bool {
	if host == "" {
		return false
	}
	if len(c.DNSNames)+len(c.IPAddresses) > 0 {
		return c.VerifyHostname(host) == nil
	}
	name := c.Subject.CommonName
	if net.ParseIP(host) != nil || net.ParseIP(name) != nil {
		return false
	}
	named := &x509.Certificate{DNSNames: []string{name}, Extensions: c.Extensions}
	return strings.EqualFold(name, host) || named.VerifyHostname(host) == nil
}
