package nbd_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
)

// modes are all modes of transmission.
var modes = []nbd.Mode{nbd.Simple, nbd.Structured, nbd.Extended}

func modeName(m nbd.Mode) string { return [...]string{"simple", "structured", "extended"}[m] }

// enterSteps are those of a client that behaves.
func enterSteps(mode nbd.Mode, name string, blockSizes bool, contexts ...string) []step {
	steps := []step{{say: clientFlags(3)}}
	switch mode {
	case nbd.Structured:
		steps = append(steps, opt(nbd.OptStructuredReply, nil))
	case nbd.Extended:
		steps = append(steps, opt(nbd.OptExtendedHeaders, nil))
	}
	if mode > nbd.Simple && len(contexts) > 0 {
		steps = append(steps, opt(nbd.OptSetMetaContext, metaData(name, contexts...)))
	}
	var infos []nbd.InfoType
	if blockSizes {
		infos = []nbd.InfoType{nbd.InfoBlockSize}
	}
	return append(steps, opt(nbd.OptGo, infoData(name, infos...)))
}

// enter brings a new connection to transmission.
func (p *pair) enter(t *testing.T, mode nbd.Mode, name string, blockSizes bool, contexts ...string) *connection {
	t.Helper()
	c := p.connect(t)
	for _, s := range enterSteps(mode, name, blockSizes, contexts...) {
		c.send(s.say)
		if s.read == nil {
			continue
		}
		if diff := c.compare(s.read); diff != nil {
			t.Fatalf("%q:\n%v", s.say, diff)
		}
	}
	c.setMode(mode)
	return c
}

// exchange sends a request to both and compares the replies; false if the
// connection is of no use any more.
func (c *connection) exchange(t *testing.T, r nbd.Request, data []byte) bool {
	t.Helper()
	c.send(c.ends[0].request(r, data))
	a := c.answers(readReply(r))
	if !bytes.Equal(a[0].raw, a[1].raw) || a[0].end != a[1].end {
		want, came := around(a[0], a[1])
		t.Errorf("%v flags %#x, offset %d, length %d:\nthe reference:\n    %v\nours:\n    %v",
			r.Command, uint16(r.Flags), r.Offset, r.Length, want, came)
	}
	return a[0].end == "" && a[1].end == ""
}

// around cuts long answers down to where they begin to differ.
func around(a, b answer) (answer, answer) {
	at := 0
	for at < len(a.raw) && at < len(b.raw) && a.raw[at] == b.raw[at] {
		at++
	}
	from := max(0, at-64)
	cut := func(x answer) answer {
		if len(x.raw) <= 400 {
			return x
		}
		return answer{x.raw[min(from, len(x.raw)):min(at+200, len(x.raw))], fmt.Sprintf("from byte %d on, %s", from, x.end)}
	}
	return cut(a), cut(b)
}

// requestData is what follows a request's header if it says the truth.
func requestData(mode nbd.Mode, r nbd.Request) []byte {
	if r.Length > nbd.MaxPayload {
		return nil
	}
	if r.Command == nbd.CmdWrite || mode == nbd.Extended && r.Flags&nbd.CmdFlagPayloadLen != 0 {
		return bytes.Repeat([]byte{byte(r.Offset>>9) | 1}, int(r.Length))
	}
	return nil
}

// TestRequests sends every command with every flag to ranges of all sorts.
func TestRequests(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	ranges := [][2]uint64{
		{0, 512}, {0, 0}, {0, 1}, {511, 2}, {4096, 65536}, {191 << 10, 130 << 10}, {0, size}, {size - 512, 512}, {size - 1, 1},
		{size, 0}, {size, 512}, {size - 512, 1024}, {size + 1, 0}, {1 << 40, 512}, {1 << 63, 512}, {1<<64 - 512, 512}, {1<<64 - 1, 1}, {1<<64 - 512, 1024},
		{0, 1 << 31}, {0, 1<<32 - 1},
	}
	flags := []nbd.CommandFlags{0, nbd.CmdFlagFUA, nbd.CmdFlagNoHole, nbd.CmdFlagDF, nbd.CmdFlagReqOne, nbd.CmdFlagFastZero, 0x80, 0x8000,
		nbd.CmdFlagFUA | nbd.CmdFlagNoHole, nbd.CmdFlagNoHole | nbd.CmdFlagFastZero}
	for _, mode := range modes {
		for _, name := range []string{"x", "ro", "", "d"} {
			t.Run(modeName(mode)+"/"+name, func(t *testing.T) {
				t.Parallel()
				p := startPair(t, standardFiles(t), standardExports...)
				contexts := []string{nbd.ContextAllocation, nbd.ContextAllocationDepth}
				c := p.enter(t, mode, name, false, contexts...)
				cookie := uint64(0)
				for command := nbd.CmdRead; command <= nbd.CmdResize+1; command++ {
					if command == nbd.CmdDisconnect {
						continue
					}
					for _, f := range flags {
						if mode == nbd.Extended && command == nbd.CmdWrite {
							f |= nbd.CmdFlagPayloadLen
						}
						for _, at := range ranges {
							cookie++
							r := nbd.Request{Command: command, Flags: f, Cookie: cookie<<32 | 0xffff, Offset: at[0], Length: at[1]}
							if !c.exchange(t, r, requestData(mode, r)) {
								c.close()
								c = p.enter(t, mode, name, false, contexts...)
							}
							if t.Failed() && cookie > 3000 {
								return
							}
						}
					}
				}
				c.close()
				p.sameFiles("c.raw", "g.raw", "d.raw")
				p.sameComplaints(t)
			})
		}
	}
}

// TestStatus asks for the status of areas near and far.
func TestStatus(t *testing.T) {
	t.Parallel()
	const tib = 1 << 40
	p := startPair(t, standardFiles(t), standardExports...)
	both := []string{nbd.ContextAllocation, nbd.ContextAllocationDepth}
	for _, c := range []struct {
		mode     nbd.Mode
		export   string
		contexts []string
		areas    [][2]uint64
	}{
		{nbd.Structured, "x", both, [][2]uint64{{0, 1 << 20}, {1000, 2000}, {192 << 10, 1}, {192<<10 - 1, 2}, {300 << 10, 100 << 10}}},
		{nbd.Extended, "x", both, [][2]uint64{{0, 1 << 20}, {1000, 2000}, {192 << 10, 1}, {192<<10 - 1, 2}, {300 << 10, 100 << 10}}},
		{nbd.Structured, "", both, [][2]uint64{{0, 1 << 20}, {1000, 2000}}},
		{nbd.Structured, "d", both[1:], [][2]uint64{{0, 1 << 20}, {1000, 2000}}},
		{nbd.Structured, "d", both[:1], [][2]uint64{{0, 1 << 20}, {1000, 2000}}},
		{nbd.Structured, "x", nil, [][2]uint64{{0, 1 << 20}, {0, 0}, {1 << 21, 0}}},
		{nbd.Extended, "x", nil, [][2]uint64{{0, 1 << 20}, {0, 0}, {1 << 21, 0}}},
		{nbd.Structured, "big", both, [][2]uint64{{0, 1<<32 - 1}, {0, 1<<32 - 512}, {1 << 32, 1<<32 - 1}, {5 << 30, 1<<32 - 4096}, {tib - 1<<20, 1 << 20},
			{tib - 1<<16, 1 << 16}, {1 << 35, 1<<32 - 1}}},
		{nbd.Extended, "big", both, [][2]uint64{{0, tib}, {0, 1 << 32}, {1 << 32, 1 << 33}, {5 << 30, tib - 5<<30}, {tib - 1<<20, 1 << 20}, {0, 1<<63 + 1},
			{0, tib + 1}, {tib, 1}, {1, tib - 1}, {1 << 35, 1 << 38}}},
	} {
		t.Run(fmt.Sprintf("%s/%s/%d", modeName(c.mode), c.export, len(c.contexts)), func(t *testing.T) {
			conn := p.enter(t, c.mode, c.export, true, c.contexts...)
			for _, at := range c.areas {
				for _, f := range []nbd.CommandFlags{0, nbd.CmdFlagReqOne} {
					conn.exchange(t, nbd.Request{Command: nbd.CmdBlockStatus, Flags: f, Cookie: 1, Offset: at[0], Length: at[1]}, nil)
				}
			}
		})
	}
}

// TestLongRequests zeroes, trims and caches more than 32 bits can say.
func TestLongRequests(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), standardExports...)
	c := p.enter(t, nbd.Extended, "big", true, nbd.ContextAllocation)
	for _, command := range []nbd.Command{nbd.CmdTrim, nbd.CmdWriteZeroes, nbd.CmdCache, nbd.CmdRead, nbd.CmdFlush} {
		for _, at := range [][2]uint64{{1 << 30, 6 << 30}, {4096, 1<<40 - 8192}, {0, 1<<40 + 1}, {0, 1 << 40}, {1, 1<<40 - 2}} {
			for _, f := range []nbd.CommandFlags{0, nbd.CmdFlagFUA} {
				if c.exchange(t, nbd.Request{Command: command, Flags: f, Cookie: at[0], Offset: at[0], Length: at[1]}, nil) {
					continue
				}
				c = p.enter(t, nbd.Extended, "big", true, nbd.ContextAllocation)
			}
			c.exchange(t, nbd.Request{Command: nbd.CmdBlockStatus, Cookie: 2, Length: 1 << 40}, nil)
		}
	}
	p.sameComplaints(t)
}

// TestStatusPayload chooses among the contexts in the request itself.
func TestStatusPayload(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), standardExports...)
	payload := func(length uint64, ids ...uint32) []byte {
		b := be.AppendUint64(nil, length)
		for _, id := range ids {
			b = be.AppendUint32(b, id)
		}
		return b
	}
	for _, contexts := range [][]string{{nbd.ContextAllocation}, {nbd.ContextAllocationDepth}, {nbd.ContextAllocation, nbd.ContextAllocationDepth}} {
		c := p.enter(t, nbd.Extended, "", true, contexts...)
		for _, data := range [][]byte{
			payload(1<<20, 0), payload(1<<20, 1), payload(1<<20, 0, 1), payload(1<<20, 1, 0), payload(1 << 20), payload(1<<20, 9), payload(1<<20, 0, 0),
			payload(1<<20, 0, 9), payload(0, 0), payload(1<<20+1, 0), payload(1<<63, 0), payload(1, 1), []byte("abcdef"), payload(1<<20, 0)[:11],
			append(payload(1<<20, 0), 0), append(payload(1<<20, 0), 0, 0), {}, payload(1<<20, make([]uint32, 1000)...), make([]byte, 1<<20),
		} {
			for _, offset := range []uint64{0, 4096, 1 << 20, 1 << 63} {
				for _, f := range []nbd.CommandFlags{0, nbd.CmdFlagReqOne, nbd.CmdFlagFUA} {
					r := nbd.Request{Command: nbd.CmdBlockStatus, Flags: f | nbd.CmdFlagPayloadLen, Cookie: 3, Offset: offset, Length: uint64(len(data))}
					if !c.exchange(t, r, data) {
						c = p.enter(t, nbd.Extended, "", true, contexts...)
					}
				}
			}
		}
		// A payload where none belongs, and none where one does.
		for _, command := range []nbd.Command{nbd.CmdRead, nbd.CmdFlush, nbd.CmdTrim, nbd.CmdCache, nbd.CmdWriteZeroes, 77} {
			for _, n := range []int{0, 1, 6, 512, 1 << 20} {
				r := nbd.Request{Command: command, Flags: nbd.CmdFlagPayloadLen, Cookie: 4, Offset: uint64(n) << 20, Length: uint64(n)}
				if !c.exchange(t, r, make([]byte, n)) {
					c = p.enter(t, nbd.Extended, "", true, contexts...)
				}
			}
		}
		c.exchange(t, nbd.Request{Command: nbd.CmdWrite, Cookie: 5, Length: 512}, make([]byte, 512))
		c.close()
	}
	p.sameFiles("g.raw")
	p.sameComplaints(t)
}

// TestLostClients says what ends a connection.
func TestLostClients(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), standardExports...)
	for _, mode := range modes {
		request := func(r nbd.Request, data []byte) []byte { return append(mode.AppendRequest(nil, r), data...) }
		write := nbd.Request{Command: nbd.CmdWrite, Cookie: 1, Length: 4096}
		if mode == nbd.Extended {
			write.Flags = nbd.CmdFlagPayloadLen
		}
		tooLong := write
		tooLong.Length = nbd.MaxPayload + 1
		for _, c := range []struct {
			name string
			say  []byte
		}{
			{"nothing", nil},
			{"half a header", request(nbd.Request{Cookie: 1, Length: 512}, nil)[:10]},
			{"magic wrong", make([]byte, 32)},
			{"magic wrong, half a header", make([]byte, 20)},
			{"magic of another mode", modes[(mode/2*2+2)%4].AppendRequest(nil, nbd.Request{Command: nbd.CmdFlush, Cookie: 1, Length: 0})},
			{"disconnect", request(nbd.Request{Command: nbd.CmdDisconnect, Cookie: 1}, nil)},
			{"disconnect with odd members", request(nbd.Request{Command: nbd.CmdDisconnect, Flags: 0xfff, Offset: 1, Length: 1}, nil)},
			{"half a payload", request(write, make([]byte, 1000))},
			{"no payload", request(write, nil)},
			{"half a selection", request(nbd.Request{Command: nbd.CmdBlockStatus, Flags: nbd.CmdFlagPayloadLen, Cookie: 1, Length: 12}, make([]byte, 6))},
			{"half a payload that nobody reads", request(nbd.Request{Command: nbd.CmdTrim, Flags: nbd.CmdFlagPayloadLen, Cookie: 1, Length: 12}, make([]byte, 6))},
			{"half a payload of a bad write", request(nbd.Request{Command: nbd.CmdWrite, Flags: write.Flags, Cookie: 1, Offset: 1 << 40, Length: 12}, make([]byte, 6))},
			{"a selection too long", request(nbd.Request{Command: nbd.CmdBlockStatus, Flags: nbd.CmdFlagPayloadLen, Cookie: 1, Length: nbd.MaxPayload + 1}, make([]byte, 6))},
			{"a payload of a read too long", request(nbd.Request{Command: nbd.CmdRead, Flags: nbd.CmdFlagPayloadLen, Cookie: 1, Length: nbd.MaxPayload + 1}, make([]byte, 6))},
			{"payload too long", request(tooLong, make([]byte, 100))},
		} {
			t.Run(modeName(mode)+"/"+c.name, func(t *testing.T) {
				// Without a context the reference dies of half a selection.
				conn := p.enter(t, mode, "x", false, nbd.ContextAllocation)
				conn.send(c.say)
				if diff := conn.compare(readRest); diff != nil {
					t.Error(diff)
				}
				for _, w := range conn.ends {
					_ = w.Conn.(interface{ CloseWrite() error }).CloseWrite() // it may be closed already
				}
				if diff := conn.compare(readRest); diff != nil {
					t.Errorf("behind the end: %v", diff)
				}
			})
		}
	}
	p.sameFiles("c.raw")
	p.sameComplaints(t)
}
