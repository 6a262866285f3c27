package nbd_test

import (
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/nbd/nbdtest"
)

const lostText = "Input/output error"

// await waits until a read succeeds, however often it must be tried.
func await(tb testing.TB, blk *block.Backend) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if read(blk, 0, 512) == nil {
			return
		}
	}
	tb.Fatal("the connection does not come back")
}

// TestNoDelay: requests fail at once, and bring the connection back for those
// that come later.
func TestNoDelay(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	_, blk := use(t, s, "")
	s.Stop()
	for range 3 {
		expect(t, "reading", read(blk, 0, 512), lostText)
	}
	s.Start()
	await(t, blk)
}

// TestDelay: requests are sent again when the connection is back.
func TestDelay(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"read 0 512", "write 0 512", "zero 0 512", "discard 0 512", "flush"} {
		s := nbdtest.Listen(t, diskSize, nbdtest.Script{Flags: able})
		_, blk := use(t, s, `"reconnect-delay":20`)
		s.Change(func(script *nbdtest.Script) {
			lies := int32(1)
			script.Request = func(nbd.Request, []byte) []byte {
				if atomic.AddInt32(&lies, -1) == 0 {
					return []byte{} // hang up
				}
				return nil
			}
		})
		expect(t, line, request(blk, line), "")
		log := s.TakeLog()
		if len(log) < 3 || log[0] != log[len(log)-1] || log[1] != "connect" {
			t.Errorf("%s: %q", line, log)
		}
	}
}

// TestDelayWithViolation: a server that broke the rules gets another chance.
func TestDelayWithViolation(t *testing.T) {
	t.Parallel()
	var lies atomic.Int32
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{Mode: nbd.Structured, Request: func(r nbd.Request, _ []byte) []byte {
		if lies.Add(-1) >= 0 {
			return nbd.AppendSimpleReply(nil, r.Cookie, 0)
		}
		return nil
	}})
	b, blk := use(t, s, "")
	lies.Store(1)
	expect(t, "without delay", read(blk, 0, 512), "Invalid argument")
	expect(t, "afterwards", read(blk, 0, 512), lostText)
	b.Drop(blk)
	b.Delete("n0")
	blk = b.Use(b.Add(node(s.Path, `"reconnect-delay":20`)))
	lies.Store(1)
	expect(t, "with delay", read(blk, 0, 512), "")
}

// TestDelayPasses: after the delay requests fail at once, until the connection
// is back. A drained section ends with it.
func TestDelayPasses(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	b, blk := use(t, s, `"reconnect-delay":1`)
	s.Stop()
	begin := time.Now()
	failed := make(chan error)
	go func() { failed <- read(blk, 0, 512) }()
	expect(t, "reading", read(blk, 0, 512), lostText)
	expect(t, "reading besides", <-failed, lostText)
	if waited := time.Since(begin); waited < time.Second {
		t.Errorf("it failed after %v", waited)
	}
	b.Main(func(l *aio.Lock) {
		blk.Node().DrainedBegin(l)
		blk.Node().DrainedEnd()
	})
	expect(t, "reading later", read(blk, 0, 512), lostText)
	s.Start()
	await(t, blk)
}

// TestCloseWhileLost: a node can be deleted while it looks for its server.
func TestCloseWhileLost(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	b, blk := use(t, s, "")
	s.Stop()
	expect(t, "reading", read(blk, 0, 512), lostText)
	expect(t, "reading", read(blk, 0, 512), lostText) // this one begins to connect
	b.Drop(blk)
	b.Delete("n0")
}

// TestCloseWhileConnecting is the same with a server that says nothing.
func TestCloseWhileConnecting(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	b, blk := use(t, s, "")
	s.Stop()
	l, err := net.Listen("unix", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	expect(t, "reading", read(blk, 0, 512), lostText)
	expect(t, "reading", read(blk, 0, 512), lostText)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b.Drop(blk)
	b.Delete("n0")
}

// TestOtherServer: what comes back need not be what was lost.
func TestOtherServer(t *testing.T) {
	t.Parallel()
	const delay = `"reconnect-delay":1`
	for name, c := range map[string]struct {
		more   string
		change func(*nbdtest.Script)
		err    string
	}{
		"the same":        {change: func(*nbdtest.Script) {}},
		"read-only":       {change: func(s *nbdtest.Script) { s.Flags |= nbd.FlagReadOnly }, err: lostText},
		"still read-only": {more: `,"read-only":true`, change: func(s *nbdtest.Script) { s.Flags |= nbd.FlagReadOnly }},
		"larger blocks":   {change: func(s *nbdtest.Script) { s.Blocks = [3]uint32{4096, 4096, 1 << 25} }, err: lostText},
		"shorter blocks":  {change: func(s *nbdtest.Script) { s.Blocks = [3]uint32{1, 4096, 1 << 16} }, err: lostText},
		"other mode":      {change: func(s *nbdtest.Script) { s.Mode = nbd.Simple }},
		"no context":      {change: func(s *nbdtest.Script) { s.Context = "" }},
		"no dirty bitmap": {more: `,"x-dirty-bitmap":"base:other"`, change: func(s *nbdtest.Script) { s.Context = "" }, err: lostText},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			context := nbd.ContextAllocation
			if strings.Contains(c.more, "base:other") {
				context = "base:other"
			}
			s := nbdtest.Listen(t, diskSize, nbdtest.Script{Mode: nbd.Structured, Flags: able, Context: context})
			b := bench(t)
			n := b.Add(node(s.Path, delay+c.more))
			perm := block.PermConsistentRead
			if !n.ReadOnly() {
				perm |= block.PermWrite
			}
			blk, err := b.TryUse(n, perm, block.PermAll)
			if err != nil {
				t.Fatal(err)
			}
			s.Stop()
			s.Change(c.change)
			s.Start()
			expect(t, "reading", read(blk, 0, 512), c.err)
		})
	}
}

// TestLostAbilities makes up for what the server does not understand any more.
func TestLostAbilities(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{Flags: able})
	_, blk := use(t, s, `"reconnect-delay":20`)
	s.Stop()
	s.Change(func(script *nbdtest.Script) { script.Flags = nbd.FlagSendFlush })
	s.Start()
	await(t, blk)
	s.TakeLog()
	for _, line := range []string{"write-f 0 512", "zero-f 0 512", "discard 0 512"} {
		expect(t, line, request(blk, line), "")
	}
	if log := strings.Join(s.TakeLog(), ","); log != "write 0+512,flush 0+0,write 0+512,flush 0+0" {
		t.Error(log)
	}
}

// TestOtherSize: the node keeps its length until it is resized.
func TestOtherSize(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	_, blk := use(t, s, `"reconnect-delay":20`)
	become := func(size int, length int64) {
		t.Helper()
		s.Stop()
		s.Resize(size)
		s.Start()
		await(t, blk)
		if n, err := blk.GetLength(aio.Outside); n != length || err != nil {
			t.Error(n, err)
		}
	}
	become(2*diskSize, diskSize)
	expect(t, "behind the end", read(blk, diskSize, 512), lostText)
	expect(t, "growing too far", blk.Truncate(aio.Outside, 3*diskSize, false, block.PreallocOff, 0), "Cannot grow NBD nodes")
	expect(t, "growing", blk.Truncate(aio.Outside, 2*diskSize, true, block.PreallocOff, 0), "")
	expect(t, "behind the old end", read(blk, diskSize, 512), "")
	become(diskSize, 2*diskSize)
	expect(t, "behind the new end", read(blk, diskSize, 512), lostText)
	expect(t, "across the new end", read(blk, diskSize-512, 1024), lostText)
	expect(t, "resizing", blk.Truncate(aio.Outside, 512, false, block.PreallocOff, 0), "")
	if n, err := blk.GetLength(aio.Outside); n != diskSize || err != nil {
		t.Error(n, err)
	}
}

// TestOpenTimeout tries again until it succeeds.
func TestOpenTimeout(t *testing.T) {
	t.Parallel()
	var refused atomic.Bool
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{Option: func(o nbd.Option, _ []byte) []byte {
		if o == nbd.OptGo && refused.CompareAndSwap(false, true) {
			return nbdtest.Reply(o, nbd.RepErrUnknown, nil)
		}
		return nil
	}})
	b := bench(t)
	b.Add(node(s.Path, `"open-timeout":20`))
}

func TestOpenTimeoutPasses(t *testing.T) {
	t.Parallel()
	b := bench(t)
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	s.Stop()
	begin := time.Now()
	_, err := b.TryAdd(node(s.Path, `"open-timeout":1`))
	expect(t, "nobody listens", err, "Failed to connect to '"+s.Path+"': No such file or directory")
	if waited := time.Since(begin); waited < time.Second {
		t.Errorf("it failed after %v", waited)
	}
	silent := filepath.Join(filepath.Dir(s.Path), "silent")
	l, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = b.TryAdd(node(silent, `"open-timeout":1`))
	expect(t, "nobody answers", err, "Connection attempt cancelled by timeout")
}

// TestOwnServer: the server can need the lock that opening holds.
func TestOwnServer(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	b := bench(t)
	s.Change(func(script *nbdtest.Script) {
		script.Option = func(nbd.Option, []byte) []byte {
			b.Main(func(*aio.Lock) {})
			return nil
		}
	})
	b.Add(node(s.Path, ""))
}
