package qcow2_test

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// A backing file whose format was guessed to be raw cannot be given the header
// of another format: it would be taken for that the next time, and could name any
// file of the host as its backing file.
func TestGuessedRawStaysRaw(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/base", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/image", blank(3, 16, 1<<20, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	b := bench(t)
	n := b.Add(node(dir+"/image", `,"backing":{"read-only":false,"file":{"driver":"file","filename":"`+dir+`/base"}}`))
	base := n.Backing().Node()
	if base.Driver().Name != "raw" || !base.Probed() {
		t.Fatalf("the backing file is %s", base.Driver().Name)
	}
	blk := b.Use(base)
	header := block.Vec{append(blank(3, 16, 1<<20, 0)[:512:512], make([]byte, 512)...)}
	if err := blk.Pwritev(aio.Outside, 0, header, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("writing a header: %v", err)
	}
	if err := blk.Pwritev(aio.Outside, 0, block.Vec{header[0][:4]}, 0); err != nil {
		t.Errorf("writing the beginning of one: %v", err)
	}
	if err := blk.Pwritev(aio.Outside, 4, block.Vec{header[0][4:100]}, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("writing the rest: %v", err)
	}
	if err := blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 4096), 0); err != nil {
		t.Errorf("writing something else: %v", err)
	}
}

// A request that has looked a cluster up finds its data there, even if the
// cluster is given up meanwhile and flushed.
func TestSlowRequest(t *testing.T) {
	t.Parallel()
	b := bench(t)
	const cluster = 65536
	mem := b.Add(`{"driver":"mem","node-name":"m","size":262144,"zero":true}`)
	disk := drivertest.DiskOf(mem)
	use := b.Use(mem)
	if err := use.Pwritev(aio.Outside, 0, block.Vec{blank(3, 16, 1<<20, 0)}, 0); err != nil {
		t.Fatal(err)
	}
	b.Drop(use)
	n := b.Add(`{"driver":"qcow2","node-name":"q","discard":"unmap","file":"m"}`)
	blk := b.Use(n)
	write := func(at int64, v byte) {
		t.Helper()
		if err := blk.Pwritev(aio.Outside, at, drivertest.Fill(v, cluster), 0); err != nil {
			t.Fatal(err)
		}
	}
	flush := func() {
		t.Helper()
		if err := blk.Flush(aio.Outside); err != nil {
			t.Fatal(err)
		}
	}
	if err := in(n, func(co *aio.Co) error {
		return n.CoPwritev(co, 0, drivertest.Fill(1, cluster), block.ReqCompressed)
	}); err != nil {
		t.Fatal(err)
	}
	flush()
	reached, goOn := make(chan struct{}), make(chan struct{})
	disk.SetHook(func(co *aio.Co, c drivertest.Call) error {
		if c.Op == drivertest.Read {
			disk.SetHook(nil)
			close(reached)
			co.Yield(func() { <-goOn })
		}
		return nil
	})
	done := make(chan []byte)
	go func() {
		buf := make([]byte, cluster)
		if err := blk.Preadv(aio.Outside, 0, block.Vec{buf}); err != nil {
			t.Error(err)
		}
		done <- buf
	}()
	<-reached
	// The compressed cluster is written elsewhere; its place must wait.
	write(0, 2)
	for i := range int64(4) {
		flush()
		write((i+1)*cluster, byte(3+i))
	}
	close(goOn)
	if got := (<-done)[0]; got != 1 && got != 2 {
		t.Errorf("read %#x", got)
	}
	// Nobody looks at it any more: it is free.
	flush()
	flush()
	disk.TakeCalls()
	before := len(disk.Bytes())
	write(8*cluster, 9)
	if after := len(disk.Bytes()); after > before {
		t.Errorf("the file grew from %d to %d", before, after)
	}
}
