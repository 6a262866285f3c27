package nbd_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	driver "github.com/qmpblock/qmpblock/drivers/nbd"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/nbd/nbdtest"
)

const (
	diskSize = 1 << 20
	able     = nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagSendTrim | nbd.FlagSendWriteZeroes
)

// use opens a server and uses it for everything.
func use(tb testing.TB, s *nbdtest.Server, more string) (*drivertest.Bench, *block.Backend) {
	tb.Helper()
	b := bench(tb)
	if more != "" {
		more = "," + more
	}
	blk := b.Use(b.Add(node(s.Path, `"discard":"unmap"`+more)))
	s.TakeLog()
	return b, blk
}

// request is a line like one of qemu-io.
func request(blk *block.Backend, line string) error {
	var op string
	var offset, bytes int64
	fmt.Sscanf(line, "%s %d %d", &op, &offset, &bytes)
	v := block.Vec{make([]byte, bytes)}
	switch op {
	case "read":
		return blk.Preadv(aio.Outside, offset, v)
	case "write":
		return blk.Pwritev(aio.Outside, offset, v, 0)
	case "write-f":
		return blk.Pwritev(aio.Outside, offset, v, block.ReqFUA)
	case "zero":
		return blk.PwriteZeroes(aio.Outside, offset, bytes, 0)
	case "zero-f":
		return blk.PwriteZeroes(aio.Outside, offset, bytes, block.ReqFUA)
	case "zero-u":
		return blk.PwriteZeroes(aio.Outside, offset, bytes, block.ReqMayUnmap)
	case "zero-n":
		return blk.PwriteZeroes(aio.Outside, offset, bytes, block.ReqNoFallback)
	case "discard":
		return blk.Pdiscard(aio.Outside, offset, bytes)
	case "flush":
		return blk.Flush(aio.Outside)
	}
	return errors.New("what is " + op)
}

// TestRequests is what arrives at servers that can more or less, as observed
// with the reference.
func TestRequests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script nbdtest.Script
		lines  string
		log    string
		err    string
	}{
		"no abilities": {
			lines: "flush,write 0 512,write-f 0 512,zero 0 4096,discard 0 4096,flush",
			log:   "write 0+512,write 0+512,write 0+4096",
		},
		"flush": {
			script: nbdtest.Script{Flags: nbd.FlagSendFlush},
			lines:  "flush,flush,write-f 0 512,zero-f 0 512",
			log:    "flush 0+0,flush 0+0,write 0+512,flush 0+0,write 0+512,flush 0+0",
		},
		"all": {
			script: nbdtest.Script{Flags: able},
			lines:  "write 100 100,write-f 0 512,zero 5 10,zero-f 0 512,zero-u 0 512,discard 5 1000,flush",
			log:    "write 100+100,write/1 0+512,write zeroes/2 5+10,write zeroes/3 0+512,write zeroes 0+512,trim 5+1000,flush 0+0",
		},
		"no fast zeroes": {script: nbdtest.Script{Flags: able}, lines: "zero-n 0 512", err: "Operation not supported"},
		"fast zeroes": {
			script: nbdtest.Script{Flags: able | nbd.FlagSendFastZero},
			lines:  "zero 0 512,zero-n 0 512", log: "write zeroes/2 0+512,write zeroes/12 0+512",
		},
		"blocks": {
			script: nbdtest.Script{Flags: able, Blocks: [3]uint32{512, 4096, 65536}},
			lines:  "write 0 200704,read 0 200704,zero 0 200704,discard 0 200704,write 100 100",
			log: "write 0+65536,write 65536+65536,write 131072+65536,write 196608+4096," +
				"read 0+65536,read 65536+65536,read 131072+65536,read 196608+4096," +
				"write zeroes/2 0+65536,write zeroes/2 65536+65536,write zeroes/2 131072+65536,write zeroes/2 196608+4096," +
				"trim 0+200704,read 0+512,write 0+512",
		},
		"extended": {
			script: nbdtest.Script{Flags: able, Mode: nbd.Extended, Blocks: [3]uint32{512, 4096, 65536}},
			lines:  "zero 0 200704,write 0 131072", log: "write zeroes/2 0+200704,write/20 0+65536,write/20 65536+65536",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := nbdtest.Listen(t, diskSize, c.script)
			_, blk := use(t, s, "")
			for line := range strings.SplitSeq(c.lines, ",") {
				expect(t, line, request(blk, line), c.err)
			}
			if log := strings.Join(s.TakeLog(), ","); log != c.log {
				t.Errorf("%s\nwant %s", log, c.log)
			}
		})
	}
}

// TestTail: the node ends at a sector's end, behind that of the export.
func TestTail(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, 1000, nbdtest.Script{Mode: nbd.Structured, Context: nbd.ContextAllocation})
	data := random(1000)
	s.Fill(0, data)
	_, blk := use(t, s, "")
	holds(t, blk, 0, append(data, make([]byte, 24)...))
	holds(t, blk, 1000, make([]byte, 24))
	n := blk.Node()
	for _, c := range []struct{ offset, bytes, want int64 }{{0, 1024, 1000}, {1000, 24, 24}} {
		st, err := n.BlockStatus(aio.Outside, true, c.offset, c.bytes)
		if err != nil || st.Bytes != c.want || (st.Flags&block.StatusZero != 0) != (c.offset == 1000) {
			t.Errorf("%d: %+v %v", c.offset, st, err)
		}
	}
	if log := strings.Join(s.TakeLog(), ","); log != "read 0+1000,block status/8 0+1000" {
		t.Error(log)
	}
}

func TestBlockStatus(t *testing.T) {
	t.Parallel()
	const data, zero, valid, allocated = block.StatusData, block.StatusZero, block.StatusOffsetValid, block.StatusAllocated
	for name, c := range map[string]struct {
		script  nbdtest.Script
		more    string
		extents []nbd.Extent
		bytes   int64
		flags   block.StatusFlags
	}{
		"data":         {extents: []nbd.Extent{{Length: 65536}}, bytes: 65536, flags: data | valid | allocated},
		"hole":         {extents: []nbd.Extent{{Length: 65536, Flags: 1}}, bytes: 65536, flags: valid},
		"zero":         {extents: []nbd.Extent{{Length: 65536, Flags: 2}}, bytes: 65536, flags: data | zero | valid | allocated},
		"zero hole":    {extents: []nbd.Extent{{Length: 65536, Flags: 3}}, bytes: 65536, flags: zero | valid | allocated},
		"new flags":    {extents: []nbd.Extent{{Length: 65536, Flags: 0xf0}}, bytes: 65536, flags: data | valid | allocated},
		"several":      {extents: []nbd.Extent{{Length: 512, Flags: 3}, {Length: 512}}, bytes: 512, flags: zero | valid | allocated},
		"too long":     {extents: []nbd.Extent{{Length: 1 << 30, Flags: 3}}, bytes: 131072, flags: zero | valid | allocated},
		"part":         {script: nbdtest.Script{Blocks: [3]uint32{4096, 4096, 4096}}, extents: []nbd.Extent{{Length: 6144, Flags: 3}}, bytes: 4096, flags: zero | valid | allocated},
		"half a block": {script: nbdtest.Script{Blocks: [3]uint32{4096, 4096, 4096}}, extents: []nbd.Extent{{Length: 512, Flags: 3}}, bytes: 4096, flags: data | valid | allocated},
		"extended":     {script: nbdtest.Script{Mode: nbd.Extended}, extents: []nbd.Extent{{Length: 1 << 40, Flags: 1}}, bytes: 131072, flags: valid},
		"dirty": {
			script: nbdtest.Script{Context: "qemu:dirty-bitmap:b"}, more: `"x-dirty-bitmap":"qemu:dirty-bitmap:b"`,
			extents: []nbd.Extent{{Length: 65536, Flags: nbd.StateDirty}}, bytes: 65536, flags: valid,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.script.Mode = max(c.script.Mode, nbd.Structured)
			if c.script.Context == "" {
				c.script.Context = nbd.ContextAllocation
			}
			c.script.Request = func(r nbd.Request, _ []byte) []byte {
				if r.Command != nbd.CmdBlockStatus {
					return nil
				}
				return nbdtest.Status(c.script.Mode, r, nbdtest.ContextID, c.extents...)
			}
			s := nbdtest.Listen(t, diskSize, c.script)
			_, blk := use(t, s, c.more)
			st, err := blk.Node().BlockStatus(aio.Outside, true, 65536, 131072)
			if err != nil || st.Bytes != c.bytes || st.Flags != c.flags || st.Map != 65536 {
				t.Errorf("%+v %v", st, err)
			}
			if log := strings.Join(s.TakeLog(), ","); log != "block status/8 65536+131072" {
				t.Error(log)
			}
		})
	}
}

// TestUnknownStatus: a server without the context has data everywhere.
func TestUnknownStatus(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	_, blk := use(t, s, "")
	st, err := blk.Node().BlockStatus(aio.Outside, true, 512, 1024)
	if err != nil || st.Bytes != 1024 || st.Flags != block.StatusData|block.StatusOffsetValid|block.StatusAllocated || st.Map != 512 {
		t.Errorf("%+v %v", st, err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{Mode: nbd.Structured, Flags: able})
	_, blk := use(t, s, "")
	for code, want := range map[uint32]string{1: "Operation not permitted", 28: "No space left on device", 108: "Cannot send after transport endpoint shutdown", 999: "Invalid argument"} {
		s.Change(func(script *nbdtest.Script) {
			script.Request = func(r nbd.Request, _ []byte) []byte {
				return nbdtest.Failure(nbd.Structured, r, code, "so sorry")
			}
		})
		for _, line := range []string{"read 0 512", "write 0 512", "zero 0 512", "discard 0 512", "flush"} {
			expect(t, line, request(blk, line), want)
		}
	}
	// The server can do without zeroes, and without discards.
	s.Change(func(script *nbdtest.Script) {
		script.Request = func(r nbd.Request, _ []byte) []byte {
			if r.Command == nbd.CmdWriteZeroes || r.Command == nbd.CmdTrim {
				return nbdtest.Failure(nbd.Structured, r, 95, "")
			}
			return nil
		}
	})
	s.TakeLog()
	for _, line := range []string{"zero 0 512", "discard 0 512"} {
		expect(t, line, request(blk, line), "")
	}
	if log := strings.Join(s.TakeLog(), ","); log != "write zeroes/2 0+512,write 0+512,trim 0+512" {
		t.Error(log)
	}
}

func TestResize(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	_, blk := use(t, s, "")
	for _, c := range []struct {
		size  int64
		exact bool
		err   string
	}{
		{diskSize, true, ""},
		{diskSize, false, ""},
		{512, false, ""},
		{512, true, "Cannot resize NBD nodes"},
		{diskSize + 512, true, "Cannot resize NBD nodes"},
		{diskSize + 512, false, "Cannot grow NBD nodes"},
	} {
		expect(t, fmt.Sprint(c), blk.Truncate(aio.Outside, c.size, c.exact, block.PreallocOff, 0), c.err)
	}
	if n, err := blk.GetLength(aio.Outside); n != diskSize || err != nil {
		t.Error(n, err)
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	b := bench(t)
	for size, want := range map[uint64]string{
		1 << 62:   "",
		0:         "",
		1<<63 - 1: "Could not refresh total sector count: File too large",
		1 << 63:   "Could not refresh total sector count: File too large",
		1<<64 - 1: "Could not refresh total sector count: File too large",
	} {
		s := nbdtest.Listen(t, 0, nbdtest.Script{Option: func(o nbd.Option, _ []byte) []byte {
			if o != nbd.OptGo {
				return nil
			}
			return append(nbdtest.Info(size, 1), nbdtest.Reply(o, nbd.RepAck, nil)...)
		}})
		_, err := b.TryAdd(node(s.Path, ""))
		expect(t, fmt.Sprint(size), err, want)
		if err == nil {
			b.Delete("n0")
		}
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	b := bench(t)
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{Flags: nbd.FlagReadOnly})
	_, err := b.TryAdd(node(s.Path, ""))
	expect(t, "writable", err, "Could not open image: Permission denied")
	for _, more := range []string{`"read-only":true`, `"auto-read-only":true`} {
		n := b.Add(node(s.Path, more))
		if !n.ReadOnly() {
			t.Errorf("%s: it is writable", more)
		}
		for _, again := range []string{"", `"auto-read-only":true`} {
			expect(t, again, b.Reopen(node(s.Path, again)), "Can't reopen read-only NBD mount as read/write")
		}
		expect(t, "read-only", b.Reopen(node(s.Path, `"read-only":true`)), "")
		b.Delete("n0")
	}
}

// TestAddresses opens by every kind of address and the older options.
func TestAddresses(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.Serve(conn)
		}
	}()
	defer func() { l.Close(); <-served }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	conn, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	socketServed := make(chan struct{})
	go func() { defer close(socketServed); s.Serve(conn) }()
	defer func() { <-socketServed }()
	b := drivertest.NewWith(t, block.Config{
		Drivers: []*block.Driver{driver.Driver()},
		SocketFD: func(name string) (*os.File, error) {
			if name != "it" {
				return nil, errors.New("not it")
			}
			return os.NewFile(uintptr(fds[0]), name), nil
		},
	})
	for _, c := range []struct{ options, name, err string }{
		{options: `"server":{"type":"unix","path":"` + s.Path + `"}`, name: "nbd+unix://?socket=" + s.Path},
		{options: `"path":"` + s.Path + `","export":""`, name: "nbd+unix:///?socket=" + s.Path},
		{options: `"server":{"type":"inet","host":"127.0.0.1","port":"` + port + `","keep-alive":true},"export":"a"`, name: "nbd://127.0.0.1:" + port + "/a"},
		{options: `"host":"127.0.0.1","port":"` + port + `"`, name: "nbd://127.0.0.1:" + port},
		{options: `"server":{"type":"fd","str":"it"}`, name: `json:{"server.str": "it", "driver": "nbd", "server.type": "fd"}`},
		{
			options: `"server":{"type":"unix","path":"` + s.Path + `"},"export":"` + strings.Repeat("x", 4096) + `"`,
			name:    `json:{"server.path": "` + s.Path + `", "driver": "nbd", "export": "` + strings.Repeat("x", 4096) + `", "server.type": "unix"}`,
		},
		{options: `"server":{"type":"fd","str":"other"}`, err: "not it"},
		{options: `"server":{"type":"fd","str":"it"},"tls-creds":"t"`, err: "No TLS credentials with id 't'"},
		{options: `"x-dirty-bitmap":"qemu:x"`, err: "NBD server address missing"},
		{options: `"port":"1"`, err: "NBD server address missing"},
		{options: `"path":"x","port":"1"`, err: "port may not be used without host"},
		{options: `"path":"x","host":"1"`, err: "path and host may not be used at the same time"},
		{options: `"path":"x","server":{"type":"unix","path":"x"}`, err: "Cannot use 'server' and path/host/port at the same time"},
		{options: `"server":{"path":"x"}`, err: "Parameter 'type' is missing"},
		{options: `"server":{"type":"foo"}`, err: "Parameter 'type' does not accept value 'foo'"},
		{options: `"server":{"type":"unix"}`, err: "Parameter 'path' is missing"},
		{options: `"server":{"type":"inet","host":"x"}`, err: "Parameter 'port' is missing"},
		{options: `"server":{"type":"inet","host":"x","port":"1","foo":"1"}`, err: "Parameter 'foo' is unexpected"},
		{options: `"server":{"type":"inet","host":"x","port":"1","to":"x"}`, err: "Parameter 'to' expects integer"},
		{options: `"server":{"type":"unix","path":"x","abstract":"foo"}`, err: "Parameter 'abstract' expects 'on' or 'off'"},
		{options: `"path":"x","reconnect-delay":"x"`, err: "Parameter 'reconnect-delay' expects a number"},
		{options: `"path":"x","open-timeout":"18446744073709551616"`, err: "Value '18446744073709551616' is too large for parameter 'open-timeout'"},
		{options: `"path":"x","export":"` + strings.Repeat("x", 4097) + `"`, err: "export name too long to send to server"},
		{options: `"path":"x","x-dirty-bitmap":"` + strings.Repeat("x", 4097) + `"`, err: "x-dirty-bitmap query too long to send to server"},
		{options: `"path":"` + s.Path + `","foo":1`, err: "Block protocol 'nbd' doesn't support the option 'foo'"},
	} {
		what := c.options[:min(len(c.options), 80)]
		// The descriptor for TLS is another one.
		if strings.Contains(c.options, "tls-creds") {
			if fds[0], err = syscall.Dup(1); err != nil {
				t.Fatal(err)
			}
		}
		n, err := b.TryAdd(`{"driver":"nbd","node-name":"n0",` + c.options + `}`)
		expect(t, what, err, c.err)
		if err == nil {
			if n.Filename() != c.name {
				t.Errorf("%s: %.200s, want %.200s", what, n.Filename(), c.name)
			}
			b.Delete("n0")
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{Option: func(o nbd.Option, _ []byte) []byte {
		if o != nbd.OptStartTLS {
			return nil
		}
		return nbdtest.Reply(o, nbd.RepAck, nil)
	}})
	var started []string
	b := drivertest.NewWith(t, block.Config{
		Drivers: []*block.Driver{driver.Driver()},
		TLSClient: func(id string) (block.TLSStarter, error) {
			return func(conn net.Conn, hostname string) (net.Conn, error) {
				started = append(started, id+" for "+hostname)
				return struct{ net.Conn }{conn}, nil
			}, nil
		},
	})
	for _, more := range []string{`"tls-creds":"t"`, `"tls-creds":"t","tls-hostname":"h"`} {
		blk := b.Use(b.Add(node(s.Path, more)))
		data := random(100_000)
		write(t, blk, 1000, data)
		holds(t, blk, 1000, data)
		b.Drop(blk)
		b.Delete("n0")
	}
	if got := strings.Join(started, ","); got != "t for ,t for h" {
		t.Error(got)
	}
}

// TestInParallel has many users' requests under way at the same time.
func TestInParallel(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{Mode: nbd.Extended, Flags: able})
	_, blk := use(t, s, "")
	done := make(chan error)
	for i := range 16 {
		go func() {
			for j := range 50 {
				data := bytes.Repeat([]byte{byte(i + j)}, 4096)
				if err := blk.Pwritev(aio.Outside, int64(i*4096), block.Vec{data}, 0); err != nil {
					done <- err
					return
				}
				got := make([]byte, 4096)
				if err := blk.Preadv(aio.Outside, int64(i*4096), block.Vec{got}); err != nil || !bytes.Equal(got, data) {
					done <- fmt.Errorf("other bytes, %v", err)
					return
				}
			}
			done <- nil
		}()
	}
	for range 16 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestContext moves a node to an iothread and back while it is used.
func TestContext(t *testing.T) {
	t.Parallel()
	s := nbdtest.Listen(t, diskSize, nbdtest.Script{})
	b, blk := use(t, s, "")
	ctx := b.Graph.NewContext("t0")
	for _, to := range []*aio.Context{ctx, b.Graph.Main()} {
		b.Main(func(l *aio.Lock) {
			if err := blk.Node().SetContext(l, to); err != nil {
				t.Error(err)
			}
		})
		data := random(5000)
		write(t, blk, 512, data)
		holds(t, blk, 512, data)
	}
}
