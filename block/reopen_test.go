package block_test

import (
	"errors"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// Several nodes change all together or not at all.
func TestReopenAllOrNothing(t *testing.T) {
	t.Parallel()
	b := bench(t)
	var disks []*drivertest.Disk
	var options []string
	for _, name := range []string{"a", "b", "c"} {
		disks = append(disks, drivertest.DiskOf(b.Add(`{"driver":"mem","node-name":"`+name+`","size":4096}`)))
		options = append(options, `{"driver":"mem","node-name":"`+name+`","size":4096,"read-only":true}`)
	}
	before := dump(b)
	expect := func(when string, want ...[3]int) {
		t.Helper()
		for i, d := range disks {
			prepared, committed, aborted := d.Reopens()
			if got := [3]int{prepared, committed, aborted}; got != want[i] {
				t.Errorf("%s: disk %d was told %v, want %v", when, i, got, want[i])
			}
		}
	}

	disks[2].RefuseReopen(errors.New("not now"))
	if err := b.Reopen(options...); text(err) != "not now" {
		t.Errorf("got %v", err)
	}
	expect("the driver refuses", [3]int{1, 0, 1}, [3]int{1, 0, 1}, [3]int{0, 0, 0})
	disks[2].RefuseReopen(nil)

	if err := b.Reopen(options[0], options[1], `{"driver":"mem","node-name":"c","size":8192}`); text(err) != "Cannot change the option 'size'" {
		t.Errorf("got %v", err)
	}
	expect("an option is fixed", [3]int{2, 0, 2}, [3]int{2, 0, 2}, [3]int{1, 0, 1})

	blk, err := b.TryUse(b.Graph.Node("b"), write, all)
	must(t, err)
	if err := b.Reopen(options...); text(err) != "Read-only block node 'b' cannot support read-write users" {
		t.Errorf("got %v", err)
	}
	expect("a user objects", [3]int{3, 0, 3}, [3]int{3, 0, 3}, [3]int{2, 0, 2})
	b.Drop(blk)

	if err := b.Reopen(options[0], `{"driver":"mem","node-name":"nope"}`); text(err) != "Failed to find node with node-name='nope'" {
		t.Errorf("got %v", err)
	}
	if after := dump(b); after != before {
		t.Errorf("the graph was\n%s, and is\n%s", before, after)
	}
	for _, d := range disks {
		if begun, ended := d.Drains(); begun != ended {
			t.Errorf("%d drained sections began, %d ended", begun, ended)
		}
	}
	must(t, b.Reopen(options...))
	expect("all agree", [3]int{4, 1, 3}, [3]int{4, 1, 3}, [3]int{3, 1, 2})
	for _, name := range []string{"a", "b", "c"} {
		if !b.Graph.Node(name).ReadOnly() {
			t.Errorf("%s is not read-only", name)
		}
	}
}

// Nothing to reopen is nothing to do; the reference dies of it.
func TestReopenNothing(t *testing.T) {
	t.Parallel()
	must(t, bench(t).Reopen())
}

// A node whose driver cannot be reopened says so.
func TestReopenUnsupported(t *testing.T) {
	t.Parallel()
	fixed := &block.Driver{Name: "fixed", Kind: block.Protocol, Open: func(*block.OpenArgs) (block.Instance, error) {
		return fixedDisk{}, nil
	}}
	b := drivertest.New(t, fixed)
	b.Add(`{"driver":"fixed","node-name":"n"}`)
	const want = "Block format 'fixed' used by node 'n' does not support reopening files"
	if err := b.Reopen(`{"driver":"fixed","node-name":"n"}`); text(err) != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

type fixedDisk struct{}

func (fixedDisk) Close(*aio.Lock) {}

// A child that is put in another's place gets its users and loses nothing; the
// old one goes when nobody needs it.
func TestReopenReplacesChild(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","file":{"driver":"mem","node-name":"old","size":4096}}`)
	old := drivertest.DiskOf(b.Graph.Node("old"))
	fresh := b.Add(`{"driver":"mem","node-name":"new","size":8192}`)
	blk := b.Use(n)
	must(t, outside{blk}.write(0, 512, 1))
	must(t, b.Reopen(`{"driver":"raw","node-name":"r","file":"new"}`))
	if !old.Closed() || b.Graph.Node("old") != nil {
		t.Error("the old child is there still")
	}
	must(t, outside{blk}.write(4096, 512, 2))
	if got := drivertest.DiskOf(fresh).Bytes()[4096]; got != 2 {
		t.Errorf("the new child has %d", got)
	}
	if err := b.TryDelete("new"); text(err) != "Block device new is in use" {
		t.Errorf("got %v", err)
	}
	b.Drop(blk)
	b.Delete("r")
	b.Delete("new")
}

// Options left out return to their defaults.
func TestReopenDefaults(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"mem","node-name":"m","size":4096,"detect-zeroes":"on","read-only":true}`)
	must(t, b.Reopen(`{"driver":"mem","node-name":"m","size":4096}`))
	if n.DetectZeroes() != block.DetectZeroesOff || n.ReadOnly() {
		t.Errorf("detect-zeroes %v, read-only %v", n.DetectZeroes(), n.ReadOnly())
	}
	must(t, b.Reopen(`{"driver":"mem","node-name":"m","size":4096,"detect-zeroes":"unmap","discard":"unmap"}`))
	if n.DetectZeroes() != block.DetectZeroesUnmap || n.Flags()&block.FlagUnmap == 0 {
		t.Errorf("detect-zeroes %v, flags %v", n.DetectZeroes(), n.Flags())
	}
}
