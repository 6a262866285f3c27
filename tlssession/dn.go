package tlssession

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"strings"
)

// DistinguishedName is the name of a certificate's owner in the spelling that
// authorization objects compare with: RFC 4514, in the order in which the
// certificate has it and with GnuTLS's names of attributes. "" is no name.
func DistinguishedName(c *x509.Certificate) string {
	// Like pkix.RDNSequence, but the bytes of values are kept.
	var name []attributesSET
	if rest, err := asn1.Unmarshal(c.RawSubject, &name); err != nil || len(rest) > 0 {
		return ""
	}
	var text strings.Builder
	for i, set := range name {
		if i > 0 {
			text.WriteByte(',')
		}
		for k, a := range set {
			if k > 0 {
				text.WriteByte('+')
			}
			text.WriteString(a.String())
		}
	}
	return text.String()
}

// The name of the type tells package asn1 that it is a SET.
type attributesSET []attribute

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

func (a attribute) String() string {
	name, known := attributeNames()[a.Type.String()]
	if !known {
		return a.Type.String() + "=#" + hex.EncodeToString(a.Value.FullBytes)
	}
	var value string
	if _, err := asn1.Unmarshal(a.Value.FullBytes, &value); err != nil {
		return name + "=#" + hex.EncodeToString(a.Value.FullBytes)
	}
	return name + "=" + escapeValue(value)
}

// attributeNames are those of the attributes that GnuTLS knows (observed).
func attributeNames() map[string]string {
	return map[string]string{
		"2.5.4.3":                    "CN",
		"2.5.4.4":                    "surName",
		"2.5.4.5":                    "serialNumber",
		"2.5.4.6":                    "C",
		"2.5.4.7":                    "L",
		"2.5.4.8":                    "ST",
		"2.5.4.9":                    "street",
		"2.5.4.10":                   "O",
		"2.5.4.11":                   "OU",
		"2.5.4.12":                   "title",
		"2.5.4.15":                   "businessCategory",
		"2.5.4.17":                   "postalCode",
		"2.5.4.42":                   "givenName",
		"2.5.4.43":                   "initials",
		"2.5.4.44":                   "generationQualifier",
		"2.5.4.46":                   "dnQualifier",
		"2.5.4.65":                   "pseudonym",
		"0.9.2342.19200300.100.1.1":  "UID",
		"0.9.2342.19200300.100.1.25": "DC",
		"1.2.840.113549.1.9.1":       "EMAIL",
		"1.3.6.1.4.1.311.60.2.1.3":   "jurisdictionOfIncorporationCountryName",
	}
}

// escapeValue is RFC 4514, section 2.4.
func escapeValue(value string) string {
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		special := strings.IndexByte(`,+"\<>;`, c) >= 0
		first, last := i == 0, i == len(value)-1
		if special || first && c == '#' || (first || last) && c == ' ' {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}
