package nbd_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/drivers/blklogwrites/dmlog"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// The disk of the writers: each has some blocks, and writes version after
// version of them.
const (
	writers         = 8
	blocksPerWriter = 16
	writerBlock     = 4096
	writersDisk     = writers * blocksPerWriter * writerBlock
)

// version is the content of a block in one of its versions; version 0 is the
// zeroes of a new disk.
func version(block int, v uint64) []byte {
	b := make([]byte, writerBlock)
	if v == 0 {
		return b
	}
	for i := 0; i < len(b); i += 16 {
		be.PutUint64(b[i:], v)
		be.PutUint64(b[i+8:], uint64(block))
	}
	return b
}

// versionOf recognizes a block; false: it is no version of it.
func versionOf(block int, b []byte) (uint64, bool) {
	v := be.Uint64(b)
	return v, bytes.Equal(b, version(block, v))
}

// promises is what the writers have sent and what they were promised.
type promises struct {
	noFlush, noFUA bool // what the writers do without
	sent, durable  [writers * blocksPerWriter]atomic.Uint64
}

// writer writes until its connection ends. After a reply to a flush, or to a
// write with FUA, what it may count on is noted down.
func (p *promises) writer(tb testing.TB, w *wire, k int) {
	r := rand.New(rand.NewPCG(*seed, uint64(k)))
	var written [blocksPerWriter]uint64 // and answered
	for {
		if !p.noFlush && r.IntN(8) == 0 {
			if !goesOn(tb, w.flush()) {
				return
			}
			for i, v := range written {
				p.durable[k*blocksPerWriter+i].Store(max(v, p.durable[k*blocksPerWriter+i].Load()))
			}
			continue
		}
		i := r.IntN(blocksPerWriter)
		block := k*blocksPerWriter + i
		v := p.sent[block].Add(1)
		var flags nbd.CommandFlags
		if !p.noFUA && r.IntN(8) == 0 {
			flags = nbd.CmdFlagFUA
		}
		if !goesOn(tb, w.write(uint64(block)*writerBlock, version(block, v), flags)) {
			return
		}
		written[i] = v
		if flags != 0 {
			p.durable[block].Store(v)
		}
	}
}

// goesOn tells whether a request was answered. Until the connection ends, all
// must succeed.
func goesOn(tb testing.TB, err error) bool {
	if _, refused := err.(syscall.Errno); refused && err != syscall.ESHUTDOWN || errors.Is(err, os.ErrDeadlineExceeded) {
		tb.Errorf("a writer is served badly: %v", err)
	}
	return err == nil
}

// start lets the writers begin; the result waits for their end.
func (p *promises) start(tb testing.TB, socket string) *sync.WaitGroup {
	tb.Helper()
	var all sync.WaitGroup
	for k := range writers {
		w := client(tb, "unix", socket, modes[k%3], "x")
		all.Go(func() { p.writer(tb, w, k) })
	}
	return &all
}

// kept compares versions found with those promised.
func (p *promises) kept(tb testing.TB, block int, found uint64) {
	tb.Helper()
	if least, most := p.durable[block].Load(), p.sent[block].Load(); found < least || found > most {
		tb.Errorf("block %d is there in version %d; %d was promised and %d sent last", block, found, least, most)
	}
}

// ends are the ways in which a daemon ends.
var ends = map[string]func(t *testing.T, p *daemon.Process, dir string){
	"quit":    func(t *testing.T, _ *daemon.Process, dir string) { quit(t, filepath.Join(dir, "m.sock")) },
	"SIGTERM": func(t *testing.T, p *daemon.Process, _ string) { signal(t, p, syscall.SIGTERM) },
	"SIGKILL": func(t *testing.T, p *daemon.Process, _ string) { signal(t, p, syscall.SIGKILL) },
}

func signal(t *testing.T, p *daemon.Process, s syscall.Signal) {
	t.Helper()
	if err := p.Signal(s); err != nil {
		t.Error(err)
	}
}

// quit says so to a monitor.
func quit(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, say := range []string{"", `{"execute": "qmp_capabilities"}`, `{"execute": "quit"}`} {
		if _, err := conn.Write([]byte(say)); err != nil {
			t.Fatal(err)
		}
		if line, err := in.ReadString('\n'); err != nil {
			t.Fatalf("%q, %v", line, err)
		}
	}
}

// TestStops ends the daemon under writers, in every way, several times. What
// was promised is there after the next start, and each block is in one version.
func TestStops(t *testing.T) {
	t.Parallel()
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			disk := filepath.Join(dir, "disk.raw")
			sparseFile(t, disk, writersDisk)
			start := func() *daemon.Process {
				return storage(t, ours(t), dir, "--blockdev", "file,node-name=f,filename="+disk, "--blockdev", "raw,node-name=r,file=f",
					"--nbd-server", "addr.type=unix,addr.path="+dir+"/n.sock", "--export", "nbd,id=e,node-name=r,name=x,writable=on")
			}
			var p promises
			for round := range 4 {
				d := start()
				all := p.start(t, filepath.Join(dir, "n.sock"))
				p.await(t, uint64(round+1)*20)
				end(t, d, dir)
				if _, err := d.Wait(patience); err != nil {
					t.Fatalf("%v\n%s", err, d.Output())
				}
				all.Wait()
				p.look(t, start(), dir)
			}
		})
	}
}

// await waits until some block of every writer has been written so often.
func (p *promises) await(t *testing.T, times uint64) {
	t.Helper()
	eventually(t, "the writers write", func() bool {
		for k := range writers {
			if p.durable[k*blocksPerWriter].Load() < times {
				return false
			}
		}
		return true
	})
}

// look reads all blocks by way of a new daemon, and ends it. What is found may
// have been overtaken, and is what later versions follow.
func (p *promises) look(t *testing.T, d *daemon.Process, dir string) {
	t.Helper()
	w := client(t, "unix", filepath.Join(dir, "n.sock"), nbd.Structured, "x")
	for block := range p.sent {
		b, err := w.read(uint64(block)*writerBlock, writerBlock)
		if err != nil {
			t.Fatal(err)
		}
		v, ok := versionOf(block, b)
		if !ok {
			t.Errorf("block %d is in no version: %x…", block, b[:32])
			continue
		}
		p.kept(t, block, v)
	}
	w.Close()
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
}

// TestFlushesReachTheDisk has a log of writes under the export, which tells
// what would be there if the power had failed instead: what the log holds up
// to its last flush. The page cache, which survives a kill, has no part in it.
func TestFlushesReachTheDisk(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*promises{"flush": {noFUA: true}, "FUA": {noFlush: true}, "both": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			sparseFile(t, filepath.Join(dir, "disk.raw"), writersDisk)
			sparseFile(t, filepath.Join(dir, "log"), 0)
			d := storage(t, ours(t), dir, "--blockdev", fmt.Sprintf(`{"driver": "blklogwrites", "node-name": "b",
				"file": {"driver": "file", "filename": "%s/disk.raw"}, "log": {"driver": "file", "filename": "%s/log"}}`, dir, dir),
				"--nbd-server", "addr.type=unix,addr.path="+dir+"/n.sock", "--export", "nbd,id=e,node-name=b,name=x,writable=on")
			all := p.start(t, filepath.Join(dir, "n.sock"))
			p.await(t, 10)
			signal(t, d, syscall.SIGKILL)
			if _, err := d.Wait(patience); err != nil {
				t.Fatal(err)
			}
			all.Wait()
			for block, v := range durableIn(t, filepath.Join(dir, "log")) {
				p.kept(t, block, v)
			}
		})
	}
}

// durableIn reads a log and returns the version in which each block would be
// found after the power has failed.
func durableIn(t *testing.T, path string) []uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	log, err := dmlog.NewReader(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	written, durable := make([]uint64, writers*blocksPerWriter), make([]uint64, writers*blocksPerWriter)
	flushes := 0
	for {
		rec, err := log.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Flags&dmlog.Flush != 0 {
			copy(durable, written)
			flushes++
		}
		if rec.Length == 0 {
			continue
		}
		data, err := io.ReadAll(log.Data(rec))
		if err != nil {
			t.Fatal(err)
		}
		block := int(rec.Offset / writerBlock)
		v, ok := versionOf(block, data)
		if !ok {
			t.Fatalf("entry %d is no version of block %d", rec.Number, block)
		}
		written[block] = v
		if rec.Flags&dmlog.FUA != 0 {
			durable[block] = v
		}
	}
	if flushes == 0 {
		t.Error("no flush reached the log")
	}
	return durable
}
