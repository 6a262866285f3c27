package nbd_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
)

var ops = flag.Int64("ops", 100_000, "how many operations the load consists of")

// The shape of the load. A client owns a region and, in it, slots: at any time
// one request is under way in each, so that it is known what must be there.
const (
	loadClients = 8
	loadSlots   = 16
	slotSize    = 32 << 10
	regionSize  = loadSlots * slotSize
)

// TestLoad has clients verify what they wrote, while somebody takes exports
// from under them and changes the graph.
func TestLoad(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	disk := filepath.Join(dir, "disk.raw")
	sparseFile(t, disk, loadClients*regionSize)
	other := filepath.Join(dir, "other.raw")
	sparseFile(t, other, 4096)
	i := serve(t,
		"object-add", `{"qom-type": "iothread", "id": "t0"}`,
		"object-add", `{"qom-type": "iothread", "id": "t1"}`,
		"blockdev-add", fmt.Sprintf(`{"driver": "file", "node-name": "f", "filename": %q, "discard": "unmap"}`, disk),
		"blockdev-add", `{"driver": "raw", "node-name": "r", "file": "f", "discard": "unmap"}`,
		"blockdev-add", fmt.Sprintf(`{"driver": "file", "node-name": "g", "filename": %q}`, other))
	for k := range loadClients {
		i.do("block-export-add", loadExport, k, k)
	}
	l := &load{t: t, i: i, disk: disk, stop: make(chan struct{})}
	begin := time.Now()
	var clients, helpers sync.WaitGroup
	all := make([]*loadClient, loadClients)
	for k := range all {
		all[k] = newLoadClient(l, k)
		clients.Go(all[k].run)
	}
	helpers.Go(func() { l.churn(rand.New(rand.NewPCG(*seed, 99))) })
	helpers.Go(l.watch)
	clients.Wait()
	close(l.stop)
	helpers.Wait()
	took := time.Since(begin)
	t.Logf("%d operations, %d of them cut off, %d changes, in %v: %.0f operations a second", l.done.Load(), l.lost.Load(), l.changes.Load(), took.Round(time.Millisecond),
		float64(l.done.Load())/took.Seconds())
	content := fileBytes(t, disk)
	for k, c := range all {
		if c.model != nil && !bytes.Equal(content[k*regionSize:(k+1)*regionSize], c.model) {
			t.Errorf("the region of client %d is not what it wrote", k)
		}
	}
	for k := range loadClients {
		i.delWhenIdle(fmt.Sprintf("e%d", k))
	}
}

const loadExport = `{"type": "nbd", "id": "e%d", "node-name": "r", "name": "x%d", "writable": true, "allocation-depth": true}`

// delWhenIdle removes an export as soon as its clients have let go of it.
func (i *instance) delWhenIdle(id string) {
	i.tb.Helper()
	eventually(i.tb, "nobody uses export "+id, func() bool {
		_, err := i.try("block-export-del", `{"id": %q, "mode": "safe"}`, id)
		if err != nil && !strings.Contains(err.Error(), "still in use") {
			i.tb.Fatalf("deleting export %s: %v", id, err)
		}
		return err == nil
	})
}

// eventually waits for what nothing announces.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%s: not within %v\n%s", what, patience, stacks())
		}
	}
}

func stacks() []byte {
	b := make([]byte, 1<<20)
	return b[:runtime.Stack(b, true)]
}

// load is what the clients share.
type load struct {
	t                   *testing.T
	i                   *instance
	disk                string
	done, lost, changes atomic.Int64
	failed              atomic.Bool
	stop                chan struct{}
}

func (l *load) fail(format string, args ...any) {
	l.failed.Store(true)
	l.t.Errorf(format, args...)
}

// watch tells where everybody is when nothing gets done any more.
func (l *load) watch() {
	const stuck = 60 * time.Second
	before := int64(-1)
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(stuck):
		}
		now := l.done.Load()
		if now == before {
			fmt.Fprintf(os.Stderr, "no operation for %v\n%s", stuck, stacks())
			panic("the load is stuck")
		}
		before = now
	}
}

// churn changes the graph and the exports until the load ends.
func (l *load) churn(r *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case <-time.After(2 * time.Millisecond): // at most so often
		}
		l.change(r, n)
		l.changes.Add(1)
	}
}

func (l *load) change(r *rand.Rand, n int) {
	switch r.IntN(8) {
	case 0:
		k := r.IntN(loadClients)
		l.do("block-export-del", `{"id": "e%d", "mode": "hard"}`, k)
		for end := time.Now().Add(patience); !l.addExport(k); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				l.fail("export %d does not go\n%s", k, stacks())
				return
			}
		}
	case 1:
		l.do("blockdev-reopen", `{"options": [{"driver": "raw", "node-name": "r", "file": "f", "discard": "unmap"}]}`)
	case 2:
		l.do("blockdev-reopen", `{"options": [{"driver": "file", "node-name": "f", "filename": %q, "discard": "unmap"}]}`, l.disk)
	case 3, 4:
		// Exports let the node move.
		l.do("x-blockdev-set-iothread", `{"node-name": "r", "iothread": %s, "force": true}`, pick(r, `"t0"`, `"t1"`, "null"))
	case 5:
		l.do("blockdev-add", `{"driver": "null-co", "node-name": "n%d", "size": 65536}`, n)
		l.do("block-export-add", `{"type": "nbd", "id": "n%d", "node-name": "n%d"}`, n, n)
		l.do("block_resize", `{"node-name": "g", "size": %d}`, 4096*(1+r.IntN(100)))
		l.do("block-export-del", `{"id": "n%d"}`, n)
		l.do("blockdev-del", `{"node-name": "n%d"}`, n)
	case 6:
		l.do("blockdev-add", `{"driver": "raw", "node-name": "s%d", "file": "r", "read-only": true}`, n)
		l.do("blockdev-del", `{"node-name": "s%d"}`, n)
	case 7:
		l.do("query-block-exports", "{}")
		l.do("query-named-block-nodes", "{}")
	}
}

// addExport adds a client's export, once the id is free.
func (l *load) addExport(k int) bool {
	_, err := l.i.try("block-export-add", loadExport, k, k)
	return err == nil
}

// do runs a command that must succeed.
func (l *load) do(command, format string, args ...any) {
	if _, err := l.i.try(command, format, args...); err != nil {
		l.fail("%s: %v", command, err)
	}
}

// loadClient is one client with its region.
type loadClient struct {
	*load
	k     int
	r     *rand.Rand
	w     *wire
	base  uint64
	model []byte // nil once it failed
	slots [loadSlots]slot
}

// slot is what is under way in a part of the region.
type slot struct {
	nbd.Request
	at   int    // in the region
	data []byte // that is written, if it is a write
	// or is what may be there as well, nil if it is known what is there.
	or     []byte
	frames []frame
	open   bool // the reply is not complete
}

func newLoadClient(l *load, k int) *loadClient {
	return &loadClient{load: l, k: k, r: rand.New(rand.NewPCG(*seed, uint64(k))), base: uint64(k * regionSize), model: make([]byte, regionSize)}
}

func (c *loadClient) run() {
	defer func() {
		if c.w != nil {
			c.w.Close()
		}
	}()
	for c.done.Load() < *ops && !c.failed.Load() {
		if c.w == nil && !c.connect() {
			return
		}
		if err := c.round(); err != nil {
			c.w.Close()
			c.w = nil
		}
	}
	// What is not known for sure is looked at once more.
	for c.settle() != nil && !c.failed.Load() {
	}
}

// connect waits for the export to be there.
func (c *loadClient) connect() bool {
	mode := modes[c.r.IntN(len(modes))]
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		w, err := dial("unix", c.i.socket())
		if err == nil {
			if err = w.enter(mode, fmt.Sprintf("x%d", c.k), nbd.ContextAllocation); err == nil {
				c.w = w
				return true
			}
			w.Close()
		}
		if time.Now().After(end) {
			c.fail("client %d does not come in: %v", c.k, err)
			return false
		}
	}
}

// settle reads every slot of which it is not known what is there.
func (c *loadClient) settle() error {
	if c.w == nil && !c.connect() {
		return nil
	}
	for k := range c.slots {
		if c.slots[k].or == nil {
			continue
		}
		c.readSlot(k)
		if err := c.exchange(k, k+1); err != nil {
			c.w.Close()
			c.w = nil
			return err
		}
	}
	return nil
}

// round sends a request for each slot and takes the replies.
func (c *loadClient) round() error {
	for k := range c.slots {
		c.choose(k)
	}
	return c.exchange(0, loadSlots)
}

func (c *loadClient) readSlot(k int) {
	c.begin(k, nbd.CmdRead, k*slotSize, slotSize)
}

func (c *loadClient) begin(k int, command nbd.Command, at, length int) *slot {
	s := &c.slots[k]
	s.at, s.data, s.frames, s.open = at, nil, s.frames[:0], true
	s.Request = nbd.Request{Command: command, Cookie: uint64(k), Offset: c.base + uint64(at), Length: uint64(length)}
	return s
}

// choose makes up the next request in a slot.
func (c *loadClient) choose(k int) {
	if c.slots[k].or != nil {
		c.readSlot(k)
		return
	}
	at := k*slotSize + c.r.IntN(slotSize)
	length := 1 + c.r.IntN(min(8192, (k+1)*slotSize-at))
	if c.r.IntN(2) == 0 {
		at &^= 4095
		length = min((length+4095)&^4095, (k+1)*slotSize-at)
	}
	switch n := c.r.IntN(100); {
	case n < 45:
		c.begin(k, nbd.CmdRead, at, length)
	case n < 80:
		s := c.begin(k, nbd.CmdWrite, at, length)
		s.data = make([]byte, length)
		fill := byte(c.r.Uint32())
		for i := range s.data {
			s.data[i] = fill + byte(i)
		}
	case n < 86:
		c.begin(k, nbd.CmdWriteZeroes, at, length)
	case n < 90:
		c.begin(k, nbd.CmdTrim, at, length)
	case n < 93:
		c.begin(k, nbd.CmdFlush, 0, 0).Offset = 0
	case n < 97 && c.w.mode > nbd.Simple:
		c.begin(k, nbd.CmdBlockStatus, at, length)
	default:
		c.begin(k, nbd.CmdCache, at, length)
	}
	s := &c.slots[k]
	if s.Command == nbd.CmdWrite && c.w.mode == nbd.Extended {
		s.Flags = nbd.CmdFlagPayloadLen
	}
	if c.r.IntN(100) == 0 && (s.Command == nbd.CmdWrite || s.Command == nbd.CmdTrim || s.Command == nbd.CmdWriteZeroes) {
		s.Flags |= nbd.CmdFlagFUA
	}
}

// exchange sends the requests of some slots together and reads the replies, in
// whatever order they come.
func (c *loadClient) exchange(from, to int) error {
	var out []byte
	for k := from; k < to; k++ {
		out = append(out, c.w.request(c.slots[k].Request, c.slots[k].data)...)
	}
	_ = c.w.SetDeadline(time.Now().Add(3 * patience))
	sent := make(chan error, 1)
	go func() {
		_, err := c.w.Write(out)
		sent <- err
	}()
	err := c.replies(to - from)
	if err != nil {
		c.w.Close() // nobody needs the rest of what is sent
	}
	<-sent
	for k := from; k < to; k++ {
		if c.slots[k].open {
			c.slots[k].open = false
			c.lost.Add(1)
			c.doubt(&c.slots[k])
		}
	}
	return err
}

func (c *loadClient) replies(missing int) error {
	for missing > 0 {
		f, _, err := c.w.frame(func(cookie uint64) uint64 {
			if s := &c.slots[cookie%loadSlots]; s.Command == nbd.CmdRead {
				return s.Length
			}
			return 0
		})
		if err != nil {
			return err
		}
		if f.Chunk.Cookie >= loadSlots || !c.slots[f.Chunk.Cookie].open {
			c.fail("client %d: a reply to %d, which was not asked", c.k, f.Chunk.Cookie)
			return os.ErrInvalid
		}
		s := &c.slots[f.Chunk.Cookie]
		s.frames = append(s.frames, f)
		if !f.last() {
			continue
		}
		s.open = false
		missing--
		c.done.Add(1)
		c.conclude(s)
	}
	return nil
}

// doubt is for a request without a reply: it may have been carried out.
func (c *loadClient) doubt(s *slot) {
	k := int(s.Cookie)
	switch s.Command {
	case nbd.CmdWrite, nbd.CmdWriteZeroes, nbd.CmdTrim:
		or := bytes.Clone(c.model[k*slotSize : (k+1)*slotSize])
		copy(or[s.at-k*slotSize:], s.changed())
		s.or = or
	}
}

// changed is what the request leaves, where that is defined.
func (s *slot) changed() []byte {
	if s.data != nil {
		return s.data
	}
	return make([]byte, s.Length)
}

// conclude looks at a reply.
func (c *loadClient) conclude(s *slot) {
	got, err := assemble(s.Request, s.frames)
	if err != nil {
		c.fail("client %d, %v at %d, length %d: %v", c.k, s.Command, s.at, s.Length, err)
		return
	}
	switch s.Command {
	case nbd.CmdRead:
		c.checkRead(s, got)
	case nbd.CmdWrite, nbd.CmdWriteZeroes:
		copy(c.model[s.at:], s.changed())
	case nbd.CmdTrim:
		c.doubt(s) // each block is zero, or as it was
	case nbd.CmdBlockStatus:
		c.checkStatus(s, got)
	}
}

// checkRead compares with the model. Where two things may be, each byte must be
// one of them, and then it is known which.
func (c *loadClient) checkRead(s *slot, got []byte) {
	want := c.model[s.at : s.at+int(s.Length)]
	if s.or == nil {
		if !bytes.Equal(got, want) {
			c.fail("client %d: a read of %d bytes at %d is not what was written", c.k, s.Length, s.at)
		}
		return
	}
	for i := range got {
		if got[i] != want[i] && got[i] != s.or[i] {
			c.fail("client %d: byte %d is %#x, neither %#x nor %#x", c.k, s.at+i, got[i], want[i], s.or[i])
			return
		}
	}
	copy(want, got)
	s.or = nil
}

// checkStatus wants zeroes where zeroes are promised.
func (c *loadClient) checkStatus(s *slot, got []byte) {
	entry, at := 8, s.at
	if c.w.mode == nbd.Extended {
		entry = 16
		got = got[4:]
	}
	for got = got[4:]; len(got) >= entry; got = got[entry:] {
		length, flags := uint64(be.Uint32(got)), uint64(be.Uint32(got[4:]))
		if entry == 16 {
			length, flags = be.Uint64(got), be.Uint64(got[8:])
		}
		end := min(at+int(length), s.at+int(s.Length))
		if flags&nbd.StateZero != 0 && len(bytes.Trim(c.model[at:end], "\x00")) > 0 {
			c.fail("client %d: %d bytes at %d are said to be zero", c.k, length, at)
		}
		at = end
	}
	if at < s.at+1 {
		c.fail("client %d: a status of nothing", c.k)
	}
}
