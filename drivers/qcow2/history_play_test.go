package qcow2_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

// player carries out a history and keeps what the image should hold.
type player struct {
	*stage
	b    *drivertest.Bench
	node *block.Node
	blk  *block.Backend
	want []byte
	// kept is what snapshots hold.
	kept map[string][]byte
	// bitmaps are the persistent ones that the node has.
	bitmaps map[string]bool
}

// play plays a history from the beginning. It returns where it failed: at the
// number of steps if it was at the end.
func (s *stage) play(steps []step) (int, error) {
	for name, content := range s.initial {
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	p := s.newPlayer()
	defer p.b.Graph.Close()
	if err := p.open(); err != nil {
		return 0, err
	}
	for n, one := range steps {
		if err := p.step(one); err != nil {
			p.b.Drop(p.blk)
			_ = p.b.TryDelete("q")
			return n, fmt.Errorf("%s: %w", one, err)
		}
	}
	return len(steps), p.finish()
}

// newPlayer is for an image that is there and holds nothing, but for what its
// backing file does.
func (s *stage) newPlayer() *player {
	p := &player{stage: s, want: make([]byte, s.v.size), kept: make(map[string][]byte), bitmaps: make(map[string]bool)}
	if s.v.backing {
		copy(p.want, s.v.baseContent())
	}
	p.b = drivertest.NewWith(s.t, block.Config{
		Drivers: []*block.Driver{qcow2.Driver(), file.Driver(), raw.Driver()}, Secret: cryptSecret,
	})
	return p
}

func (p *player) open() error {
	var err error
	if p.node, err = p.b.TryAdd(node(p.path(), p.more())); err == nil {
		p.blk, err = p.b.TryUse(p.node, block.PermAll, block.PermAll)
	}
	return err
}

func (p *player) close() error {
	p.b.Drop(p.blk)
	return p.b.TryDelete("q")
}

// finish compares all of it, also what the reference reads.
func (p *player) finish() error {
	wrong := p.read(0, int64(len(p.want)))
	if err := errors.Join(wrong, p.close()); err != nil {
		return err
	}
	if err := p.img("check"); err != nil {
		return err
	}
	if err := p.compare("the reference", p.want); err != nil {
		return err
	}
	if len(p.kept) == 0 {
		return nil
	}
	for name := range p.bitmaps { // with them no snapshot can be gone back to
		if err := p.img("bitmap", "--remove", "IMAGE", name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.kept)) {
		if err := p.checkKept(name, p.kept[name]); err != nil {
			return err
		}
	}
	return nil
}

// checkKept has the reference read what a snapshot holds, as far as the disk
// is long now, and go back to it where it need not resize the disk for that.
func (p *player) checkKept(name string, want []byte) error {
	if err := p.img("convert", "-l", "snapshot.name="+name, "-O", "raw", "IMAGE", "read"); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(p.dir, "read"))
	if err != nil {
		return err
	}
	common := min(len(got), len(want))
	err = differ(name, 0, got[:common], want[:common])
	if err != nil || p.v.fewUses() || len(p.want) != len(want) {
		return err
	}
	if err := errors.Join(p.img("snapshot", "-a", name), p.compare(name, want)); err != nil {
		return err
	}
	return p.img("check")
}

// img runs qemu-img. The image stands where IMAGE does, or behind the words.
func (p *player) img(words ...string) error {
	if !slices.Contains(words, "IMAGE") {
		words = append(words, "IMAGE")
	}
	args := []string{words[0], "--object", "secret,id=s0,data=hunter2", "--image-opts"}
	for _, w := range words[1:] {
		if w == "IMAGE" {
			w = p.imageOpts()
		}
		args = append(args, w)
	}
	if out, status := run(p.t, p.dir, tool(p.t, "qemu-img"), args...); status != 0 {
		return fmt.Errorf("qemu-img %s: status %d\n%s", strings.Join(words, " "), status, out)
	}
	return nil
}

// compare compares what the reference reads.
func (p *player) compare(what string, want []byte) error {
	if err := p.img("convert", "-O", "raw", "IMAGE", "read"); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(p.dir, "read"))
	if err != nil {
		return err
	}
	return differ(what, 0, got, want)
}

// differ tells where contents differ.
func differ(what string, at int64, got, want []byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("%s: byte %#x is %#x, want %#x", what, at+int64(i), got[i], want[i])
		}
	}
	return nil
}

// clip cuts off what lies behind the end of the disk.
func (p *player) clip(s step) step {
	size := int64(len(p.want))
	s.offset = min(s.offset, size)
	s.bytes = min(s.bytes, size-s.offset)
	if s.kind == stepCompress && s.offset+s.bytes < size {
		s.bytes = s.bytes / s.cluster * s.cluster // whole clusters, but at the end
	}
	return s
}

func (p *player) step(s step) error {
	switch s.kind {
	case stepParallel:
		return p.parallel(s)
	case stepFlush:
		return p.blk.Flush(aio.Outside)
	case stepReopen:
		return p.reopen()
	case stepResize:
		return p.resize(s)
	case stepSnapshot:
		return p.snapshot(fmt.Sprint("s", s.value))
	case stepForget:
		return p.forget(fmt.Sprint("s", s.value))
	case stepBitmap:
		return p.bitmap(fmt.Sprint("b", s.value), s.bytes)
	}
	s = p.clip(s)
	if s.bytes == 0 || s.kind == stepCompress && (p.v.external() || p.v.encrypt != "") {
		return nil
	}
	if s.kind == stepRead {
		return p.read(s.offset, s.bytes)
	}
	err := p.change(s)
	if s.kind == stepCompress && errors.Is(err, syscall.EIO) {
		return p.partly(s)
	}
	if err != nil {
		return err
	}
	return p.changed(s)
}

// partly notes what a request that was refused in one of its clusters, which
// had a place already, has changed in those before: all of each, or nothing.
func (p *player) partly(s step) error {
	got := make([]byte, s.bytes)
	if err := p.blk.Preadv(aio.Outside, s.offset, block.Vec{got}); err != nil {
		return err
	}
	for at := int64(0); at < s.bytes; at += s.cluster {
		end := min(at+s.cluster, s.bytes)
		area := p.want[s.offset+at : s.offset+end]
		if bytes.Equal(got[at:end], area) {
			continue
		}
		if err := differ("read", s.offset+at, got[at:end], s.data()[at:end]); err != nil {
			return err
		}
		copy(area, got[at:end])
	}
	return nil
}

func (p *player) read(offset, bytes int64) error {
	got := make([]byte, bytes)
	if err := p.blk.Preadv(aio.Outside, offset, block.Vec{got}); err != nil {
		return err
	}
	return differ("read", offset, got, p.want[offset:offset+bytes])
}

// change makes a request.
func (p *player) change(s step) error {
	switch s.kind {
	case stepWrite:
		return p.blk.Pwritev(aio.Outside, s.offset, drivertest.Fill(s.value, int(s.bytes)), 0)
	case stepZero:
		return p.blk.PwriteZeroes(aio.Outside, s.offset, s.bytes, s.flags)
	case stepDiscard:
		return p.blk.Pdiscard(aio.Outside, s.offset, s.bytes)
	}
	return in(p.node, func(co *aio.Co) error {
		return p.node.CoPwritev(co, s.offset, block.Vec{s.data()}, block.ReqCompressed)
	})
}

// changed notes what a request has changed. After a discard the old content
// may be there, or zeroes.
func (p *player) changed(s step) error {
	area := p.want[s.offset : s.offset+s.bytes]
	switch s.kind {
	case stepCompress:
		copy(area, s.data())
	case stepDiscard:
		got := make([]byte, s.bytes)
		if err := p.blk.Preadv(aio.Outside, s.offset, block.Vec{got}); err != nil {
			return err
		}
		for i := range got {
			if got[i] != 0 && got[i] != area[i] {
				return fmt.Errorf("byte %#x is %#x, was %#x", s.offset+int64(i), got[i], area[i])
			}
		}
		copy(area, got)
	default:
		for i := range area {
			area[i] = s.value
		}
	}
	return nil
}

func (p *player) parallel(s step) error {
	errs := make([]error, len(s.all)+1)
	var wg sync.WaitGroup
	var all []step
	for i, one := range s.all {
		one = p.clip(one)
		all = append(all, one)
		if one.bytes > 0 {
			wg.Go(func() { errs[i] = p.change(one) })
		}
	}
	if s.flush {
		wg.Go(func() { errs[len(all)] = p.blk.Flush(aio.Outside) })
	}
	wg.Wait()
	for _, one := range all {
		errs = append(errs, p.changed(one))
	}
	return errors.Join(errs...)
}

// reopen closes and opens the image. Its bitmaps are the same afterwards.
func (p *player) reopen() error {
	hashes := make(map[string]string)
	for name := range p.bitmaps {
		hashes[name] = hash(p.node.DirtyBitmap(name))
	}
	if err := errors.Join(p.close(), p.open()); err != nil {
		return err
	}
	for name, want := range hashes {
		if d := p.node.DirtyBitmap(name); d == nil {
			return fmt.Errorf("bitmap %s is lost", name)
		} else if got := hash(d); got != want {
			return fmt.Errorf("bitmap %s is %s, was %s", name, got, want)
		}
	}
	return nil
}

// resize changes the length. Old images cannot be resized while they have
// snapshots, and cannot hide their backing file.
func (p *player) resize(s step) error {
	old := int64(len(p.want))
	if s.bytes <= old || p.v.encrypt != "" { // what is allocated without data is noise, decrypted
		s.mode = block.PreallocOff
	}
	err := p.blk.Truncate(aio.Outside, s.bytes, false, s.mode, 0)
	if p.v.old() && errors.Is(err, syscall.ENOTSUP) && (len(p.kept) > 0 || p.v.backing) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.bytes <= old {
		p.want = p.want[:s.bytes]
	} else {
		p.want = append(p.want[:old:old], make([]byte, s.bytes-old)...)
	}
	return nil
}

// snapshot keeps what the disk holds. Where clusters cannot be counted so
// often it fails, and nothing has changed.
func (p *player) snapshot(name string) error {
	keeper := p.node.Instance().(block.Snapshotter)
	if p.kept[name] != nil || !keeper.CanSnapshot() {
		return nil
	}
	err := in(p.node, func(co *aio.Co) error {
		return keeper.CoSnapshotCreate(co, block.SnapshotInfo{Name: name, DateSec: 1, Icount: 1<<64 - 1})
	})
	if p.v.fewUses() && errors.Is(err, syscall.EINVAL) {
		return nil
	}
	if err == nil {
		p.kept[name] = slices.Clone(p.want)
	}
	return err
}

// forget deletes a snapshot.
func (p *player) forget(name string) error {
	if p.kept[name] == nil {
		return nil
	}
	keeper := p.node.Instance().(block.Snapshotter)
	delete(p.kept, name)
	return in(p.node, func(co *aio.Co) error {
		for _, s := range keeper.Snapshots(co) {
			if s.Name == name {
				return keeper.CoSnapshotDelete(co, s.ID)
			}
		}
		return errors.New("the snapshot is lost")
	})
}

// bitmap adds a persistent bitmap, or removes it.
func (p *player) bitmap(name string, granularity int64) (err error) {
	p.b.Main(func(l *aio.Lock) {
		if p.bitmaps[name] {
			delete(p.bitmaps, name)
			d := p.node.DirtyBitmap(name)
			err = d.RemoveStored(l)
			d.Release()
			return
		}
		if p.v.old() {
			return // its format has none
		}
		if err = p.node.CanStoreDirtyBitmap(l, name, granularity); err != nil {
			return
		}
		d, created := p.node.CreateDirtyBitmap(l, name, granularity)
		if err = created; err == nil {
			d.SetPersistent(true)
			p.bitmaps[name] = true
		}
	})
	return err
}
