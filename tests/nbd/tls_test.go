package nbd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/control"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key, a.pem = a.issue(template, nil)
	return a
}

// issue signs a certificate, with the authority's key or its own.
func (a *authority) issue(template *x509.Certificate, write func(cert, key []byte)) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if write != nil {
		write(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	}
	return cert, key, text
}

// folder makes a folder as credentials objects want it, with a certificate for
// one side.
func (a *authority) folder(side, name string) string {
	a.t.Helper()
	dir := a.t.TempDir()
	put := func(file string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	usage := x509.ExtKeyUsageClientAuth
	if side == "server" {
		usage = x509.ExtKeyUsageServerAuth
	}
	put("ca-cert.pem", a.pem)
	a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, func(cert, key []byte) {
		put(side+"-cert.pem", cert)
		put(side+"-key.pem", key)
	})
	return dir
}

// secretServer is a daemon with a disk behind TLS and returns its TCP port.
func secretServer(t *testing.T, creds string, authz ...string) (i *instance, port string) {
	t.Helper()
	i = &instance{tb: t, dir: shortDir(t)}
	i.Instance = control.New(control.Config{Complain: i.complain})
	i.Start()
	t.Cleanup(i.Close)
	i.do("object-add", "%s", creds)
	start := `"tls-creds": "t"`
	for _, object := range authz {
		i.do("object-add", "%s", object)
		start += `, "tls-authz": "a"`
	}
	port = freePort(t)
	i.do("nbd-server-start", `{"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": %q}}, %s}`, port, start)
	i.do("blockdev-add", `{"driver": "null-co", "node-name": "n0", "size": 1048576, "read-zeroes": true}`)
	i.do("block-export-add", `{"type": "nbd", "id": "e0", "node-name": "n0", "name": "x", "writable": true}`)
	return i, port
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// enter opens the export from another daemon, whose client has the given
// credentials; more are members for blockdev-add.
func enter(t *testing.T, port, creds, more string) error {
	t.Helper()
	c := &instance{tb: t, dir: shortDir(t)}
	c.Instance = control.New(control.Config{})
	c.Start()
	defer c.Close()
	if _, err := c.try("object-add", "%s", creds); err != nil {
		return err
	}
	_, err := c.try("blockdev-add", `{"driver": "nbd", "node-name": "n", "export": "x",
		"server": {"type": "inet", "host": "127.0.0.1", "port": %q}, "tls-creds": "c"%s}`, port, more)
	return err
}

func x509Object(id, endpoint, dir string) string {
	return fmt.Sprintf(`{"qom-type": "tls-creds-x509", "id": %q, "endpoint": %q, "dir": %q, "verify-peer": true}`, id, endpoint, dir)
}

// TestCertificates: who has the right certificate gets in, with our driver and
// QEMU's, and nobody else.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "authority"), newAuthority(t, "somebody else")
	server, client := ca.folder("server", "localhost"), ca.folder("client", "friend")
	_, port := secretServer(t, x509Object("t", "server", server),
		`{"qom-type": "authz-list", "id": "a", "policy": "deny", "rules": [{"match": "CN=fri*", "policy": "allow", "format": "glob"}]}`)
	for _, c := range []struct{ name, folder, more, want string }{
		{"good", client, "", ""},
		{"host name", client, `, "tls-hostname": "localhost"`, ""},
		{"wrong host name", client, `, "tls-hostname": "elsewhere"`, "Certificate does not match the hostname elsewhere"},
		{"not allowed", ca.folder("client", "stranger"), "", ""},
		{"unknown authority", other.folder("client", "friend"), "", "The certificate hasn't got a known issuer"},
		{"no certificate", onlyCA(t, ca), "", ""},
	} {
		err := enter(t, port, x509Object("c", "client", c.folder), c.more)
		refused := c.name != "good" && c.name != "host name"
		switch {
		case (err != nil) != refused:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := enter(t, port, x509Object("c", "client", client), ""); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	plainGetsNowhere(t, port)
	creds := "tls-creds-x509,id=c,endpoint=client,dir="
	image := "driver=nbd,host=127.0.0.1,port=" + port + ",export=x,tls-creds=c"
	if out := must(t, t.TempDir(), "qemu-img", "info", "--object", creds+client, "--image-opts", image); !strings.Contains(out, "1 MiB (1048576 bytes)") {
		t.Errorf("qemu-img: %s", out)
	}
	if out, err := tool(t, t.TempDir(), "qemu-img", "info", "--object", creds+other.folder("client", "friend"), "--image-opts", image); err == nil {
		t.Errorf("qemu-img with a certificate of somebody else: %s", out)
	}
	uri := "nbds://127.0.0.1:" + port + "/x?tls-certificates=" + client
	if out := must(t, t.TempDir(), "nbdinfo", "--size", uri); strings.TrimSpace(out) != "1048576" {
		t.Errorf("nbdinfo: %s", out)
	}
}

// onlyCA is the folder of a client that has no certificate.
func onlyCA(t *testing.T, a *authority) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ca-cert.pem"), a.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// plainGetsNowhere talks to the server without TLS.
func plainGetsNowhere(t *testing.T, port string) {
	t.Helper()
	out, err := tool(t, t.TempDir(), "nbdinfo", "nbd://127.0.0.1:"+port+"/x")
	if err == nil || !strings.Contains(out, "TLS") {
		t.Errorf("a plain client: %v\n%s", err, out)
	}
	if out, err := tool(t, t.TempDir(), "qemu-img", "info", "nbd://127.0.0.1:"+port+"/x"); err == nil || !strings.Contains(out, "Option 0x7 not permitted before TLS") &&
		!strings.Contains(out, "TLS negotiation required before option") {
		t.Errorf("a plain client of QEMU: %v\n%s", err, out)
	}
}

// TestSharedKeys: the same with keys.
func TestSharedKeys(t *testing.T) {
	t.Parallel()
	keys := func(lines string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "keys.psk"), []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	const key = "00112233445566778899aabbccddeeff"
	both := keys("alice:" + key + "\nqemu:ffeeddccbbaa99887766554433221100\n")
	object := func(id, endpoint, dir, more string) string {
		return fmt.Sprintf(`{"qom-type": "tls-creds-psk", "id": %q, "endpoint": %q, "dir": %q%s}`, id, endpoint, dir, more)
	}
	_, port := secretServer(t, object("t", "server", both, ""))
	alice := `, "username": "alice"`
	for _, c := range []struct {
		name, creds string
		good        bool
	}{
		{"alice", object("c", "client", both, alice), true},
		{"qemu", object("c", "client", both, ""), true},
		{"wrong key", object("c", "client", keys("alice:ff"+key[2:]+"\n"), alice), false},
		{"unknown user", object("c", "client", keys("mallory:"+key+"\n"), `, "username": "mallory"`), false},
	} {
		if err := enter(t, port, c.creds, ""); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	plainGetsNowhere(t, port)
	image := "driver=nbd,host=127.0.0.1,port=" + port + ",export=x,tls-creds=c"
	must(t, t.TempDir(), "qemu-io", "--object", "tls-creds-psk,id=c,endpoint=client,username=alice,dir="+both,
		"-c", "write 0 1M", "-c", "read -P 0 0 1M", "--image-opts", image)
	uri := "nbds://alice@127.0.0.1:" + port + "/x?tls-psk-file=" + filepath.Join(both, "keys.psk")
	must(t, t.TempDir(), "nbdcopy", uri, "null:")
}
