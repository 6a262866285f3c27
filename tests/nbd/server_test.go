package nbd_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
)

// TestAlignment has a device whose sectors are longer than requests like to
// be. Who asks for the block sizes must keep to them.
func TestAlignment(t *testing.T) {
	t.Parallel()
	loop := func(dir string) {
		path := filepath.Join(dir, "disk")
		writeSparse(t, path, pattern(0, 1<<20))
		out, err := exec.Command("losetup", "-b", "4096", "-f", "--show", path).CombinedOutput()
		if err != nil {
			t.Skipf("no loop device: %v: %s", err, out)
		}
		device := strings.TrimSpace(string(out))
		t.Cleanup(func() {
			if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
		if err := os.Symlink(device, filepath.Join(dir, "device")); err != nil {
			t.Fatal(err)
		}
	}
	p := startPair(t, loop,
		"--blockdev", `{"driver":"host_device","node-name":"h","filename":"DIR/device","cache":{"direct":true},"locking":"off","discard":"unmap"}`,
		"--nbd-server", "addr.type=unix,addr.path=DIR/n.sock",
		"--export", "nbd,id=e,node-name=h,name=x,writable=on")
	for _, mode := range modes {
		for _, blockSizes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", modeName(mode), blockSizes), func(t *testing.T) {
				c := p.enter(t, mode, "x", blockSizes, nbd.ContextAllocation)
				for _, command := range []nbd.Command{nbd.CmdRead, nbd.CmdWrite, nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdCache, nbd.CmdBlockStatus, nbd.CmdFlush, 9} {
					for _, at := range [][2]uint64{{0, 4096}, {4096, 8192}, {0, 512}, {512, 4096}, {100, 200}, {4096, 0}, {100, 0}, {1<<20 - 1, 1}, {1<<20 - 1, 2}, {1<<20 - 4096, 8192}} {
						for _, f := range []nbd.CommandFlags{0, 0x80} {
							r := nbd.Request{Command: command, Flags: f, Cookie: 1, Offset: at[0], Length: at[1]}
							if mode == nbd.Extended && command == nbd.CmdWrite {
								r.Flags |= nbd.CmdFlagPayloadLen
							}
							if !c.exchange(t, r, requestData(mode, r)) {
								return
							}
						}
					}
				}
			})
		}
	}
	p.sameComplaints(t)
	p.sameFiles("disk")
}

// TestManyClients has more clients than may be there: the others wait without
// a greeting until somebody goes, with both.
func TestManyClients(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), withServer("max-connections=2")...)
	for i, dir := range p.dirs {
		var conns []*wire
		for range 4 {
			conn, err := net.Dial("unix", filepath.Join(dir, "n.sock"))
			if err != nil {
				t.Fatalf("%s: %v", sides[i], err)
			}
			defer conn.Close()
			conns = append(conns, newWire(conn))
		}
		greeted := func(w *wire, limit time.Duration) bool {
			_ = w.SetReadDeadline(time.Now().Add(limit))
			b, err := w.bytes(18)
			if err != nil && (len(b) > 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
				t.Errorf("%s: %q, %v", sides[i], b, err)
			}
			return err == nil
		}
		for k, limit := range []time.Duration{patience, patience, quiet, quiet} {
			if got, want := greeted(conns[k], limit), k < 2; got != want {
				t.Errorf("%s: client %d is greeted: %v", sides[i], k, got)
			}
		}
		conns[0].Close()
		if !greeted(conns[2], patience) || greeted(conns[3], quiet) {
			t.Errorf("%s: the wrong client came when one went", sides[i])
		}
		conns[1].Close()
		if !greeted(conns[3], patience) {
			t.Errorf("%s: the last client does not come", sides[i])
		}
	}
}

// withServer is the standard exports at a server with more options.
func withServer(more string) []string {
	options := slices.Clone(standardExports)
	for i, o := range options {
		if strings.HasPrefix(o, "addr.type=unix") {
			options[i] = o + "," + more
		}
	}
	return options
}

// TestSlowHandshake lets the time for the handshake pass.
func TestSlowHandshake(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), withServer("handshake-max-seconds=1")...)
	for _, c := range []struct {
		name string
		say  []byte
	}{
		{"nothing", nil},
		{"flags", clientFlags(3)},
		{"half an option", append(clientFlags(3), option(nbd.OptGo, infoData("x"))[:20]...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := p.connect(t)
			conn.send(c.say)
			begin := time.Now()
			_ = conn.ends[0].SetReadDeadline(begin.Add(patience))
			_ = conn.ends[1].SetReadDeadline(begin.Add(patience))
			for i, w := range conn.ends {
				if b, err := io.ReadAll(w); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: %q, %v", sides[i], b, err)
				}
				if took := time.Since(begin); took < 900*time.Millisecond || took > 5*time.Second {
					t.Errorf("%s cut the client off after %v", sides[i], took)
				}
			}
		})
	}
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		c := p.enter(t, nbd.Simple, "x", false)
		time.Sleep(1500 * time.Millisecond) // the limit must not matter any more
		c.exchange(t, nbd.Request{Command: nbd.CmdRead, Length: 512}, nil)
	})
}
