package tlssession

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// What follows is as much of NBD as it takes to begin a session with programs
// that speak it.
const (
	optionMagic = 0x49484156454F5054
	replyMagic  = 0x3e889045565a9
	optAbort    = 2
	optStartTLS = 5
	optGo       = 7
	repAck      = 1
	repInfo     = 3
	repUnknown  = 1<<31 + 1
	diskSize    = 1 << 20
)

func big64(v ...uint64) []byte {
	var out []byte
	for _, v := range v {
		out = binary.BigEndian.AppendUint64(out, v)
	}
	return out
}

// sendOption sends an option without data and wants it to be acknowledged.
func sendOption(conn net.Conn, option uint32) error {
	msg := binary.BigEndian.AppendUint32(big64(optionMagic), option)
	if _, err := conn.Write(append(msg, 0, 0, 0, 0)); err != nil {
		return err
	}
	reply := make([]byte, 20)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(reply) != replyMagic || binary.BigEndian.Uint32(reply[12:]) != repAck {
		return errors.New("the option is refused")
	}
	return nil
}

// visit begins a session with an NBD server and ends it.
func visit(t *testing.T, socket string, c Credentials, host *string) error {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 18)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte{0, 0, 0, 3}); err != nil {
		t.Fatal(err)
	}
	if err := sendOption(conn, optStartTLS); err != nil {
		t.Fatal(err)
	}
	session, err := c.Client(t.Context(), conn, host)
	if err != nil {
		return err
	}
	defer session.Close()
	return sendOption(session, optAbort)
}

// serve is an NBD server of zeroes for one client.
func serve(t *testing.T, conn net.Conn, c Credentials) error {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(append(big64(0x4e42444d41474943, optionMagic), 0, 3)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		return err
	}
	for encrypted := false; ; {
		header := make([]byte, 16)
		if _, err := io.ReadFull(conn, header); err != nil {
			return err
		}
		option := binary.BigEndian.Uint32(header[8:])
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(header[12:]))); err != nil {
			return err
		}
		reply := func(typ uint32, data []byte) error {
			msg := binary.BigEndian.AppendUint32(big64(replyMagic), option)
			msg = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(msg, typ), uint32(len(data)))
			_, err := conn.Write(append(msg, data...))
			return err
		}
		switch {
		case option == optStartTLS && !encrypted:
			if err := reply(repAck, nil); err != nil {
				return err
			}
			session, err := c.Server(t.Context(), conn, nil)
			if err != nil {
				return err
			}
			conn, encrypted = session, true
		case option == optGo && encrypted:
			info := binary.BigEndian.AppendUint16(append([]byte{0, 0}, big64(diskSize)...), 1)
			if err := errors.Join(reply(repInfo, info), reply(repAck, nil)); err != nil {
				return err
			}
			return transmit(conn)
		case option == optAbort:
			return reply(repAck, nil)
		default:
			if err := reply(repUnknown, nil); err != nil {
				return err
			}
		}
	}
}

// transmit answers reads until the client leaves.
func transmit(conn net.Conn) error {
	for {
		request := make([]byte, 28)
		if _, err := io.ReadFull(conn, request); err != nil {
			return err
		}
		if binary.BigEndian.Uint16(request[6:]) != 0 {
			return nil
		}
		reply := append([]byte{0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0}, request[8:16]...)
		if _, err := conn.Write(append(reply, make([]byte, binary.BigEndian.Uint32(request[24:]))...)); err != nil {
			return err
		}
	}
}

func program(t *testing.T, name string) string {
	t.Helper()
	if strings.HasPrefix(name, "qemu-") {
		return filepath.Join(filepath.Dir(daemon.Reference(t).Storage[0]), name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		daemon.Missing(t, name+" is not installed")
	}
	return path
}

// socketPath is a name for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "s")
}

const sharedKey = "00112233445566778899aabbccddeeff"

// TestServers visits NBD servers of others.
func TestServers(t *testing.T) {
	t.Parallel()
	ca := authority(t, "ca")
	own, client := member(t, ca, "server"), member(t, ca, "client")
	certs := *folder(t, map[string]any{"ca-cert.pem": ca, "server-cert.pem": own, "server-key.pem": own.key})
	keys := *keyFile(t, "alice:ffee\nqemu:"+sharedKey+"\n")
	byKey, byWrongKey := psk(t, Client, "qemu:"+sharedKey), psk(t, Client, "qemu:aabbccdd")
	byCert := certificatesOf(t, Client, ca, client, nil)
	for title, tt := range map[string]struct {
		command   []string // %s is the socket
		right     Credentials
		wrong     Credentials
		wrongText string
	}{
		"nbdkit, key": {
			[]string{"nbdkit", "-f", "-U", "%s", "--tls=require", "--tls-psk=" + keys + "/keys.psk", "null", "1M"}, byKey, byWrongKey, "",
		},
		"nbdkit, certificates": {
			[]string{"nbdkit", "-f", "-U", "%s", "--tls=require", "--tls-certificates=" + certs, "--tls-verify-peer", "null", "1M"},
			byCert, certificatesOf(t, Client, authority(t, "other"), client, nil), "The certificate hasn't got a known issuer",
		},
		"qemu-nbd, key": {
			[]string{"qemu-nbd", "-k", "%s", "--object", "tls-creds-psk,id=t,endpoint=server,dir=" + keys, "--tls-creds", "t",
				"--image-opts", "driver=null-co,size=1048576"}, byKey, byWrongKey, "TLS handshake failed: The TLS connection was non-properly terminated.",
		},
		"qemu-nbd, certificates": {
			[]string{"qemu-nbd", "-k", "%s", "--object", "tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir=" + certs, "--tls-creds", "t",
				"--image-opts", "driver=null-co,size=1048576"}, byCert, certificatesOf(t, Client, authority(t, "other"), client, nil),
			"The certificate hasn't got a known issuer",
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			path := program(t, tt.command[0])
			for k, c := range []Credentials{tt.right, tt.wrong} {
				socket := socketPath(t)
				command := append([]string{path}, tt.command[1:]...)
				for i := range command {
					command[i] = strings.Replace(command[i], "%s", socket, 1)
				}
				p, err := daemon.Start(command, t.TempDir(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer p.Kill()
				if err := p.AwaitSocket(socket, 10*time.Second); err != nil {
					t.Fatal(err, p.Output())
				}
				err = visit(t, socket, c, new("localhost"))
				switch {
				case k == 0 && err != nil:
					t.Error(err, p.Output())
				case k == 1 && (err == nil || tt.wrongText != "" && err.Error() != tt.wrongText):
					t.Errorf("%v, want %s", err, tt.wrongText)
				}
			}
		})
	}
}

// TestClients serves NBD clients of others.
func TestClients(t *testing.T) {
	t.Parallel()
	ca, other := authority(t, "ca"), authority(t, "other")
	client := member(t, ca, "client")
	files := func(ca *party) string {
		return *folder(t, map[string]any{"ca-cert.pem": ca, "client-cert.pem": client, "client-key.pem": client.key})
	}
	certs, badCerts := files(ca), files(other)
	rsaCA := rsaAuthority(t)
	rsaClient := member(t, rsaCA, "client")
	rsaCerts := *folder(t, map[string]any{"ca-cert.pem": rsaCA, "client-cert.pem": rsaClient, "client-key.pem": rsaClient.key})
	withRSA := certificatesOf(t, Server, rsaCA, member(t, rsaCA, "server"), nil)
	keys, badKeys := *keyFile(t, "qemu:"+sharedKey+"\n"), *keyFile(t, "qemu:aabbccdd\n")
	withKey, withCert := psk(t, Server, "qemu:"+sharedKey), certificatesOf(t, Server, ca, member(t, ca, "server"), nil)
	// The host name is the one in the certificate, so they go to TCP.
	info := func(more string) []string { return []string{"nbdinfo", "--size", "nbds://qemu@localhost:%s/?" + more} }
	img := func(object string) []string {
		return []string{"qemu-img", "info", "--object", object + ",id=t,endpoint=client", "--image-opts",
			"driver=nbd,server.type=inet,server.host=localhost,server.port=%s,tls-creds=t,export="}
	}
	for title, tt := range map[string]struct {
		server       Credentials
		right, wrong []string
		wrongText    string
	}{
		"nbdinfo, key":           {withKey, info("tls-psk-file=" + keys + "/keys.psk"), info("tls-psk-file=" + badKeys + "/keys.psk"), ""},
		"nbdinfo, certificates":  {withCert, info("tls-certificates=" + certs), info("tls-certificates=" + badCerts), ""},
		"nbdinfo, RSA":           {withRSA, info("tls-certificates=" + rsaCerts), info("tls-certificates=" + badCerts), ""},
		"qemu-img, RSA":          {withRSA, img("tls-creds-x509,dir=" + rsaCerts), img("tls-creds-x509,sanity-check=off,dir=" + badCerts), ""},
		"qemu-img, key":          {withKey, img("tls-creds-psk,dir=" + keys), img("tls-creds-psk,dir=" + badKeys), "A TLS fatal alert has been received."},
		"qemu-img, certificates": {withCert, img("tls-creds-x509,dir=" + certs), img("tls-creds-x509,sanity-check=off,dir=" + badCerts), "The certificate hasn't got a known issuer"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			path := program(t, tt.right[0])
			for k, words := range [][]string{tt.right, tt.wrong} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				_, port, _ := net.SplitHostPort(l.Addr().String())
				ended := make(chan error, 1)
				go func() {
					conn, err := l.Accept()
					if err == nil {
						err = serve(t, conn, tt.server)
					}
					ended <- err
				}()
				command := exec.CommandContext(t.Context(), path, words[1:]...)
				for i := range command.Args {
					command.Args[i] = strings.Replace(command.Args[i], "%s", port, 1)
				}
				out, err := command.CombinedOutput()
				l.Close()
				serverErr := <-ended
				switch {
				case k == 0 && (err != nil || !strings.Contains(string(out), "1048576") && !strings.Contains(string(out), "1 MiB")):
					t.Errorf("%v, %s, server: %v", err, out, serverErr)
				case k == 1 && (err == nil || !strings.Contains(string(out), tt.wrongText)):
					t.Errorf("%v, %s, server: %v", err, out, serverErr)
				}
			}
		})
	}
}
