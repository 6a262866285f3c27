package nbd_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
)

// TestExtents compares how reads and statuses are cut into extents, which
// depends on everything that was asked and done before. The file system has its
// moods, so only what differs again counts.
func TestExtents(t *testing.T) {
	t.Parallel()
	for _, mode := range modes[1:] {
		for _, name := range []string{"x", "", "d"} {
			t.Run(modeName(mode)+"/"+name, func(t *testing.T) {
				t.Parallel()
				requests := append([]nbd.Request{
					// Data behind an extent that is remembered is another chunk.
					writeRequest(mode, 0x66000, 0x32000),
					{Command: nbd.CmdBlockStatus, Offset: 0x3f000, Length: 0x34000},
					writeRequest(mode, 0x98000, 0x9000),
					{Command: nbd.CmdRead, Offset: 0x86000, Length: 0x29000},
				}, extentRequests(rand.New(rand.NewPCG(*seed, 7)), mode)...)
				var diff error
				for range 3 {
					if diff = compareExtents(t, mode, name, requests); diff == nil {
						return
					}
				}
				t.Error(diff)
			})
		}
	}
}

// extentRequests makes holes and data, and asks for them.
func extentRequests(r *rand.Rand, mode nbd.Mode) []nbd.Request {
	const size = 1 << 20
	requests := make([]nbd.Request, 300)
	for i := range requests {
		q := nbd.Request{
			Command: pick(r, nbd.CmdRead, nbd.CmdRead, nbd.CmdWrite, nbd.CmdWriteZeroes, nbd.CmdTrim, nbd.CmdBlockStatus, nbd.CmdFlush),
			Offset:  r.Uint64N(size) &^ 4095,
		}
		q.Length = min((1+r.Uint64N(60))<<12, size-q.Offset)
		if r.IntN(3) == 0 {
			q.Offset += r.Uint64N(4096)
			q.Length = min(q.Length, size-q.Offset) - r.Uint64N(300)
		}
		switch q.Command {
		case nbd.CmdWriteZeroes:
			q.Flags = pick(r, 0, nbd.CmdFlagNoHole, nbd.CmdFlagFastZero)
		case nbd.CmdWrite:
			q = writeRequest(mode, q.Offset, q.Length)
		}
		requests[i] = q
	}
	return requests
}

func writeRequest(mode nbd.Mode, offset, length uint64) nbd.Request {
	r := nbd.Request{Command: nbd.CmdWrite, Offset: offset, Length: length}
	if mode == nbd.Extended {
		r.Flags = nbd.CmdFlagPayloadLen
	}
	return r
}

func compareExtents(t *testing.T, mode nbd.Mode, name string, requests []nbd.Request) error {
	t.Helper()
	p := startPair(t, standardFiles(t), standardExports...)
	c := p.enter(t, mode, name, true, nbd.ContextAllocation, nbd.ContextAllocationDepth)
	defer c.close()
	for i, q := range requests {
		c.send(c.ends[0].request(q, requestData(mode, q)))
		if diff := c.compare(readReply(q)); diff != nil {
			want, came := around(diff.want, diff.came)
			return fmt.Errorf("request %d, %v at %#x, length %#x:\nthe reference:\n    %v\nours:\n    %v", i, q.Command, q.Offset, q.Length, want, came)
		}
	}
	return nil
}
