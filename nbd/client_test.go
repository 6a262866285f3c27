package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/nbd/nbdtest"
)

const diskSize = 1 << 20

// connect is a client of a new server.
func connect(tb testing.TB, script nbdtest.Script) (*nbdtest.Server, *nbd.Client) {
	tb.Helper()
	s := nbdtest.Listen(tb, diskSize, script)
	return s, clientOf(tb, s, s.Dial())
}

func clientOf(tb testing.TB, s *nbdtest.Server, conn net.Conn) *nbd.Client {
	tb.Helper()
	session, err := nbd.ClientHandshake(conn, wish(""))
	if err != nil {
		tb.Fatal(err)
	}
	c := nbd.NewClient(session)
	tb.Cleanup(c.Close)
	s.TakeLog()
	return c
}

var modes = map[string]nbd.Mode{"simple": nbd.Simple, "structured": nbd.Structured, "extended": nbd.Extended}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// cut cuts b into buffers of odd lengths, some of them empty.
func cut(b []byte) [][]byte {
	v := [][]byte{{}}
	for n := 1; len(b) > 0; n = n*3 + 1 {
		n := min(n, len(b))
		v = append(v, b[:n], nil)
		b = b[n:]
	}
	return v
}

func TestClientRequests(t *testing.T) {
	t.Parallel()
	for name, mode := range modes {
		for _, wrap := range []bool{false, true} {
			t.Run(fmt.Sprint(name, wrap), func(t *testing.T) {
				t.Parallel()
				s := nbdtest.Listen(t, diskSize, nbdtest.Script{Mode: mode, Context: nbd.ContextAllocation})
				conn := s.Dial()
				if wrap {
					conn = wrapped{conn}
				}
				c := clientOf(t, s, conn)
				data := random(300_000)
				if err := c.Write(5000, cut(data), nbd.CmdFlagFUA); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(s.Bytes()[5000:305_000], data) {
					t.Error("the disk has other data")
				}
				got := make([]byte, len(data))
				if err := c.Read(5000, cut(got)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("other data was read, %v", err)
				}
				for _, err := range []error{
					c.WriteZeroes(5000, 1000, nbd.CmdFlagNoHole), c.Trim(7000, 1000, 0), c.Flush(),
				} {
					if err != nil {
						t.Error(err)
					}
				}
				clear(data[:1000])
				clear(data[2000:3000])
				if !bytes.Equal(s.Bytes()[5000:305_000], data) {
					t.Error("the zeroes are not where they should be")
				}
				if err := c.Read(diskSize-1, [][]byte{make([]byte, 2)}); !errors.Is(err, syscall.EINVAL) {
					t.Errorf("reading behind the end: %v", err)
				}
				log := strings.Join(s.TakeLog(), ",")
				write := "write/1"
				if mode == nbd.Extended {
					write = "write/21"
				}
				want := write + " 5000+300000,read 5000+300000,write zeroes/2 5000+1000,trim 7000+1000,flush 0+0,read 1048575+2"
				if log != want {
					t.Errorf("%s\nwant %s", log, want)
				}
				if mode == nbd.Simple {
					return
				}
				extents := make([]nbd.Extent, 2)
				n, err := c.BlockStatus(0, 4096, nbd.CmdFlagReqOne, extents)
				if err != nil || n != 1 || extents[0] != (nbd.Extent{Length: 4096}) {
					t.Errorf("%d %v %v", n, extents, err)
				}
			})
		}
	}
}

// TestClientInParallel has more requests than places, from many goroutines.
func TestClientInParallel(t *testing.T) {
	t.Parallel()
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c := connect(t, nbdtest.Script{Mode: mode})
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() {
					const n = 4096
					data, got := bytes.Repeat([]byte{byte(i)}, n), make([]byte, n)
					for range 10 {
						if err := c.Write(uint64(i*n), cut(data), 0); err != nil {
							t.Error(err)
						}
						clear(got)
						if err := c.Read(uint64(i*n), cut(got)); err != nil || !bytes.Equal(got, data) {
							t.Error("other data was read", err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestClientOutOfOrder answers three reads in an order of its own, in pieces
// and mixed.
func TestClientOutOfOrder(t *testing.T) {
	t.Parallel()
	const n = 20_000
	var mu sync.Mutex
	var held []nbd.Request
	data := random(3 * n)
	s, c := connect(t, nbdtest.Script{Mode: nbd.Structured})
	s.Change(func(script *nbdtest.Script) {
		script.Request = func(r nbd.Request, _ []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			if r.Command != nbd.CmdRead {
				return nil
			}
			if held = append(held, r); len(held) < 3 {
				return nbdtest.Data(nbd.Structured, r, 0, r.Offset+n/2, data[r.Offset+n/2:r.Offset+n])
			}
			out := nbdtest.Data(nbd.Structured, r, 0, r.Offset+n/2, data[r.Offset+n/2:r.Offset+n])
			for _, r := range slices.Backward(held) {
				out = append(out, nbdtest.Hole(nbd.Structured, r, 0, r.Offset, 10)...)
				out = append(out, nbdtest.Data(nbd.Structured, r, nbd.ReplyDone, r.Offset+10, data[r.Offset+10:r.Offset+n/2])...)
			}
			return out
		}
	})
	for i := range 3 {
		clear(data[i*n : i*n+10])
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			got := bytes.Repeat([]byte{0xee}, n)
			if err := c.Read(uint64(i*n), cut(got)); err != nil || !bytes.Equal(got, data[i*n:(i+1)*n]) {
				t.Error("other data was read", err)
			}
		})
	}
	wg.Wait()
}

// misbehaviour is a reply to a read of 4096 bytes at 0 by a server with
// structured replies; lost says that the client then gives the connection up.
var misbehaviour = []struct {
	name   string
	answer func(r nbd.Request) []byte
	errno  syscall.Errno
	lost   bool
	cause  string
}{
	{name: "error", answer: func(r nbd.Request) []byte { return nbdtest.Failure(nbd.Structured, r, 28, "full") }, errno: syscall.ENOSPC},
	{name: "unknown error", answer: func(r nbd.Request) []byte { return nbdtest.Failure(nbd.Structured, r, 999, "") }, errno: syscall.EINVAL},
	{
		name: "error of a new kind", errno: syscall.EPERM,
		answer: func(r nbd.Request) []byte { return chunk(r, 1<<15+77, nbd.ReplyDone, 0, 0, 0, 1, 0, 0, 9) },
	},
	{
		name: "error at an offset", errno: syscall.EIO,
		answer: func(r nbd.Request) []byte {
			return chunk(r, nbd.ReplyErrorOffset, nbd.ReplyDone, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
		},
	},
	{
		name: "error, then data", errno: syscall.ENOMEM,
		answer: func(r nbd.Request) []byte {
			b := chunk(r, nbd.ReplyError, 0, 0, 0, 0, 12, 0, 0)
			return append(b, nbdtest.Data(nbd.Structured, r, nbd.ReplyDone, 0, make([]byte, 4096))...)
		},
	},
	{name: "hang up", answer: func(nbd.Request) []byte { return []byte{} }, errno: syscall.EIO, lost: true, cause: "unexpected EOF"},
	{
		name: "magic", answer: func(nbd.Request) []byte { return make([]byte, 100) },
		errno: syscall.EIO, lost: true, cause: nbd.ErrMagic.Error(),
	},
	{
		name: "cookie",
		answer: func(r nbd.Request) []byte {
			r.Cookie ^= 1 << 20
			return nbdtest.Data(nbd.Structured, r, 1, 0, make([]byte, 4096))
		},
		errno: syscall.EIO, lost: true, cause: "reply to a request that nobody made, cookie 0x110000",
	},
	{
		name: "place",
		answer: func(r nbd.Request) []byte {
			r.Cookie |= 0xffff
			return nbdtest.Data(nbd.Structured, r, 1, 0, make([]byte, 4096))
		},
		errno: syscall.EIO, lost: true, cause: "reply to a request that nobody made, cookie 0x1ffff",
	},
	{
		name: "simple reply", answer: func(r nbd.Request) []byte { return nbd.AppendSimpleReply(nil, r.Cookie, 0) },
		errno: syscall.EINVAL, lost: true, cause: "simple reply to a read in structured mode",
	},
	{
		name: "outside", answer: func(r nbd.Request) []byte { return nbdtest.Data(nbd.Structured, r, 1, 1, make([]byte, 4096)) },
		errno: syscall.EINVAL, lost: true, cause: "4096 bytes at 1 in the reply to a read of 4096 bytes at 0",
	},
	{
		name: "hole outside", answer: func(r nbd.Request) []byte { return nbdtest.Hole(nbd.Structured, r, 1, 1<<63, 1) },
		errno: syscall.EINVAL, lost: true, cause: "1 bytes at 9223372036854775808 in the reply to a read of 4096 bytes at 0",
	},
	{
		name: "hole of nothing", answer: func(r nbd.Request) []byte { return nbdtest.Hole(nbd.Structured, r, 1, 0, 0) },
		errno: syscall.EINVAL, lost: true, cause: "0 bytes at 0 in the reply to a read of 4096 bytes at 0",
	},
	{
		name: "hole length", answer: func(r nbd.Request) []byte { return chunk(r, nbd.ReplyOffsetHole, 1, 0) },
		errno: syscall.EINVAL, lost: true, cause: "hole chunk of 1 bytes",
	},
	{
		name: "data without data", answer: func(r nbd.Request) []byte { return nbdtest.Data(nbd.Structured, r, 1, 0, nil) },
		errno: syscall.EINVAL, lost: true, cause: "data chunk of 8 bytes",
	},
	{
		name: "huge",
		answer: func(r nbd.Request) []byte {
			return nbd.Structured.AppendChunk(nil, nbd.Chunk{Type: nbd.ReplyError, Cookie: r.Cookie, Length: 1<<32 - 1})
		},
		errno: syscall.EINVAL, lost: true, cause: "error chunk of 4294967295 bytes",
	},
	{
		name: "twice",
		answer: func(r nbd.Request) []byte {
			b := nbdtest.Data(nbd.Structured, r, 0, 0, make([]byte, 4096))
			return append(b, nbdtest.Data(nbd.Structured, r, 1, 4095, make([]byte, 1))...)
		},
		errno: syscall.EINVAL, lost: true, cause: "1 bytes at 4095 have come twice, or in too many pieces",
	},
	{
		name: "missing", answer: func(r nbd.Request) []byte { return nbdtest.Data(nbd.Structured, r, 1, 0, make([]byte, 4095)) },
		errno: syscall.EINVAL, lost: true, cause: "a read of 4096 bytes at 0 has ended before all data have come",
	},
	{
		name: "empty without end", answer: func(r nbd.Request) []byte { return chunk(r, nbd.ReplyNone, 0) },
		errno: syscall.EINVAL, lost: true, cause: "empty chunk with 0 bytes and flags 0x0",
	},
	{
		name: "empty with data", answer: func(r nbd.Request) []byte { return chunk(r, nbd.ReplyNone, 1, 1) },
		errno: syscall.EINVAL, lost: true, cause: "empty chunk with 1 bytes and flags 0x1",
	},
	{
		name: "error zero", answer: func(r nbd.Request) []byte { return chunk(r, nbd.ReplyError, 1, 0, 0, 0, 0, 0, 0) },
		errno: syscall.EINVAL, lost: true, cause: "error chunk without an error",
	},
	{
		name: "short error", answer: func(r nbd.Request) []byte { return chunk(r, nbd.ReplyError, 1, 0, 0, 0, 5) },
		errno: syscall.EINVAL, lost: true, cause: "error chunk of 4 bytes",
	},
	{
		name: "long message", answer: func(r nbd.Request) []byte { return chunk(r, nbd.ReplyError, 1, 0, 0, 0, 5, 0, 9, 'x') },
		errno: syscall.EINVAL, lost: true, cause: "error chunk of 7 bytes with a message of 9",
	},
	{
		name: "status", answer: func(r nbd.Request) []byte { return nbdtest.Status(nbd.Structured, r, 7, nbd.Extent{Length: 1}) },
		errno: syscall.EINVAL, lost: true, cause: "unexpected chunk of type 5 in the reply to a read request",
	},
}

func chunk(r nbd.Request, kind nbd.ReplyType, flags nbd.ReplyFlags, data ...byte) []byte {
	return nbdtest.Chunk(nbd.Structured, r, kind, flags, data)
}

func TestClientMisbehaviour(t *testing.T) {
	t.Parallel()
	for _, m := range misbehaviour {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			_, c := connect(t, nbdtest.Script{Mode: nbd.Structured, Request: func(r nbd.Request, _ []byte) []byte { return m.answer(r) }})
			err := c.Read(0, [][]byte{make([]byte, 4096)})
			var lost *nbd.LostError
			switch isLost := errors.As(err, &lost); {
			case isLost != m.lost:
				t.Errorf("%v", err)
			case isLost && (lost.Errno != m.errno || lost.Cause.Error() != m.cause):
				t.Errorf("%v: %v, want %v: %s", lost.Errno, lost.Cause, m.errno, m.cause)
			case !isLost && !errors.Is(err, m.errno):
				t.Errorf("%v, want %v", err, m.errno)
			}
			if !m.lost {
				return
			}
			if err := c.Flush(); !errors.As(err, &lost) || lost.Errno != syscall.EIO || lost.Cause.Error() != m.cause {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

// TestClientAllWaitersLose: one wrong reply ends every request under way.
func TestClientAllWaitersLose(t *testing.T) {
	t.Parallel()
	const n = 20
	arrived := 0
	_, c := connect(t, nbdtest.Script{Mode: nbd.Structured, Request: func(r nbd.Request, _ []byte) []byte {
		if arrived++; arrived < n {
			return chunk(r, nbd.ReplyError, 0, 0, 0, 0, 5, 0, 0) // more is to come
		}
		return make([]byte, 64)
	}})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			var lost *nbd.LostError
			if err := c.Read(0, [][]byte{make([]byte, 512)}); !errors.As(err, &lost) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestClientBlockStatus(t *testing.T) {
	t.Parallel()
	e := func(length, flags uint64) nbd.Extent { return nbd.Extent{Length: length, Flags: flags} }
	for name, c := range map[string]struct {
		mode   nbd.Mode
		answer func(r nbd.Request) []byte
		want   []nbd.Extent
		err    string
	}{
		"several": {nbd.Structured, func(r nbd.Request) []byte {
			return nbdtest.Status(nbd.Structured, r, 7, e(512, 1), e(512, 2), e(1024, 3))
		}, []nbd.Extent{e(512, 1), e(512, 2)}, ""},
		"extended":   {nbd.Extended, func(r nbd.Request) []byte { return nbdtest.Status(nbd.Extended, r, 7, e(1<<40, 1<<33)) }, []nbd.Extent{e(1<<40, 1<<33)}, ""},
		"nothing":    {nbd.Structured, func(r nbd.Request) []byte { return chunk(r, nbd.ReplyNone, 1) }, nil, "input/output error"},
		"refused":    {nbd.Structured, func(r nbd.Request) []byte { return nbd.AppendSimpleReply(nil, r.Cookie, 22) }, nil, "invalid argument"},
		"empty":      {nbd.Structured, func(r nbd.Request) []byte { return nbdtest.Status(nbd.Structured, r, 7) }, nil, "connection lost: block status of 4 bytes"},
		"of nothing": {nbd.Structured, func(r nbd.Request) []byte { return nbdtest.Status(nbd.Structured, r, 7, e(0, 0)) }, nil, "connection lost: block status of nothing"},
		"context":    {nbd.Structured, func(r nbd.Request) []byte { return nbdtest.Status(nbd.Structured, r, 8, e(1, 0)) }, nil, "connection lost: block status of context 8 in place of 7"},
		"kind": {nbd.Extended, func(r nbd.Request) []byte {
			return nbdtest.Chunk(nbd.Extended, r, nbd.ReplyBlockStatus, 1, make([]byte, 12))
		}, nil, "connection lost: unexpected chunk of type 5 in the reply to a block status request"},
		"twice": {nbd.Structured, func(r nbd.Request) []byte {
			b := nbdtest.Status(nbd.Structured, r, 7, e(1, 0))
			binary.BigEndian.PutUint16(b[4:], 0)
			return append(b, nbdtest.Status(nbd.Structured, r, 7, e(1, 0))...)
		}, nil, "connection lost: more than one chunk with block status"},
	} {
		_, client := connect(t, nbdtest.Script{Mode: c.mode, Context: nbd.ContextAllocation, Request: func(r nbd.Request, _ []byte) []byte { return c.answer(r) }})
		extents := make([]nbd.Extent, 2)
		n, err := client.BlockStatus(0, 4096, 0, extents)
		if text(err) != c.err || err == nil && !slices.Equal(extents[:n], c.want) {
			t.Errorf("%s: %v %v, want %v %s", name, extents[:n], err, c.want, c.err)
		}
	}
}

func TestClientClose(t *testing.T) {
	t.Parallel()
	s, c := connect(t, nbdtest.Script{})
	c.Close()
	c.Close()
	if err := c.Flush(); text(err) != "connection lost: use of closed network connection" {
		t.Error(err)
	}
	s.Finish()
	if log := strings.Join(s.TakeLog(), ","); log != "disconnect 0+0" {
		t.Error(log)
	}
}

// TestClientCloseWhileWaiting: a request whose answer never comes is lost.
func TestClientCloseWhileWaiting(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	_, c := connect(t, nbdtest.Script{Mode: nbd.Structured, Request: func(r nbd.Request, _ []byte) []byte {
		if r.Command == nbd.CmdRead {
			close(arrived)
		}
		return chunk(r, nbd.ReplyError, 0, 0, 0, 0, 5, 0, 0)
	}})
	var wg sync.WaitGroup
	wg.Go(func() {
		var lost *nbd.LostError
		if err := c.Read(0, [][]byte{make([]byte, 512)}); !errors.As(err, &lost) {
			t.Error(err)
		}
	})
	<-arrived
	c.Close()
	wg.Wait()
}

// TestClientAllocations: requests allocate nothing.
func TestClientAllocations(t *testing.T) {
	c, stop := minimal(t, nbd.Structured)
	defer stop()
	v := [][]byte{make([]byte, 4096), make([]byte, 16<<10)}
	if n := testing.AllocsPerRun(200, func() {
		if err := c.Read(0, v); err != nil {
			t.Fatal(err)
		}
		if err := c.Write(0, v, 0); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}

// minimal is a client of a server that answers everything at once with as
// little as possible, and allocates nothing.
func minimal(tb testing.TB, mode nbd.Mode) (c *nbd.Client, stop func()) {
	tb.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	ours, theirs := socket(tb, fds[0]), socket(tb, fds[1])
	var wg sync.WaitGroup
	wg.Go(func() { serveMinimally(theirs, mode) })
	c = nbd.NewClient(&nbd.ClientSession{Conn: ours, Mode: mode})
	return c, func() {
		c.Close()
		theirs.Close()
		wg.Wait()
	}
}

func serveMinimally(conn net.Conn, mode nbd.Mode) {
	in := make([]byte, 256<<10)
	out := make([]byte, 0, 256<<10)
	have := 0
	for {
		n, err := conn.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		at := 0
		for have-at >= mode.RequestHeaderSize() {
			r, err := mode.ParseRequest(in[at:])
			size := mode.RequestHeaderSize()
			if err != nil || r.Command == nbd.CmdDisconnect {
				return
			}
			if r.Command == nbd.CmdWrite {
				size += int(r.Length)
			}
			if have-at < size {
				break
			}
			at += size
			switch {
			case r.Command != nbd.CmdRead:
				out = nbd.AppendSimpleReply(out, r.Cookie, 0)
			case mode == nbd.Simple:
				out = nbd.AppendSimpleReply(out, r.Cookie, 0)
				out = out[:len(out)+int(r.Length)]
			default:
				out = mode.AppendChunk(out, nbd.Chunk{Flags: nbd.ReplyDone, Type: nbd.ReplyOffsetData, Cookie: r.Cookie, Length: r.Length + 8})
				out = binary.BigEndian.AppendUint64(out, r.Offset)
				out = out[:len(out)+int(r.Length)]
			}
		}
		have = copy(in, in[at:have])
		if _, err := conn.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}
