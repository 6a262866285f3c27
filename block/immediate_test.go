package block_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// immediate runs an immediate request in a coroutine of its own.
func immediate(blk *block.Backend, f func(co *aio.Co, flags block.ReqFlags) error) (err error) {
	blk.Node().Context().Enter("immediate", func(co *aio.Co) { err = f(co, block.ReqImmediate) })
	return err
}

func immediateRead(blk *block.Backend, offset int64, n int) error {
	return immediate(blk, func(co *aio.Co, flags block.ReqFlags) error {
		return blk.CoPreadv(co, offset, drivertest.Fill(0, n), flags)
	})
}

func immediateWrite(blk *block.Backend, offset int64, v block.Vec, more block.ReqFlags) error {
	return immediate(blk, func(co *aio.Co, flags block.ReqFlags) error {
		return blk.CoPwritev(co, offset, v, flags|more)
	})
}

// What an immediate request does at the driver, or EAGAIN before that.
func TestImmediate(t *testing.T) {
	t.Parallel()
	read := func(offset int64, n int) func(*block.Backend) error {
		return func(b *block.Backend) error { return immediateRead(b, offset, n) }
	}
	write := func(offset int64, n int, value byte, flags block.ReqFlags) func(*block.Backend) error {
		return func(b *block.Backend) error { return immediateWrite(b, offset, drivertest.Fill(value, n), flags) }
	}
	for _, c := range []struct {
		name, options string
		request       func(*block.Backend) error
		want          string
	}{
		{"read", `,"immediate":true`, read(100, 512), "read 100+512 immediate"},
		{"aligned read", `,"immediate":true,"align":512`, read(512, 512), "read 512+512 immediate"},
		{"unaligned read", `,"immediate":true,"align":512`, read(100, 512), ""},
		{"read in vain", ``, read(0, 512), ""},
		{"write", `,"immediate":true`, write(0, 512, 1, 0), "write 0+512 immediate"},
		{"unaligned write", `,"immediate":true,"align":512`, write(512, 100, 1, 0), ""},
		{"write in vain", ``, write(0, 512, 1, 0), ""},
		{"durable write", `,"immediate":true,"fua":true`, write(0, 512, 1, block.ReqFUA), "write 0+512 fua immediate"},
		{"write with a flush", `,"immediate":true`, write(0, 512, 1, block.ReqFUA), ""},
		{"zeroes to be found", `,"immediate":true,"detect-zeroes":"on"`, write(0, 512, 0, 0), ""},
		{"zeroes", `,"immediate":true,"zero":true`, func(b *block.Backend) error {
			return immediate(b, func(co *aio.Co, flags block.ReqFlags) error { return b.CoPwriteZeroes(co, 0, 512, flags) })
		}, ""},
		{"never flushed", `,"immediate":true`, func(b *block.Backend) error {
			b.SetWriteCache(false)
			return immediateWrite(b, 0, drivertest.Fill(1, 512), 0)
		}, ""},
	} {
		disk, blk := mem(t, `,"size":65536`+c.options)
		err := c.request(blk)
		if c.want == "" != errors.Is(err, syscall.EAGAIN) || c.want != "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := fmt.Sprint(disk.TakeCalls()); got != "["+c.want+"]" {
			t.Errorf("%s: the driver got %s", c.name, got)
		}
	}
}

// A drained section is not waited for, and does not wait for what failed.
func TestImmediateWhileDrained(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"mem","node-name":"m","size":4096,"immediate":true}`)
	blk := b.Use(n)
	b.Main(func(l *aio.Lock) {
		n.DrainedBegin(l)
		for name, err := range map[string]error{
			"read":  immediateRead(blk, 0, 512),
			"write": immediateWrite(blk, 0, drivertest.Fill(1, 512), 0),
		} {
			if !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("%s: %v", name, err)
			}
		}
		n.DrainedBegin(l)
		n.DrainedEnd()
		n.DrainedEnd()
	})
	must(t, immediateRead(blk, 0, 512))
}

// Requests that keep an area to themselves are not waited for either; beside
// them, others pass.
func TestImmediateBesideSerialising(t *testing.T) {
	t.Parallel()
	disk, blk := mem(t, `,"size":65536,"immediate":true`)
	started, finish, done := make(chan bool), make(chan bool), make(chan error)
	disk.SetHook(func(co *aio.Co, c drivertest.Call) error {
		if c.Flags&block.ReqImmediate == 0 {
			close(started)
			co.Yield(func() { <-finish })
		}
		return nil
	})
	go func() {
		done <- blk.Pwritev(aio.Outside, 4096, drivertest.Fill(1, 4096), block.ReqSerialising)
	}()
	<-started
	for _, c := range []struct {
		offset int64
		n      int
		ok     bool
	}{{0, 4096, true}, {4095, 1, true}, {4095, 2, false}, {4096, 512, false}, {8191, 512, false}, {8192, 512, true}, {0, 65536, false}} {
		for name, err := range map[string]error{
			"read":  immediateRead(blk, c.offset, c.n),
			"write": immediateWrite(blk, c.offset, drivertest.Fill(2, c.n), 0),
		} {
			if c.ok && err != nil || !c.ok && !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("%s %d+%d: %v", name, c.offset, c.n, err)
			}
		}
	}
	close(finish)
	must(t, <-done)
	must(t, immediateRead(blk, 4096, 4096))
	if bytes := disk.Bytes(); bytes[4096] != 1 || bytes[0] != 2 || slices.Contains(bytes[4096:8192], 2) {
		t.Error("wrong bytes")
	}
}

// The flag goes through raw, and for reads through a filter that logs writes,
// to what knows it.
func TestImmediateThroughOthers(t *testing.T) {
	t.Parallel()
	b := chainBench(t)
	over := func(child string) string { return `{"driver":"raw","node-name":"r","file":` + child + `}` }
	for options, want := range map[string]struct{ reads, writes bool }{
		over(`{"driver":"mem","size":4096,"immediate":true}`):         {true, true},
		over(`{"driver":"mem","size":4096}`):                          {},
		over(`{"driver":"null-co","size":4096}`):                      {true, true},
		over(`{"driver":"null-co","size":4096,"latency-ns":1000000}`): {},
		over(`{"driver":"overlay","size":4096,"unit":512}`):           {},
		over(over(`{"driver":"mem","size":4096,"immediate":true}`)):   {true, true},
		`{"driver":"blklogwrites","node-name":"r","log":{"driver":"null-co"},` +
			`"file":{"driver":"mem","size":4096,"immediate":true}}`: {true, false},
		`{"driver":"blklogwrites","node-name":"r","log":{"driver":"null-co"},` +
			`"file":{"driver":"mem","size":4096}}`: {},
	} {
		options = strings.Replace(options, `"file":{"driver":"raw","node-name":"r"`, `"file":{"driver":"raw"`, 1)
		b.Add(options)
		blk := b.Use(b.Graph.Node("r"))
		for name, c := range map[string]struct {
			err  error
			want bool
		}{
			"read":  {immediateRead(blk, 0, 512), want.reads},
			"write": {immediateWrite(blk, 0, drivertest.Fill(1, 512), 0), want.writes},
		} {
			if c.want && c.err != nil || !c.want && !errors.Is(c.err, syscall.EAGAIN) {
				t.Errorf("%s of %s: %v", name, options, c.err)
			}
		}
		b.Drop(blk)
		b.Delete("r")
	}
}
