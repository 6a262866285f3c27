package tlssession

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// party is a certificate with its key.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate, signed by itself for a nil signer.
func issue(t testing.TB, signer *party, c *x509.Certificate) *party {
	t.Helper()
	var key crypto.Signer
	var err error
	if c.PublicKeyAlgorithm == x509.RSA || signer != nil && signer.cert.PublicKeyAlgorithm == x509.RSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.SerialNumber == nil {
		c.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	c.BasicConstraintsValid = true
	parent, signing := c, key
	if signer != nil {
		parent, signing = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signing)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &party{cert, key}
}

func authority(t testing.TB, name string) *party {
	t.Helper()
	return issue(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
}

func rsaAuthority(t testing.TB) *party {
	t.Helper()
	return issue(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "rsa"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign, PublicKeyAlgorithm: x509.RSA,
	})
}

func member(t testing.TB, ca *party, name string) *party {
	t.Helper()
	return issue(t, ca, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	})
}

// folder writes PEM files. Values are parties, whose certificate is written,
// keys, or bytes.
func folder(t testing.TB, files map[string]any) *string {
	t.Helper()
	dir := t.TempDir()
	for name, v := range files {
		var data []byte
		switch v := v.(type) {
		case *party:
			data = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.cert.Raw})
		case crypto.Signer:
			der, err := x509.MarshalPKCS8PrivateKey(v)
			if err != nil {
				t.Fatal(err)
			}
			data = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		case string:
			data = []byte(v)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &dir
}

// certificates makes credentials that verify; own is nil for none.
func certificatesOf(t testing.TB, endpoint Endpoint, ca, own *party, more map[string]any) *X509 {
	t.Helper()
	files := map[string]any{"ca-cert.pem": ca}
	if own != nil {
		files[endpoint.String()+"-cert.pem"], files[endpoint.String()+"-key.pem"] = own, own.key
	}
	for name, v := range more {
		files[name] = v
	}
	x, err := LoadX509(X509Options{Dir: folder(t, files), Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	x.VerifyPeer = true
	return x
}

func revokedBy(t testing.TB, ca *party, c *party) string {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: c.cert.SerialNumber, RevocationTime: time.Now()}},
	}, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func keyFile(t testing.TB, text string) *string {
	t.Helper()
	return folder(t, map[string]any{"keys.psk": text})
}

func psk(t testing.TB, endpoint Endpoint, text string) *PSK {
	t.Helper()
	p, err := LoadPSK(keyFile(t, text), endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func connected(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// meet does a handshake and, if it goes well, talks. Errors are texts.
func meet(t testing.TB, server, client Credentials, host *string, allowed Authorizer) (serverErr, clientErr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, b := connected(t)
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	var both sync.WaitGroup
	both.Go(func() {
		s, err := server.Server(ctx, b, allowed)
		if err == nil {
			_, err = io.Copy(s, s)
			s.Close()
		}
		serverErr = text(err)
	})
	c, err := client.Client(ctx, a, host)
	if err != nil {
		both.Wait()
		return serverErr, err.Error()
	}
	talk(t, c, &err)
	both.Wait()
	return serverErr, text(err)
}

// talk writes and reads at the same time what the other side echoes.
func talk(t testing.TB, c net.Conn, err *error) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	var writer sync.WaitGroup
	writer.Go(func() { _, _ = c.Write(data) })
	got := make([]byte, len(data))
	if _, *err = io.ReadFull(c, got); *err == nil && !bytes.Equal(got, data) {
		*err = errors.New("what came is not what was sent")
	}
	if *err != nil {
		_ = c.SetDeadline(time.Now())
	}
	writer.Wait()
	c.Close()
}

func TestSessions(t *testing.T) {
	t.Parallel()
	ca, other := authority(t, "ca"), authority(t, "other")
	old := issue(t, ca, &x509.Certificate{
		Subject: pkix.Name{CommonName: "old"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	server, client := member(t, ca, "server"), member(t, ca, "client")
	between := issue(t, ca, &x509.Certificate{Subject: pkix.Name{CommonName: "between"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign})
	far := member(t, between, "far")
	farChain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: far.cert.Raw})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: between.cert.Raw}))
	onlyName := issue(t, ca, &x509.Certificate{Subject: pkix.Name{CommonName: "localhost"}})
	srv := func(own *party) *X509 { return certificatesOf(t, Server, ca, own, nil) }
	cli := func(ca, own *party) *X509 { return certificatesOf(t, Client, ca, own, nil) }
	careless := func(x *X509) *X509 {
		x.VerifyPeer = false
		return x
	}
	priority := func(x *X509, text string) *X509 {
		x.Priority = text
		return x
	}
	name := func(s string) Authorizer {
		return func(identity string) (bool, error) { return identity == s, nil }
	}
	const (
		gone      = "TLS handshake failed: The TLS connection was non-properly terminated."
		anything  = "*"
		nobody    = "Verify failed: No certificate was found."
		unknown   = "The certificate hasn't got a known issuer"
		untrusted = "The certificate is not trusted"
		key       = "qemu:00112233445566778899aabbccddeeff\n"
	)
	local := new("localhost")
	rsaCA := rsaAuthority(t)
	rsaServer, rsaClient := member(t, rsaCA, "server"), member(t, rsaCA, "client")
	for title, tt := range map[string]struct {
		server, client       Credentials
		host                 *string
		allowed              Authorizer
		serverErr, clientErr string
	}{
		"good":               {srv(server), cli(ca, client), local, nil, "", ""},
		"RSA":                {certificatesOf(t, Server, rsaCA, rsaServer, nil), cli(rsaCA, rsaClient), local, name("CN=client"), "", ""},
		"RSA, TLS 1.3":       {certificatesOf(t, Server, rsaCA, rsaServer, nil), priority(cli(rsaCA, rsaClient), "NORMAL:-VERS-TLS1.2"), local, name("CN=client"), "", ""},
		"address":            {srv(server), cli(ca, client), new("127.0.0.1"), nil, "", ""},
		"TLS 1.2":            {srv(server), priority(cli(ca, client), "NORMAL:-VERS-TLS1.3"), local, nil, "", ""},
		"chain":              {certificatesOf(t, Server, ca, far, map[string]any{"server-cert.pem": farChain}), cli(ca, client), local, nil, "", ""},
		"only a common name": {srv(onlyName), cli(ca, client), local, nil, "", ""},
		"no host":            {srv(server), cli(ca, client), nil, nil, anything, "No hostname for certificate validation"},
		"empty host":         {srv(server), cli(ca, client), new(""), nil, anything, "Certificate does not match the hostname "},
		"wrong host":         {srv(server), cli(ca, client), new("example.org"), nil, anything, "Certificate does not match the hostname example.org"},
		"careless client":    {srv(server), careless(cli(other, client)), new("example.org"), nil, "", ""},
		"unknown authority":  {srv(server), cli(other, client), local, nil, anything, unknown},
		"old server":         {srv(old), cli(ca, client), local, nil, anything, untrusted},
		"no client":          {srv(server), cli(ca, nil), local, nil, nobody, anything},
		"foreign client":     {srv(server), cli(ca, member(t, other, "x")), local, nil, nobody, anything},
		"old client":         {srv(server), cli(ca, old), local, nil, untrusted, anything},
		"careless server":    {careless(srv(server)), cli(ca, nil), local, name("none"), "", ""},
		"allowed":            {srv(server), cli(ca, client), local, name("CN=client"), "", ""},
		"denied":             {srv(server), cli(ca, client), local, name("CN=none"), "TLS x509 authz check for CN=client is denied", anything},
		"revoked": {
			certificatesOf(t, Server, ca, server, map[string]any{"ca-crl.pem": revokedBy(t, ca, client)}), cli(ca, client), local, nil,
			"The certificate has been revoked", anything,
		},
		"another revoked": {
			certificatesOf(t, Server, ca, server, map[string]any{"ca-crl.pem": revokedBy(t, ca, server)}), cli(ca, client), local, nil, "", "",
		},
		"bad priority": {
			srv(server), priority(cli(ca, client), "BOGUS"), local, nil,
			gone, "Cannot set default TLS session priority BOGUS: The request is invalid.",
		},
		"no version in common": {
			priority(srv(server), "NORMAL:-VERS-ALL:+VERS-TLS1.2"), priority(cli(ca, client), "NORMAL:-VERS-TLS1.2"), local, nil, anything, anything,
		},
		"shared key":       {psk(t, Server, key), psk(t, Client, key), nil, nil, "", ""},
		"nobody asks":      {psk(t, Server, key), psk(t, Client, key), nil, name("none"), "", ""},
		"coded name":       {psk(t, Server, "#71656d75:00112233445566778899aabbccddeeff"), psk(t, Client, key), nil, nil, "", ""},
		"wrong key":        {psk(t, Server, "qemu:aabbccdd"), psk(t, Client, key), nil, nil, "TLS handshake failed: An illegal parameter has been received.", anything},
		"unknown user":     {psk(t, Server, "x:aabbccdd"), psk(t, Client, key), nil, nil, "TLS handshake failed: An illegal parameter has been received.", anything},
		"bad key":          {psk(t, Server, "qemu:zz"), psk(t, Client, key), nil, nil, "TLS handshake failed: An illegal parameter has been received.", anything},
		"key, certificate": {psk(t, Server, key), cli(ca, client), local, nil, "TLS handshake failed: Insufficient credentials for that request.", anything},
		"certificate, key": {srv(server), psk(t, Client, key), nil, nil, anything, anything},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			serverErr, clientErr := meet(t, tt.server, tt.client, tt.host, tt.allowed)
			for _, k := range []struct{ side, got, want string }{{"server", serverErr, tt.serverErr}, {"client", clientErr, tt.clientErr}} {
				if k.got != k.want && (k.want != anything || k.got == "") {
					t.Errorf("%s: %q, want %q", k.side, k.got, k.want)
				}
			}
		})
	}
}

// TestSilence is a peer that says nothing.
func TestSilence(t *testing.T) {
	t.Parallel()
	ca := authority(t, "ca")
	for _, c := range []Credentials{certificatesOf(t, Server, ca, member(t, ca, "server"), nil), psk(t, Server, "qemu:aabbccdd")} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		a, b := connected(t)
		if _, err := c.Server(ctx, b, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if _, err := a.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is still open")
		}
	}
}

// TestTermination is a peer that vanishes, and one that says goodbye.
func TestTermination(t *testing.T) {
	t.Parallel()
	ca := authority(t, "ca")
	for _, k := range []struct{ server, client Credentials }{
		{certificatesOf(t, Server, ca, member(t, ca, "server"), nil), certificatesOf(t, Client, ca, member(t, ca, "client"), nil)},
		{psk(t, Server, "qemu:aabbccdd"), psk(t, Client, "qemu:aabbccdd")},
	} {
		for _, goodbye := range []bool{true, false} {
			a, b := connected(t)
			var both sync.WaitGroup
			both.Go(func() {
				s, err := k.server.Server(t.Context(), b, nil)
				if err != nil {
					t.Error(err)
				} else if goodbye {
					s.Close()
				}
				b.Close()
			})
			c, err := k.client.Client(t.Context(), a, new("localhost"))
			if err != nil {
				t.Fatal(err)
			}
			both.Wait()
			want := error(ErrTerminated)
			if goodbye {
				want = io.EOF
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
	}
}

func TestPriority(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "",
		"NORMAL":                        "",
		"normal:-vers-tls1.3":           "",
		"NORMAL:-VERS-ALL:+VERS-TLS1.3": "",
		"NORMAL:!VERS-TLS1.0":           "",
		"NORMAL:-VERS-ALL":              "Cannot set default TLS session priority NORMAL:-VERS-ALL: No or insufficient priorities were set.",
		"NORMAL:+AES-128-CBC":           "Cannot set default TLS session priority NORMAL:+AES-128-CBC: only versions can be chosen",
		"NORMAL:VERS-TLS1.2":            "Cannot set default TLS session priority NORMAL:VERS-TLS1.2: only versions can be chosen",
		"BOGUS":                         "Cannot set default TLS session priority BOGUS: The request is invalid.",
	} {
		got := ""
		if _, err := parsePriority(text); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestDistinguishedName(t *testing.T) {
	t.Parallel()
	ca := authority(t, "ca")
	id := func(n ...int) asn1.ObjectIdentifier { return n }
	one := func(oid asn1.ObjectIdentifier, v string) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: oid, Value: v}}
	}
	for want, name := range map[string]pkix.RDNSequence{
		`C=GB,O=A\, \"B\" \<c\>\; #x,OU=\ lead\+trail\\\ ,CN=\#cn=é,EMAIL=a@b.c`: {
			one(id(2, 5, 4, 6), "GB"), one(id(2, 5, 4, 10), `A, "B" <c>; #x`), one(id(2, 5, 4, 11), ` lead+trail\ `),
			one(id(2, 5, 4, 3), "#cn=é"), one(id(1, 2, 840, 113549, 1, 9, 1), "a@b.c"),
		},
		"DC=org,CN=a+UID=u,1.2.3.4=#0c03c3a964": {
			one(id(0, 9, 2342, 19200300, 100, 1, 25), "org"),
			{{Type: id(2, 5, 4, 3), Value: "a"}, {Type: id(0, 9, 2342, 19200300, 100, 1, 1), Value: "u"}},
			one(id(1, 2, 3, 4), "éd"),
		},
		"": {},
	} {
		raw, err := asn1.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		c := issue(t, ca, &x509.Certificate{RawSubject: raw})
		if got := DistinguishedName(c.cert); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
