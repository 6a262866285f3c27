package qcow2_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/qerr"
)

// tape records what reaches disks, and what their users did meanwhile.
type tape struct {
	mu     sync.Mutex
	events []event
	// flushFailed says that a flush was made to fail.
	flushFailed atomic.Bool
}

// event is a write to a disk, a change of its length (no data), or a flush.
type event struct {
	disk   string
	offset int64
	data   []byte
	flush  bool
}

// endsFlushed tells whether everything on the tape is durable.
func (t *tape) endsFlushed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.events) > 0 && t.events[len(t.events)-1].flush
}

func (t *tape) add(e event) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events = append(t.events, e)
	return len(t.events)
}

// tick is a moment of its own.
func (t *tape) tick() int { return t.add(event{}) }

// taped is the driver "taped": a disk in memory that grows, on a tape.
func taped(t *tape, initial map[string][]byte, fail func() bool) *block.Driver {
	return &block.Driver{Name: "taped", Kind: block.Protocol, Open: func(a *block.OpenArgs) (block.Instance, error) {
		name := a.Options.TakeString("name", "")
		return &tapedDisk{tape: t, name: name, data: slices.Clone(initial[name]), fail: fail}, nil
	}}
}

// tapedMax bounds the length of a taped disk, in bytes.
const tapedMax = 64 << 20

type tapedDisk struct {
	tape *tape
	name string
	fail func() bool
	mu   sync.Mutex
	data []byte
}

func (d *tapedDisk) failing() error {
	if d.fail != nil && d.fail() {
		return qerr.From(syscall.EIO)
	}
	return nil
}

func (d *tapedDisk) CoPreadv(_ *aio.Co, offset int64, v block.Vec, _ block.ReqFlags) error {
	if err := d.failing(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v.Zero()
	if offset < int64(len(d.data)) {
		v.CopyFrom(d.data[offset:])
	}
	return nil
}

func (d *tapedDisk) put(offset int64, data []byte) error {
	if err := d.failing(); err != nil {
		return err
	}
	if offset+int64(len(data)) > tapedMax {
		return qerr.From(syscall.ENOSPC)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if end := offset + int64(len(data)); end > int64(len(d.data)) {
		d.data = append(d.data, make([]byte, end-int64(len(d.data)))...)
	}
	copy(d.data[offset:], data)
	d.tape.add(event{disk: d.name, offset: offset, data: data})
	return nil
}

func (d *tapedDisk) CoPwritev(_ *aio.Co, offset int64, v block.Vec, _ block.ReqFlags) error {
	data := make([]byte, v.Len())
	v.CopyTo(data)
	return d.put(offset, data)
}

func (d *tapedDisk) CoPdiscard(_ *aio.Co, offset, bytes int64) error {
	if offset+bytes > tapedMax {
		return nil
	}
	return d.put(offset, make([]byte, bytes))
}

func (d *tapedDisk) CoFlush(*aio.Co) error {
	if err := d.failing(); err != nil {
		d.tape.flushFailed.Store(true)
		return err
	}
	d.tape.add(event{disk: d.name, flush: true})
	return nil
}

func (d *tapedDisk) CoGetLength(*aio.Co) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.data)), nil
}

func (d *tapedDisk) CoTruncate(_ *aio.Co, offset int64, _ bool, _ block.PreallocMode, _ block.ReqFlags) error {
	if offset > tapedMax {
		return qerr.From(syscall.ENOSPC)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	data := make([]byte, offset)
	copy(data, d.data)
	d.data = data
	d.tape.add(event{disk: d.name, offset: offset})
	return nil
}

func (d *tapedDisk) bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.data)
}

func (d *tapedDisk) Close(*aio.Lock) {}

// torn is what a disk may hold when the power fails after the first events of
// a tape: what was flushed, and of the rest any sectors.
func torn(t *tape, disk string, initial []byte, until int, rng *rand.Rand) []byte {
	data := slices.Clone(initial)
	flushed := 0
	for i, e := range t.events[:until] {
		if e.disk == disk && e.flush {
			flushed = i
		}
	}
	keep := rng.IntN(4) // how much of what was not flushed is there, in thirds
	for i, e := range t.events[:until] {
		switch {
		case e.disk != disk || e.flush:
		case e.data == nil:
			data = slices.Grow(data, int(max(0, e.offset-int64(len(data)))))
			if e.offset > int64(len(data)) {
				data = append(data, make([]byte, e.offset-int64(len(data)))...)
			} else if i < flushed || rng.IntN(2) == 0 {
				data = data[:e.offset]
			}
		default:
			if end := e.offset + int64(len(e.data)); end > int64(len(data)) {
				data = append(data, make([]byte, end-int64(len(data)))...)
			}
			whole := rng.IntN(3) == 0
			for at := 0; at < len(e.data); {
				n := min(512-int(e.offset+int64(at))%512, len(e.data)-at)
				if i < flushed || whole || rng.IntN(3) < keep {
					copy(data[int(e.offset)+at:], e.data[at:at+n])
				}
				at += n
			}
		}
	}
	return data
}

// mark is a request on a sector: what it wrote, and between which events.
type mark struct {
	value      byte
	start, end int
}

// flushMark is a flush that a user asked for.
type flushMark struct{ start, end int }

// crashHistory runs requests on a taped image, and remembers what each sector
// may hold at each time.
type crashHistory struct {
	t       *testing.T
	rng     *rand.Rand
	tape    *tape
	blk     *block.Backend
	node    *block.Node
	cluster int64
	// sectors are changed by one request at a time each.
	sectors [][]mark
	flushes []flushMark
	kept    []*keptMark
	// noSnapshots are to be taken any more.
	noSnapshots bool
	log         []string
}

// keptMark is an internal snapshot: between which events it was taken and, if
// it was, deleted, and what it holds.
type keptMark struct {
	id               string
	start, end       int
	goneFrom, goneTo int // never if it is there
	content          []byte
}

const never = 1 << 30

// area is a random part of the disk, in sectors.
func (h *crashHistory) area() (first, n int64) {
	size := int64(len(h.sectors))
	unit := []int64{1, 8, h.cluster / 512, max(h.cluster/512, size/256)}[h.rng.IntN(4)]
	first = h.rng.Int64N(size) / unit * unit
	return first, min(size-first, unit*(1+h.rng.Int64N(4)))
}

// request prepares a request; the function returned carries it out.
func (h *crashHistory) request(first, n int64) func() {
	value := byte(1 + h.rng.IntN(255))
	k := h.rng.IntN(10)
	offset, bytes := first*512, n*512
	start := h.tape.tick()
	text := ""
	var do func() error
	switch {
	case k < 6:
		text = "write"
		v := drivertest.Fill(value, int(bytes))
		do = func() error { return h.blk.Pwritev(aio.Outside, offset, v, 0) }
	case k < 7 && first*512%h.cluster == 0 && n*512%h.cluster == 0:
		text = "compress"
		v := drivertest.Fill(value, int(bytes))
		do = func() error {
			return in(h.node, func(co *aio.Co) error { return h.node.CoPwritev(co, offset, v, block.ReqCompressed) })
		}
	case k < 9:
		text, value = "zero", 0
		do = func() error { return h.blk.PwriteZeroes(aio.Outside, offset, bytes, block.ReqMayUnmap) }
	default:
		text, value = "discard", 0
		do = func() error { return h.blk.Pdiscard(aio.Outside, offset, bytes) }
	}
	h.log = append(h.log, fmt.Sprintf("at %d: %s %d+%d %#x", start, text, offset, bytes, value))
	for s := first; s < first+n; s++ {
		h.sectors[s] = append(h.sectors[s], mark{value, start, never})
	}
	return func() {
		err := do()
		if text == "compress" && errors.Is(err, syscall.EIO) {
			return // some clusters had a place already
		}
		if err != nil {
			h.t.Errorf("%s %d+%d: %v", text, offset, bytes, err)
		}
		got := make([]byte, bytes)
		if err := h.blk.Preadv(aio.Outside, offset, block.Vec{got}); err != nil {
			h.t.Error(err)
		}
		end := h.tape.tick()
		for s := first; s < first+n; s++ {
			m := &h.sectors[s][len(h.sectors[s])-1]
			// A discard may do nothing; what can be read now is what it did.
			m.value, m.end = got[(s-first)*512], end
		}
	}
}

func (h *crashHistory) step() {
	switch k := h.rng.IntN(20); {
	case k < 13:
		h.request(h.area())()
	case k < 17:
		h.parallel()
	case k < 18:
		h.snapshot()
	default:
		f := flushMark{start: h.tape.tick()}
		h.log = append(h.log, fmt.Sprintf("at %d: flush", f.start))
		if err := h.blk.Flush(aio.Outside); err != nil {
			h.t.Error(err)
		}
		f.end = h.tape.tick()
		h.flushes = append(h.flushes, f)
	}
}

// snapshot takes a snapshot, or deletes the oldest one. Old images cannot be
// torn meanwhile: they have no way to say that they should be counted anew.
func (h *crashHistory) snapshot() {
	if h.noSnapshots {
		return
	}
	keeper := h.node.Instance().(block.Snapshotter)
	for _, m := range h.kept {
		if m.goneFrom < never || h.rng.IntN(2) == 0 {
			continue
		}
		m.goneFrom = h.tape.tick()
		h.log = append(h.log, fmt.Sprintf("at %d: delete snapshot %s", m.goneFrom, m.id))
		if err := in(h.node, func(co *aio.Co) error { return keeper.CoSnapshotDelete(co, m.id) }); err != nil {
			h.t.Error(err)
		}
		m.goneTo = h.tape.tick()
		return
	}
	m := &keptMark{start: h.tape.tick(), goneFrom: never, goneTo: never, content: read(h.t, h.blk, 0, len(h.sectors)*512)}
	h.log = append(h.log, fmt.Sprintf("at %d: take a snapshot", m.start))
	err := in(h.node, func(co *aio.Co) error {
		if err := keeper.CoSnapshotCreate(co, block.SnapshotInfo{Name: "kept", Icount: 1<<64 - 1}); err != nil {
			return err
		}
		list := keeper.Snapshots(co)
		m.id = list[len(list)-1].ID
		return nil
	})
	if err != nil {
		h.noSnapshots = true // clusters cannot be counted so often
		return
	}
	m.end = h.tape.tick()
	h.kept = append(h.kept, m)
}

// checkKept looks at the snapshots that must be there when the power failed
// after some events.
func (h *crashHistory) checkKept(path string, at int) {
	for _, m := range h.kept {
		if m.end > at || m.goneFrom <= at {
			continue
		}
		img(h.t, filepath.Dir(path), "convert", "-f", "qcow2", "-l", "snapshot.id="+m.id, "-O", "raw", path, path+".kept")
		got, err := os.ReadFile(path + ".kept")
		if err != nil {
			h.t.Fatal(err)
		}
		same(h.t, "snapshot "+m.id, got, m.content)
	}
}

// parallel runs requests side by side, most of them in the same clusters, and
// a flush among them.
func (h *crashHistory) parallel() {
	first, _ := h.area()
	var wg sync.WaitGroup
	for range 2 + h.rng.IntN(4) {
		n := min(1+h.rng.Int64N(h.cluster/512+1), int64(len(h.sectors))-first)
		if n <= 0 {
			break
		}
		wg.Go(h.request(first, n))
		first += n
	}
	if h.rng.IntN(2) == 0 {
		wg.Go(func() {
			if err := h.blk.Flush(aio.Outside); err != nil {
				h.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// moment is when the power fails: at any time, or, every third time, while a
// snapshot is taken or deleted.
func (h *crashHistory) moment(k int) int {
	if len(h.kept) == 0 || k%3 != 0 {
		return h.rng.IntN(len(h.tape.events) + 1)
	}
	m := h.kept[h.rng.IntN(len(h.kept))]
	if m.goneFrom < never && h.rng.IntN(2) == 0 {
		return m.goneFrom + h.rng.IntN(m.goneTo-m.goneFrom+1)
	}
	return m.start + h.rng.IntN(m.end-m.start+1)
}

// allowed tells what a sector may hold when the power failed after some
// events.
func (h *crashHistory) allowed(sector, at int) []byte {
	durable := 0 // what ended before this event is
	for _, f := range h.flushes {
		if f.end <= at {
			durable = f.start
		}
	}
	values := []byte{0}
	for _, m := range h.sectors[sector] {
		switch {
		case m.end <= durable:
			values = []byte{m.value}
		case m.start <= at:
			values = append(values, m.value)
		}
	}
	return values
}

// Whenever the power fails, and whatever of the last writes has reached the
// disk, the image is whole and holds what was flushed.
func TestPowerFailure(t *testing.T) {
	t.Parallel()
	for _, options := range []string{
		"", "cluster_size=512", "cluster_size=512,refcount_bits=64,", "cluster_size=4k,refcount_bits=1", "compat=0.10,cluster_size=1k",
		"extended_l2=on,cluster_size=16k", "cluster_size=4k,lazy_refcounts=on", "cluster_size=512,refcount_bits=64",
		"compression_type=zstd,cluster_size=4k",
	} {
		for _, seed := range seeds(2) {
			t.Run(fmt.Sprintf("%s/%d", options, seed), func(t *testing.T) {
				t.Parallel()
				powerFailure(t, options, seed)
			})
		}
	}
}

func powerFailure(t *testing.T, options string, seed uint64) {
	dir := t.TempDir()
	size := 1 << 19
	if strings.HasSuffix(options, ",") {
		size = 1 << 23 // the refcount table grows
	}
	initial, err := os.ReadFile(create(t, dir, "image", strings.TrimSuffix(options, ","), fmt.Sprint(size)))
	if err != nil {
		t.Fatal(err)
	}
	h := &crashHistory{t: t, rng: rand.New(rand.NewPCG(seed, 2)), tape: &tape{}, sectors: make([][]mark, size/512)}
	h.noSnapshots = strings.Contains(options, "compat=0.10")
	b := bench(t, taped(h.tape, map[string][]byte{"image": initial}, nil))
	h.node = b.Add(`{"driver":"qcow2","node-name":"q","discard":"unmap","l2-cache-size":4096,"l2-cache-entry-size":512,
		"file":{"driver":"taped","name":"image"}}`)
	h.blk = b.Use(h.node)
	info, err := h.node.GetInfo(aio.Outside)
	if err != nil {
		t.Fatal(err)
	}
	h.cluster = info.ClusterSize
	for range *stepsFlag {
		h.step()
	}
	b.Drop(h.blk)
	b.Delete("q")
	if t.Failed() {
		return
	}
	for k := range 30 {
		at := h.moment(k)
		path := filepath.Join(dir, fmt.Sprint("torn", k))
		image := torn(h.tape, "image", initial, at, h.rng)
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		const incompatible, dirty = 79, 1
		switch {
		case image[incompatible]&dirty == 0:
		case h.rng.IntN(2) == 0:
			// Opening it counts the clusters anew, as the format has it.
			b.Add(node(path, ""))
			b.Delete("q")
		default:
			if out, status := run(t, dir, tool(t, "qemu-io"), "-f", "qcow2", "-c", "read 0 512", path); status != 0 {
				t.Errorf("qemu-io: %s", out)
			}
		}
		check(t, path, true)
		h.checkKept(path, at)
		got := content(t, path)
		for s := range h.sectors {
			values := h.allowed(s, at)
			for i := s * 512; i < (s+1)*512; i++ {
				if !slices.Contains(values, got[i]) {
					t.Errorf("power failed after %d of %d events: byte %#x is %#x, may be %x", at, len(h.tape.events), i, got[i], values)
					break
				}
			}
			if t.Failed() {
				break
			}
		}
		if t.Failed() {
			t.Logf("seed %d, %d events\n%s", seed, at, strings.Join(h.log, "\n"))
			return
		}
		os.Remove(path)
	}
}
