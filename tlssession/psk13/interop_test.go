package psk13

import (
	"bufio"
	"encoding/hex"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		daemon.Missing(t, program+" is not installed")
	}
}

// priorities make GnuTLS begin with one or the other.
func priorities() map[string]string {
	const psk = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+DHE-PSK:+ECDHE-PSK"
	return map[string]string{
		"default":  psk,
		"x25519":   psk + ":-GROUP-ALL:+GROUP-X25519",
		"p256":     psk + ":-GROUP-ALL:+GROUP-SECP256R1",
		"p384":     psk + ":-GROUP-ALL:+GROUP-SECP384R1",
		"retry":    psk + ":-GROUP-ALL:+GROUP-SECP521R1:+GROUP-SECP384R1",
		"chacha20": psk + ":-CIPHER-ALL:+CHACHA20-POLY1305",
		"compat":   psk + ":%DISABLE_TLS13_COMPAT_MODE",
	}
}

// TestGnuTLSClient serves gnutls-cli.
func TestGnuTLSClient(t *testing.T) {
	t.Parallel()
	need(t, "gnutls-cli")
	for name, priority := range priorities() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			cmd := exec.CommandContext(t.Context(), "gnutls-cli", "-p", port, "127.0.0.1", "--no-ca-verification", "--logfile", os.DevNull,
				"--pskusername", "qemu", "--pskkey", hex.EncodeToString(testKey()), "--priority", priority)
			cmd.Stdin = strings.NewReader("hello\n")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			c, err := Server(t.Context(), conn, keysOf("qemu", testKey()))
			if err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil || line != "hello\n" {
				t.Errorf("%q, %v", line, err)
			}
			if _, err := c.Write([]byte("answer\n")); err != nil {
				t.Error(err)
			}
			c.Close()
			text, _ := io.ReadAll(out)
			_ = cmd.Wait()
			if !strings.Contains(string(text), "answer\n") {
				t.Errorf("the client printed %q", text)
			}
		})
	}
}

// TestGnuTLSServer talks to gnutls-serv, which echoes.
func TestGnuTLSServer(t *testing.T) {
	t.Parallel()
	need(t, "gnutls-serv")
	for name, priority := range priorities() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := gnutlsServ(t, priority)
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			c, err := Client(t.Context(), conn, "qemu", testKey())
			if err != nil {
				t.Fatal(err)
			}
			data := strings.Repeat("0123456789", 10) + "\n"
			go func() { _, _ = io.WriteString(c, data) }()
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != data {
				t.Error(err)
			}
			c.Close()
		})
	}
}

func TestGnuTLSServerRefuses(t *testing.T) {
	t.Parallel()
	need(t, "gnutls-serv")
	conn := gnutlsServ(t, priorities()["default"])
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := Client(t.Context(), conn, "qemu", []byte("wrong")); err == nil {
		t.Error("a wrong key was taken")
	}
}

// gnutlsServ starts an echoing server and connects to it.
func gnutlsServ(t *testing.T, priority string) net.Conn {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys.psk")
	if err := os.WriteFile(keys, []byte("qemu:"+hex.EncodeToString(testKey())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port, err := daemon.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "gnutls-serv", "--echo", "-p", strconv.Itoa(port), "--pskpasswd", keys, "--priority", priority)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal("gnutls-serv ended: ", line)
		}
		if strings.Contains(line, "listening on IPv4") && strings.Contains(line, "done") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
