package jobs

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/copyonread"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qjson"
)

// BenchmarkChain fills the top of a chain of three images from the middle one, or
// writes that one down; it is full, or has next to nothing in it.
func BenchmarkChain(b *testing.B) {
	for _, bench := range []struct {
		name   string
		kind   Type
		base   string
		length int64
		data   int64
	}{
		{"stream/qcow2", Stream, "qcow2", 64 << 20, 64 << 20},
		{"commit/qcow2", Commit, "qcow2", 64 << 20, 64 << 20},
		{"stream/raw", Stream, "raw", 64 << 20, 64 << 20},
		{"commit/raw", Commit, "raw", 64 << 20, 64 << 20},
		{"stream/sparse", Stream, "qcow2", 1 << 40, 64 << 10},
		{"commit/sparse", Commit, "qcow2", 1 << 40, 64 << 10},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(bench.data)
			for b.Loop() {
				b.StopTimer()
				c := newBenchChain(b, bench.base, bench.length, bench.data)
				b.StartTimer()
				c.run(bench.kind)
				b.StopTimer()
				c.close()
				b.StartTimer()
			}
		})
	}
}

// benchChain is a chain n0, n1, n2.
type benchChain struct {
	b     *testing.B
	graph *block.Graph
	set   *Set
	l     *aio.Lock
}

func newBenchChain(b *testing.B, base string, length, data int64) *benchChain {
	c := &benchChain{b: b, graph: block.New(block.Config{Drivers: []*block.Driver{raw.Driver(), file.Driver(), qcow2.Driver(), copyonread.Driver()}})}
	c.set = NewSet(Config{Main: c.graph.Main(), Changed: func(string, Status) {}, Events: &world{}})
	c.l = c.graph.Main().Acquire()
	dir := b.TempDir()
	for i, format := range []string{base, "qcow2", "qcow2"} {
		name := filepath.Join(dir, fmt.Sprint(i))
		image := block.NewImage{Filename: name, Format: format, Size: length}
		options := fmt.Sprintf(`{"driver": %q, "node-name": "n%d", "file": {"driver": "file", "filename": %q}`, format, i, name)
		if i > 0 {
			image.Backing = block.ImageBacking{Filename: filepath.Join(dir, fmt.Sprint(i-1)), Format: map[bool]string{true: base, false: "qcow2"}[i == 1]}
			options += fmt.Sprintf(`, "backing": "n%d"`, i-1)
		}
		c.must(c.graph.CreateImage(c.l, image))
		v, err := qjson.Parse([]byte(options + "}"))
		c.must(err)
		_, err = c.graph.AddNode(c.l, block.OptionsFromJSON(v))
		c.must(err)
		if i == 1 {
			c.fill(data)
		}
	}
	return c
}

// fill writes to n1.
func (c *benchChain) fill(data int64) {
	blk := c.graph.NewBackend("", block.PermWrite, block.PermAll)
	defer blk.Close(c.l)
	c.must(blk.Insert(c.l, c.graph.Node("n1")))
	buf := bytes.Repeat([]byte{7}, int(min(data, 1<<20)))
	for at := int64(0); at < data; at += int64(len(buf)) {
		c.must(blk.Pwritev(c.l, at, block.Vec{buf}, 0))
	}
}

func (c *benchChain) run(kind Type) {
	n := func(i int) *block.Node { return c.graph.Node(fmt.Sprintf("n%d", i)) }
	var (
		j   *BlockJob
		err error
	)
	if kind == Stream {
		j, err = c.set.CreateStream(c.l, StreamParams{Params: Params{ID: "j"}, Graph: c.graph, Node: n(2)})
	} else {
		j, err = c.set.CreateCommit(c.l, CommitParams{Params: Params{ID: "j"}, Graph: c.graph, Node: n(2), Top: n(1), Base: n(0)})
	}
	c.must(err)
	j.Start(c.l)
	aio.WaitWhile(c.l, func() bool { return c.set.Find(c.l, "j") != nil })
}

func (c *benchChain) close() {
	c.set.Close(c.l)
	c.l.Release()
	c.graph.Close()
}

func (c *benchChain) must(err error) {
	if err != nil {
		c.b.Helper()
		c.b.Fatal(err)
	}
}
