package nbd_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
)

var (
	seed      = flag.Uint64("seed", 1, "what random conversations are made from")
	sequences = flag.Int("sequences", 60, "how many random conversations there are")
)

// TestRandom holds random conversations with both: options and requests, good
// and bad, and garbled bytes at the end. What was said is printed with a
// difference.
func TestRandom(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), standardExports...)
	for n := range *sequences {
		ok := t.Run(fmt.Sprintf("seed=%d/%d", *seed, n), func(t *testing.T) {
			talk := &talk{t: t, r: rand.New(rand.NewPCG(*seed, uint64(n))), c: p.connect(t)}
			defer talk.c.close()
			talk.hold()
		})
		select {
		case <-p.daemons[0].Done():
			// It has bugs which we do not imitate.
			t.Logf("the reference died of conversation %d: %s", n, p.daemons[0].Output())
			p = startPair(t, standardFiles(t), standardExports...)
		default:
		}
		if !ok {
			return
		}
	}
	p.sameFiles("c.raw", "g.raw", "d.raw")
}

// talk is one random conversation.
type talk struct {
	t        *testing.T
	r        *rand.Rand
	c        *connection
	said     [][]byte
	mode     nbd.Mode
	contexts bool
	entered  bool
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// chance is true once in n times.
func (k *talk) chance(n int) bool { return k.r.IntN(n) == 0 }

func (k *talk) hold() {
	if !k.say(clientFlags(pick[uint32](k.r, 3, 3, 3, 3, 3, 3, 3, 1, 1, 2, 0, 7)), nil) {
		return
	}
	for range 3 + k.r.IntN(8) {
		if !k.option() {
			return
		}
	}
	if !k.entered && !k.enter() {
		return
	}
	for range k.r.IntN(20) {
		if !k.request() {
			return
		}
	}
	k.garble()
}

// say sends and compares the answers; false when the connection has ended or
// the two disagree.
func (k *talk) say(b []byte, read func(*wire) ([]byte, error)) bool {
	k.said = append(k.said, b)
	k.c.send(b)
	if read == nil {
		return true
	}
	a := k.c.answers(read)
	if string(a[0].raw) == string(a[1].raw) && a[0].end == a[1].end {
		return a[0].end == ""
	}
	var said strings.Builder
	for _, b := range k.said {
		fmt.Fprintf(&said, "    %q\n", shorten(b))
	}
	want, came := around(a[0], a[1])
	k.t.Errorf("said:\n%sthe reference:\n    %v\nours:\n    %v", said.String(), want, came)
	return false
}

func (k *talk) name() string {
	return pick(k.r, "x", "x", "x", "ro", "", "big", "d", oddName, "nope", "x\x00", strings.Repeat("n", 255), strings.Repeat("z", k.r.IntN(5000)))
}

func (k *talk) queries() []string {
	all := []string{"base:allocation", "base:allocation", "qemu:allocation-depth", "base:", "qemu:", "qemu:dirty-bitmap:b", "nope:", "", ":",
		"base:allocation\x00", strings.Repeat("q", k.r.IntN(6000))}
	q := make([]string, k.r.IntN(4))
	for i := range q {
		q[i] = pick(k.r, all...)
	}
	return q
}

// option says one option, mostly a good one.
func (k *talk) option() bool {
	o := pick(k.r, nbd.OptList, nbd.OptInfo, nbd.OptInfo, nbd.OptStructuredReply, nbd.OptExtendedHeaders, nbd.OptListMetaContext, nbd.OptSetMetaContext,
		nbd.OptSetMetaContext, nbd.OptStartTLS, nbd.OptPeekExport, nbd.Option(k.r.Uint32()), nbd.OptGo)
	var data []byte
	switch o {
	case nbd.OptInfo, nbd.OptGo:
		infos := make([]nbd.InfoType, k.r.IntN(5))
		for i := range infos {
			infos[i] = nbd.InfoType(k.r.IntN(6))
		}
		data = infoData(k.name(), infos...)
	case nbd.OptListMetaContext, nbd.OptSetMetaContext:
		data = metaData(k.name(), k.queries()...)
	}
	if k.chance(8) {
		data = k.damaged(data)
	}
	return k.sayOption(o, data)
}

func (k *talk) sayOption(o nbd.Option, data []byte) bool {
	granted := false
	ok := k.say(option(o, data), func(w *wire) ([]byte, error) {
		raw, last, err := w.optionReplies()
		if w == k.c.ends[1] {
			granted = last == nbd.RepAck && err == nil
		}
		return raw, err
	})
	if !ok || !granted {
		return ok
	}
	switch o {
	case nbd.OptStructuredReply:
		k.mode = nbd.Structured
	case nbd.OptExtendedHeaders:
		k.mode = nbd.Extended
	case nbd.OptSetMetaContext:
		k.contexts = true
	case nbd.OptGo:
		k.entered = true
		k.c.setMode(k.mode)
		return k.transmit()
	}
	return true
}

// transmit is the rest of a conversation in which an export was entered early.
func (k *talk) transmit() bool {
	for range k.r.IntN(20) {
		if !k.request() {
			return false
		}
	}
	k.garble()
	return false
}

// enter chooses an export for good.
func (k *talk) enter() bool {
	if k.chance(5) && k.mode != nbd.Extended {
		if !k.say(option(nbd.OptExportName, []byte(pick(k.r, "x", "ro", ""))), readBytes(10)) {
			return false
		}
		k.c.setMode(k.mode)
		k.entered = true
		return false
	}
	name := pick(k.r, "x", "ro", "", "big", "d")
	if k.mode > nbd.Simple && !k.sayOption(nbd.OptSetMetaContext, metaData(name, "base:allocation", "qemu:allocation-depth")) {
		return false
	}
	return k.sayOption(nbd.OptGo, infoData(name, nbd.InfoBlockSize))
}

// damaged is data with something wrong.
func (k *talk) damaged(data []byte) []byte {
	b := append([]byte{}, data...)
	switch k.r.IntN(4) {
	case 0:
		return b[:k.r.IntN(len(b)+1)]
	case 1:
		return append(b, make([]byte, 1+k.r.IntN(9))...)
	case 2:
		if len(b) > 0 {
			b[k.r.IntN(len(b))] ^= 1 << k.r.IntN(8)
		}
		return b
	}
	for i := range b {
		b[i] = byte(k.r.Uint32())
	}
	return b
}

// request says one request, mostly within the export.
func (k *talk) request() bool {
	r := nbd.Request{
		Command: pick(k.r, nbd.CmdRead, nbd.CmdRead, nbd.CmdWrite, nbd.CmdWrite, nbd.CmdFlush, nbd.CmdTrim, nbd.CmdCache, nbd.CmdWriteZeroes,
			nbd.CmdBlockStatus, nbd.CmdBlockStatus, nbd.Command(7+k.r.IntN(10))),
		Cookie: k.r.Uint64(),
		Offset: k.r.Uint64N(1 << 20),
	}
	r.Length = k.r.Uint64N(1<<20 - r.Offset + 1)
	if k.chance(2) {
		r.Length = min(r.Length, k.r.Uint64N(8192))
	}
	switch k.r.IntN(20) {
	case 0:
		r.Offset = k.r.Uint64()
	case 1:
		r.Length = k.r.Uint64()
	case 2:
		r.Offset, r.Length = 1<<20, 0
	}
	if k.chance(3) {
		r.Flags = nbd.CommandFlags(1 << k.r.IntN(7))
	}
	if k.mode != nbd.Extended {
		r.Length &= 1<<32 - 1
	} else if r.Command == nbd.CmdWrite {
		r.Flags |= nbd.CmdFlagPayloadLen
	}
	if r.Command == nbd.CmdBlockStatus && r.Flags&nbd.CmdFlagPayloadLen != 0 && !k.contexts {
		r.Flags = 0 // the reference dies of it
	}
	b := k.mode.AppendRequest(nil, r)
	if data := requestData(k.mode, r); data != nil {
		b = append(b, data...)
	}
	return k.say(b, func(w *wire) ([]byte, error) {
		raw, frames, err := w.reply(r)
		return sense(r, raw, frames), err
	})
}

// sense is what a reply says, apart from how extents are cut: that depends on
// what else the two and their file system have seen. [TestStatus] looks at it.
func sense(r nbd.Request, raw []byte, frames []frame) []byte {
	if len(frames) == 0 || !frames[len(frames)-1].last() {
		return raw
	}
	data, err := assemble(r, frames)
	switch {
	case err != nil:
		return raw
	case r.Command == nbd.CmdRead && !frames[0].Simple:
		return data
	case r.Command == nbd.CmdBlockStatus:
		return []byte("a status")
	}
	return raw
}

// garble ends the conversation with bytes that are no good request, and the
// end of input.
func (k *talk) garble() {
	if k.chance(2) {
		return
	}
	b := k.mode.AppendRequest(nil, nbd.Request{Command: pick(k.r, nbd.CmdRead, nbd.CmdWrite, nbd.CmdFlush, nbd.CmdDisconnect), Cookie: 1, Length: 64})
	switch k.r.IntN(3) {
	case 0:
		b = b[:k.r.IntN(len(b))]
	case 1:
		b[k.r.IntN(4)] ^= 1 << k.r.IntN(8)
	case 2:
		for i := range b {
			b[i] = byte(k.r.Uint32())
		}
	}
	if !k.say(b, readRest) && k.t.Failed() {
		return
	}
	for _, w := range k.c.ends {
		_ = w.Conn.(interface{ CloseWrite() error }).CloseWrite() // it may be closed already
	}
	k.say(nil, readRest)
}
