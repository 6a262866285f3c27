package drivertest

import (
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qjson"
)

// Bench holds a graph for one test; it is closed when the test ends, which
// then must have left no node behind that nobody owns.
type Bench struct {
	tb    testing.TB
	Graph *block.Graph
}

// New makes a graph that knows the given drivers and "mem".
func New(tb testing.TB, drivers ...*block.Driver) *Bench {
	return NewWith(tb, block.Config{Drivers: drivers})
}

// NewWith is New with more to say.
func NewWith(tb testing.TB, cfg block.Config) *Bench {
	cfg.Drivers = append(cfg.Drivers, Mem())
	b := &Bench{tb, block.New(cfg)}
	tb.Cleanup(b.close)
	return b
}

func (b *Bench) close() {
	b.Graph.Close()
	b.Graph.Nodes(func(n *block.Node) bool {
		b.tb.Errorf("node %q was left behind", n.Name())
		return true
	})
}

// Main runs f in the main context.
func (b *Bench) Main(f func(l *aio.Lock)) {
	l := b.Graph.Main().Acquire()
	defer l.Release()
	f(l)
}

// Options reads JSON as blockdev-add gets it.
func (b *Bench) Options(json string) *block.Options {
	b.tb.Helper()
	v, err := qjson.Parse([]byte(json))
	if err != nil {
		b.tb.Fatalf("%s: %v", json, err)
	}
	return block.OptionsFromJSON(v)
}

// TryAdd adds a node, or says why not.
func (b *Bench) TryAdd(json string) (n *block.Node, err error) {
	b.tb.Helper()
	o := b.Options(json)
	b.Main(func(l *aio.Lock) { n, err = b.Graph.AddNode(l, o) })
	return n, err
}

// Add adds a node.
func (b *Bench) Add(json string) *block.Node {
	b.tb.Helper()
	n, err := b.TryAdd(json)
	if err != nil {
		b.tb.Fatalf("adding %s: %v", json, err)
	}
	return n
}

// TryDelete deletes a node, or says why not.
func (b *Bench) TryDelete(name string) (err error) {
	b.Main(func(l *aio.Lock) { err = b.Graph.DeleteNode(l, name) })
	return err
}

// Delete deletes a node.
func (b *Bench) Delete(name string) {
	b.tb.Helper()
	if err := b.TryDelete(name); err != nil {
		b.tb.Fatalf("deleting %s: %v", name, err)
	}
}

// Reopen changes the options of nodes.
func (b *Bench) Reopen(json ...string) (err error) {
	b.tb.Helper()
	var all []*block.Options
	for _, text := range json {
		all = append(all, b.Options(text))
	}
	b.Main(func(l *aio.Lock) { err = b.Graph.Reopen(l, all) })
	return err
}

// TryUse makes a backend on a node, or says why not. It is closed at the end
// of the test unless [Bench.Drop] comes first.
func (b *Bench) TryUse(n *block.Node, perm, shared block.Perm) (*block.Backend, error) {
	blk := b.Graph.NewBackend("", perm, shared)
	var err error
	b.Main(func(l *aio.Lock) {
		if err = blk.Insert(l, n); err != nil {
			blk.Close(l)
		}
	})
	if err != nil {
		return nil, err
	}
	b.tb.Cleanup(func() { b.Drop(blk) })
	return blk, nil
}

// Use makes a backend that reads, writes and resizes, and lets everybody else
// do the same.
func (b *Bench) Use(n *block.Node) *block.Backend {
	b.tb.Helper()
	blk, err := b.TryUse(n, block.PermAll, block.PermAll)
	if err != nil {
		b.tb.Fatalf("using %s: %v", n.Name(), err)
	}
	return blk
}

// Drop takes a backend off its node, if it is still there.
func (b *Bench) Drop(blk *block.Backend) {
	if blk.Node() == nil {
		return
	}
	b.Main(func(l *aio.Lock) { blk.Close(l) })
}

// Fill returns n bytes of the given value, as a vector of one buffer.
func Fill(value byte, n int) block.Vec {
	buf := make([]byte, n)
	for i := range buf {
		buf[i] = value
	}
	return block.Vec{buf}
}
