package qcow2_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

const (
	clusterBits = 12
	cluster     = 1 << clusterBits
	// farOff has an L2 table of its own.
	farOff = 4 << 20
)

// immediateImage is an image whose cluster 0 holds ones, in a disk in memory.
func immediateImage(t *testing.T, name, more string) (*drivertest.Bench, *drivertest.Disk, *block.Backend) {
	b := bench(t)
	disk, blk := addImmediate(t, b, name, more, ``)
	return b, disk, blk
}

func addImmediate(t *testing.T, b *drivertest.Bench, name, more, image string) (*drivertest.Disk, *block.Backend) {
	t.Helper()
	content := blank(3, clusterBits, 8<<20, 0)
	below := b.Add(fmt.Sprintf(`{"driver":"mem","node-name":"%s-file","size":%d%s}`, name, len(content), more))
	file := b.Use(below)
	if err := file.Pwritev(aio.Outside, 0, block.Vec{content}, 0); err != nil {
		t.Fatal(err)
	}
	b.Drop(file)
	blk := b.Use(b.Add(fmt.Sprintf(`{"driver":"qcow2","node-name":%q,"file":"%s-file"%s}`, name, name, image)))
	write(t, blk, 0, 1)
	disk := drivertest.DiskOf(below)
	disk.TakeCalls()
	return disk, blk
}

// write fills a cluster.
func write(t *testing.T, blk *block.Backend, offset int64, value byte) {
	t.Helper()
	if err := blk.Pwritev(aio.Outside, offset, drivertest.Fill(value, cluster), 0); err != nil {
		t.Fatal(err)
	}
}

func immediately(blk *block.Backend, f func(co *aio.Co) error) (err error) {
	blk.Node().Context().Enter("immediate", func(co *aio.Co) { err = f(co) })
	return err
}

func immediateRead(blk *block.Backend, offset, bytes int64) ([]byte, error) {
	v := drivertest.Fill(0xee, int(bytes))
	err := immediately(blk, func(co *aio.Co) error { return blk.CoPreadv(co, offset, v, block.ReqImmediate) })
	return v[0], err
}

func immediateWrite(blk *block.Backend, offset, bytes int64) error {
	return immediately(blk, func(co *aio.Co) error {
		return blk.CoPwritev(co, offset, drivertest.Fill(2, int(bytes)), block.ReqImmediate)
	})
}

// wantWait demands that a request has failed rather than wait.
func wantWait(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("%s: %v, want EAGAIN", what, err)
	}
}

func wantCalls(t *testing.T, what string, disk *drivertest.Disk, want ...string) {
	t.Helper()
	if got := disk.TakeCalls(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: the file got %q, want %q", what, got, want)
	}
}

// What needs nothing that is not in memory is done at once.
func TestImmediate(t *testing.T) {
	t.Parallel()
	_, disk, blk := immediateImage(t, "q", `,"immediate":true`)
	got, err := immediateRead(blk, 512, 1024)
	if err != nil || got[0] != 1 || got[1023] != 1 {
		t.Errorf("reading data: %v, %x", err, got[0])
	}
	place := disk.TakeCalls()
	if len(place) != 1 {
		t.Fatalf("reading data: the file got %q", place)
	}
	var at int64
	if _, err := fmt.Sscanf(place[0], "read %d+1024 immediate", &at); err != nil {
		t.Fatalf("reading data: the file got %q", place)
	}
	if err := immediateWrite(blk, 512, 1024); err != nil {
		t.Errorf("overwriting: %v", err)
	}
	wantCalls(t, "overwriting", disk, fmt.Sprintf("write %d+1024 immediate", at))
	for what, offset := range map[string]int64{"without a cluster": cluster, "without a table": farOff} {
		got, err := immediateRead(blk, offset, cluster)
		if err != nil || got[0] != 0 || got[cluster-1] != 0 {
			t.Errorf("reading %s: %v, %x", what, err, got[0])
		}
		wantWait(t, "writing a part "+what, immediateWrite(blk, offset+512, cluster-512))
		wantCalls(t, what, disk)
	}
	wantWait(t, "writing without a table", immediateWrite(blk, farOff, cluster))
	wantCalls(t, "writing without a table", disk)
	// Data, and zeroes behind it.
	if got, err = immediateRead(blk, 0, 2*cluster); err != nil || got[0] != 1 || got[512] != 2 || got[cluster] != 0 {
		t.Errorf("reading data and zeroes: %v", err)
	}
	disk.TakeCalls()
	if err := immediateWrite(blk, 0, 3*cluster); err != nil {
		t.Errorf("writing beyond the cluster: %v", err)
	}
	wantCalls(t, "writing beyond the cluster", disk, fmt.Sprintf("write %d+%d immediate", at-512, cluster),
		fmt.Sprintf("write %d+%d immediate", at-512+cluster, 2*cluster))
	if err := blk.Flush(aio.Outside); err != nil {
		t.Fatal(err)
	}
	if got := read(t, blk, 0, 4*cluster); got[0] != 2 || got[3*cluster-1] != 2 || got[3*cluster] != 0 {
		t.Errorf("read %x, %x and %x", got[0], got[3*cluster-1], got[3*cluster])
	}
}

// What a write to a new place needs beyond its data takes its time.
func TestImmediateAllocation(t *testing.T) {
	t.Parallel()
	b := bench(t)
	disk, blk := addImmediate(t, b, "lazy", `,"immediate":true`, `,"lazy-refcounts":true`)
	if err := immediateWrite(blk, cluster, cluster); err != nil {
		t.Errorf("with the mark set: %v", err)
	}
	b.Drop(blk)
	b.Delete("lazy") // takes the mark back
	blk = b.Use(b.Add(`{"driver":"qcow2","node-name":"lazy","file":"lazy-file","lazy-refcounts":true}`))
	read(t, blk, 0, cluster)
	disk.TakeCalls()
	wantWait(t, "without the mark", immediateWrite(blk, 2*cluster, cluster))
	wantCalls(t, "without the mark", disk)

	disk, blk = addImmediate(t, b, "plain", `,"immediate":true`, ``)
	b.Drop(blk)
	b.Delete("plain")
	blk = b.Use(b.Add(`{"driver":"qcow2","node-name":"plain","file":"plain-file"}`))
	read(t, blk, 0, cluster)
	disk.TakeCalls()
	wantWait(t, "with no refcounts in memory", immediateWrite(blk, cluster, cluster))
	wantCalls(t, "with no refcounts in memory", disk)
	write(t, blk, cluster, 1)
	if err := immediateWrite(blk, 2*cluster, cluster); err != nil {
		t.Errorf("with refcounts in memory: %v", err)
	}

	// What a snapshot shares is not overwritten.
	err := in(blk.Node(), func(co *aio.Co) error {
		return blk.Node().Instance().(block.Snapshotter).CoSnapshotCreate(co, block.SnapshotInfo{Name: "s", DateSec: 1, Icount: 1<<64 - 1})
	})
	if err != nil {
		t.Fatal(err)
	}
	wantWait(t, "with a shared table", immediateWrite(blk, cluster, cluster))
	write(t, blk, 0, 1)
	if err := immediateWrite(blk, cluster, cluster); err != nil {
		t.Errorf("with a table of its own: %v", err)
	}
	if err := blk.Flush(aio.Outside); err != nil {
		t.Fatal(err)
	}
	if got := read(t, blk, 0, 4*cluster); got[0] != 1 || got[cluster] != 2 || got[3*cluster-1] != 2 || got[3*cluster] != 0 {
		t.Errorf("read %x, %x, %x and %x", got[0], got[cluster], got[3*cluster-1], got[3*cluster])
	}
}

// A write to a new place that fails leaves what was there.
func TestImmediateAllocationFails(t *testing.T) {
	t.Parallel()
	_, disk, blk := immediateImage(t, "q", `,"immediate":true`)
	disk.SetHook(func(_ *aio.Co, c drivertest.Call) error {
		if c.Op == drivertest.Write && c.Flags&block.ReqImmediate != 0 {
			return syscall.EAGAIN
		}
		return nil
	})
	wantWait(t, "writing where the file would wait", immediateWrite(blk, cluster, cluster))
	disk.SetHook(nil)
	if got := read(t, blk, 0, 2*cluster); got[0] != 1 || got[cluster] != 0 {
		t.Errorf("read %x and %x", got[0], got[cluster])
	}
	if err := immediateWrite(blk, cluster, cluster); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

// Tables that are not in memory, and compressed clusters, take their time.
func TestImmediateInVain(t *testing.T) {
	t.Parallel()
	b, disk, blk := immediateImage(t, "q", `,"immediate":true`)
	err := in(blk.Node(), func(co *aio.Co) error {
		return blk.CoPwritev(co, 2*cluster, drivertest.Fill(3, cluster), block.ReqCompressed)
	})
	if err != nil {
		t.Fatal(err)
	}
	disk.TakeCalls()
	_, err = immediateRead(blk, 2*cluster, cluster)
	wantWait(t, "reading compressed data", err)
	wantWait(t, "writing a part of compressed data", immediateWrite(blk, 2*cluster, 512))
	wantCalls(t, "compressed", disk)
	if err := immediateWrite(blk, 2*cluster, cluster); err != nil {
		t.Errorf("writing over compressed data: %v", err)
	}

	b.Drop(blk)
	b.Delete("q")
	blk = b.Use(b.Add(`{"driver":"qcow2","node-name":"q","file":"q-file"}`))
	disk.TakeCalls()
	_, err = immediateRead(blk, 0, cluster)
	wantWait(t, "reading with the table not in memory", err)
	wantWait(t, "writing with the table not in memory", immediateWrite(blk, 0, cluster))
	wantCalls(t, "not in memory", disk)
	read(t, blk, 0, cluster)
	if _, err := immediateRead(blk, 0, cluster); err != nil {
		t.Errorf("reading with the table in memory: %v", err)
	}
}

// Nobody is waited for: not who has the mapping, nor who allocates.
func TestImmediateBesideOthers(t *testing.T) {
	t.Parallel()
	_, disk, blk := immediateImage(t, "q", `,"immediate":true`)
	started, finish := make(chan bool), make(chan bool)
	hold := func(op string) {
		disk.SetHook(func(co *aio.Co, c drivertest.Call) error {
			if c.Op == op && c.Flags&block.ReqImmediate == 0 {
				disk.SetHook(nil)
				close(started)
				co.Yield(func() { <-finish })
			}
			return nil
		})
	}
	done := make(chan error)

	hold(drivertest.Write)
	go func() { done <- blk.Pwritev(aio.Outside, cluster, drivertest.Fill(5, cluster), 0) }()
	<-started
	wantWait(t, "writing where somebody allocates", immediateWrite(blk, cluster, cluster))
	if err := immediateWrite(blk, 0, cluster); err != nil {
		t.Errorf("writing beside somebody who allocates: %v", err)
	}
	close(finish)
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	started, finish = make(chan bool), make(chan bool)
	hold(drivertest.Flush)
	go func() { done <- blk.Flush(aio.Outside) }()
	<-started
	_, err := immediateRead(blk, 0, cluster)
	wantWait(t, "reading while metadata is written", err)
	wantWait(t, "writing while metadata is written", immediateWrite(blk, 0, cluster))
	close(finish)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := read(t, blk, 0, 2*cluster); got[0] != 2 || got[cluster] != 5 {
		t.Errorf("read %x and %x", got[0], got[cluster])
	}
}

// The files below decide; a backing file does for what it holds.
func TestImmediateBelow(t *testing.T) {
	t.Parallel()
	b, _, plain := immediateImage(t, "plain", ``)
	if flags := plain.Node().Limits(); (flags.ReadFlags|flags.WriteFlags)&block.ReqImmediate != 0 {
		t.Error("the image promises what its file cannot do")
	}
	addImmediate(t, b, "quick", `,"immediate":true`, ``)
	for backing, ok := range map[string]bool{"plain": false, "quick": true} {
		_, blk := addImmediate(t, b, "over-"+backing, `,"immediate":true`, fmt.Sprintf(`,"backing":%q`, backing))
		if _, err := immediateRead(blk, 0, cluster); err != nil {
			t.Errorf("reading over %s: %v", backing, err)
		}
		write(t, blk, 8*cluster, 1) // another cluster of the table
		got, err := immediateRead(blk, cluster, cluster)
		if !ok {
			wantWait(t, "reading through to "+backing, err)
		} else if err != nil || got[0] != 0 {
			t.Errorf("reading through to %s: %v, %x", backing, err, got[0])
		}
	}
}
