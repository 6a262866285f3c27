package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
)

// diskSize is that of the disk that bad clients are let at.
const diskSize = 4 << 20

// peerServer has an export x of a disk full of data, and returns the disk's
// path.
func peerServer(tb testing.TB) (*instance, string) {
	tb.Helper()
	disk := filepath.Join(shortDir(tb), "disk.raw")
	if err := os.WriteFile(disk, pattern(0, diskSize), 0o600); err != nil {
		tb.Fatal(err)
	}
	i := serve(tb, "object-add", `{"qom-type": "iothread", "id": "t0"}`,
		"blockdev-add", fmt.Sprintf(`{"driver": "file", "node-name": "f", "filename": %q, "discard": "unmap"}`, disk),
		"blockdev-add", `{"driver": "raw", "node-name": "r", "file": "f"}`)
	i.export()
	return i, disk
}

func (i *instance) export() {
	i.tb.Helper()
	i.do("block-export-add", `{"type": "nbd", "id": "e", "node-name": "r", "name": "x", "writable": true}`)
}

// wellBehaved is a client that must be served whatever others have done, and
// behind whom nobody uses the export any more.
func (i *instance) wellBehaved() {
	i.tb.Helper()
	for _, mode := range modes {
		w := client(i.tb, "unix", i.socket(), mode, "x", nbd.ContextAllocation)
		data := pattern(int64(mode), 8192)
		err := w.write(diskSize-8192, data, nbd.CmdFlagFUA)
		if err == nil {
			err = w.flush()
		}
		var got []byte
		if err == nil {
			got, err = w.read(diskSize-8192, 8192)
		}
		if err != nil || !bytes.Equal(got, data) {
			i.tb.Fatalf("a client that behaves gets %d bytes, %v\n%s", len(got), err, stacks())
		}
		if err := w.disconnect(); err != nil {
			i.tb.Error(err)
		}
	}
	i.delWhenIdle("e")
	i.export()
}

// greeted is a connection of a client that has not said anything.
func (i *instance) greeted() *wire {
	i.tb.Helper()
	w, err := dial("unix", i.socket())
	if err != nil {
		i.tb.Fatal(err)
	}
	i.tb.Cleanup(func() { w.Close() })
	return w
}

// TestFloods sends a lot of everything that costs the client nothing.
func TestFloods(t *testing.T) {
	t.Parallel()
	zero := func(c nbd.Command) []byte { return nbd.Simple.AppendRequest(nil, nbd.Request{Command: c}) }
	for _, c := range []struct {
		name  string
		enter bool
		say   []byte
		times int
		reply int // the bytes of each reply
	}{
		{"LIST", false, option(nbd.OptList, nil), 5000, 20 + 4 + 1 + 20},
		{"INFO", false, option(nbd.OptInfo, infoData("x")), 5000, 20 + 14 + 20 + 12 + 20},
		{"unknown options", false, option(99, make([]byte, 1000)), 5000, 20 + len("Unsupported option 99 (<unknown>)")},
		{"reads of nothing", true, zero(nbd.CmdRead), 50_000, 16},
		{"writes of nothing", true, zero(nbd.CmdWrite), 50_000, 16},
		{"trims of nothing", true, zero(nbd.CmdTrim), 20_000, 16},
		{"unknown requests", true, zero(77), 50_000, 16},
		{"small reads", true, nbd.Simple.AppendRequest(nil, nbd.Request{Length: 1}), 50_000, 17},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i, _ := peerServer(t)
			w := i.greeted()
			if c.enter {
				if err := w.enter(nbd.Simple, "x"); err != nil {
					t.Fatal(err)
				}
			} else if _, err := w.Write(clientFlags(3)); err != nil {
				t.Fatal(err)
			}
			_ = w.SetDeadline(time.Now().Add(3 * patience))
			var sender sync.WaitGroup
			sender.Go(func() {
				if _, err := w.Write(bytes.Repeat(c.say, c.times)); err != nil {
					t.Errorf("sending: %v", err)
				}
			})
			if n, err := io.CopyN(io.Discard, w.in, int64(c.times*c.reply)); err != nil {
				t.Errorf("after %d bytes of replies: %v", n, err)
			}
			sender.Wait()
			w.Close()
			i.wellBehaved()
		})
	}
}

// TestFloodOfConnections opens more connections than may be served, and closes
// them at whatever moment.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	i, _ := peerServer(t)
	r := rand.New(rand.NewPCG(*seed, 5))
	var open []net.Conn
	for range 500 {
		conn, err := net.Dial("unix", i.socket())
		if err != nil {
			if errors.Is(err, syscall.EAGAIN) {
				break // so many wait already
			}
			t.Fatal(err)
		}
		switch r.IntN(4) {
		case 0:
			conn.Close()
			continue
		case 1:
			_, _ = conn.Write(clientFlags(3)) // it may be closed
		case 2:
			_, _ = conn.Write(append(clientFlags(3), option(nbd.OptGo, infoData("x"))...))
		}
		open = append(open, conn)
	}
	for _, conn := range open {
		conn.Close()
	}
	i.wellBehaved()
}

// TestDeadWriter dies in the middle of the data of a write: nothing of it is
// written.
func TestDeadWriter(t *testing.T) {
	t.Parallel()
	i, disk := peerServer(t)
	for _, mode := range modes {
		for _, sent := range []int{0, 1, 4096, 1<<20 - 1} {
			w := client(t, "unix", i.socket(), mode, "x")
			r := nbd.Request{Command: nbd.CmdWrite, Offset: 4096, Length: 1 << 20}
			if mode == nbd.Extended {
				r.Flags = nbd.CmdFlagPayloadLen
			}
			if _, err := w.Write(w.request(r, make([]byte, sent))); err != nil {
				t.Fatal(err)
			}
			w.Close()
			i.wellBehaved()
			if got := fileBytes(t, disk); !bytes.Equal(got[:diskSize-8192], pattern(0, diskSize-8192)) {
				t.Fatalf("%s, %d bytes: something was written", modeName(mode), sent)
			}
		}
	}
}

// TestDeafReader is not parallel, for it measures memory: a client asks for
// gigabytes and does not read them.
func TestDeafReader(t *testing.T) {
	const bound = 64 << 20
	for _, mode := range modes {
		i, _ := peerServer(t)
		before := memory()
		w := client(t, "unix", i.socket(), mode, "x")
		ask := bytes.Repeat(w.request(nbd.Request{Command: nbd.CmdRead, Length: 2 << 20}, nil), 2000)
		_ = w.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := w.Write(ask); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		used := int64(0)
		for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			used = max(used, memory()-before)
		}
		t.Logf("%s: %d MiB", modeName(mode), used>>20)
		if used > bound {
			t.Errorf("%s: %d MiB are held for a client that does not read", modeName(mode), used>>20)
		}
		w.Close()
		i.wellBehaved()
	}
}

// memory is what the process uses of the heap, in bytes.
func memory() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// TestLongOptions takes no memory for options that claim to be long.
func TestLongOptions(t *testing.T) {
	i, _ := peerServer(t)
	before := memory()
	for range 90 {
		w := i.greeted()
		long := make([]byte, 1<<20)
		if _, err := w.Write(append(clientFlags(3), optionOf(nbd.OptInfo, nbd.MaxPayload, nil)...)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(long); err != nil {
			t.Fatal(err)
		}
	}
	if used := memory() - before; used > 32<<20 {
		t.Errorf("%d MiB are held for options", used>>20)
	}
}

// traffic is clients that are busy until they are cut off.
type traffic struct {
	i       *instance
	clients sync.WaitGroup
	conns   []*wire
}

// busy starts some clients that read and write without pause.
func (i *instance) busy(n int) *traffic {
	i.tb.Helper()
	tr := &traffic{i: i}
	for k := range n {
		w := client(i.tb, "unix", i.socket(), modes[k%3], "x", nbd.ContextAllocation)
		_ = w.SetDeadline(time.Now().Add(3 * patience))
		tr.conns = append(tr.conns, w)
		at := uint64(k) << 16
		want := pattern(int64(at), 1<<16)
		tr.clients.Go(func() {
			for {
				if err := w.write(at, want, 0); err != nil {
					tr.ended(err)
					return
				}
				got, err := w.read(at, 1<<16)
				if err != nil {
					tr.ended(err)
					return
				}
				if !bytes.Equal(got, want) {
					i.tb.Error("a read is not what was written")
				}
			}
		})
	}
	return tr
}

// ended looks at why a client got no further: its connection must have ended.
func (tr *traffic) ended(err error) {
	// A reply that tells of an error is a bare errno, what ends a connection
	// is not.
	if _, refused := err.(syscall.Errno); refused || errors.Is(err, os.ErrDeadlineExceeded) {
		tr.i.tb.Errorf("a client is served badly: %v", err)
	}
}

// end closes the connections of those who are left.
func (tr *traffic) end() {
	for _, w := range tr.conns {
		w.Close()
	}
	tr.clients.Wait()
}

// TestChangesInTraffic does to the graph and the server what can be done to
// them, under clients that are busy.
func TestChangesInTraffic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		do    func(i *instance, disk string)
		stays bool // the clients do
	}{
		{"export removed", func(i *instance, _ string) {
			if _, err := i.try("block-export-del", `{"id": "e"}`); err == nil || !strings.Contains(err.Error(), "still in use") {
				i.tb.Errorf("removing it safely: %v", err)
			}
			i.do("block-export-del", `{"id": "e", "mode": "hard"}`)
		}, false},
		{"server stopped", func(i *instance, _ string) {
			i.ask("nbd-server-stop")
			i.do("nbd-server-start", `{"addr": {"type": "unix", "data": {"path": %q}}}`, i.socket())
		}, false},
		{"node deleted", func(i *instance, _ string) {
			if _, err := i.try("blockdev-del", `{"node-name": "r"}`); err == nil || !strings.Contains(err.Error(), "Node r is in use") {
				i.tb.Errorf("deleting it: %v", err)
			}
		}, true},
		{"another node resized", func(i *instance, _ string) {
			i.do("blockdev-add", `{"driver": "null-co", "node-name": "n", "size": 4096}`)
			for k := range 50 {
				// A node on top, and away again: both drain.
				i.do("blockdev-add", `{"driver": "raw", "node-name": "top", "file": "r", "read-only": true}`)
				_, _ = i.try("block_resize", `{"node-name": "r", "size": %d}`, diskSize+k) // refused, but only there
				i.do("blockdev-del", `{"node-name": "top"}`)
			}
		}, true},
		{"reopened", func(i *instance, disk string) {
			for range 50 {
				i.do("blockdev-reopen", `{"options": [{"driver": "file", "node-name": "f", "filename": %q, "discard": "unmap"},
					{"driver": "raw", "node-name": "r", "file": "f"}]}`, disk)
			}
		}, true},
		{"moved", func(i *instance, _ string) {
			for k := range 50 {
				i.do("x-blockdev-set-iothread", `{"node-name": "r", "iothread": %s, "force": true}`, []string{`"t0"`, "null"}[k%2])
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i, disk := peerServer(t)
			tr := i.busy(6)
			c.do(i, disk)
			if !c.stays {
				tr.clients.Wait() // they were cut off
				eventually(t, "the export is gone", func() bool { return !strings.Contains(string(i.ask("query-block-exports")), `"e"`) })
				i.export()
			}
			tr.end()
			i.wellBehaved()
		})
	}
}

// TestEndInTraffic ends the daemon under busy clients.
func TestEndInTraffic(t *testing.T) {
	t.Parallel()
	i, _ := peerServer(t)
	tr := i.busy(8)
	deaf := client(t, "unix", i.socket(), nbd.Simple, "x")
	_ = deaf.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = deaf.Write(bytes.Repeat(deaf.request(nbd.Request{Command: nbd.CmdRead, Length: 1 << 20}, nil), 1000)) // it gets stuck
	i.greeted()
	done := make(chan struct{})
	go func() {
		defer close(done)
		i.Close()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("the daemon does not end\n%s", stacks())
	}
	tr.clients.Wait()
}
