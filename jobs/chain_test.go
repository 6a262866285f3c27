package jobs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

const chainLength = 4<<20 + 512

// chain is a chain of qcow2 images n0, n1 … with random data, and what a reader
// of the top should find.
type chain struct {
	*world
	dir   string
	rand  *rand.Rand
	model []byte
	top   *block.Backend
}

func newChain(t *testing.T, depth int) *chain {
	t.Helper()
	c := &chain{
		world: newWorld(t), dir: t.TempDir(), model: make([]byte, chainLength),
		rand: rand.New(rand.NewPCG(1, uint64(depth))),
	}
	for i := range depth {
		image := block.NewImage{Filename: c.file(i), Format: "qcow2", Size: chainLength}
		backing := "null"
		if i > 0 {
			image.Backing = block.ImageBacking{Filename: c.file(i - 1), Format: "qcow2"}
			backing = fmt.Sprintf(`"n%d"`, i-1)
		}
		c.check(c.graph.CreateImage(c.l, image), "")
		options := fmt.Sprintf(`{"driver": "qcow2", "node-name": "n%d", "backing": %s, "file": {"driver": "file", "filename": %q}}`,
			i, backing, c.file(i))
		c.check(c.add(options), "")
		c.use(fmt.Sprintf("n%d", i))
		for range 12 {
			c.write()
		}
		if i < depth-1 {
			c.top.Close(c.l)
		}
	}
	t.Cleanup(func() { c.top.Close(c.l) })
	return c
}

func (c *chain) file(i int) string { return filepath.Join(c.dir, fmt.Sprintf("%d.qcow2", i)) }

// use makes a node the one that is read and written.
func (c *chain) use(name string) {
	c.t.Helper()
	c.top = c.graph.NewBackend("", block.PermConsistentRead|block.PermWrite, block.PermAll&^block.PermResize)
	c.check(c.top.Insert(c.l, c.graph.Node(name)), "")
}

// write changes something somewhere, data or zeroes.
func (c *chain) write() {
	c.t.Helper()
	offset := c.rand.IntN(chainLength / 512)
	count := min(1+c.rand.IntN(400), chainLength/512-offset) * 512
	area := c.model[offset*512:][:count]
	clear(area)
	if c.rand.IntN(3) == 0 {
		c.check(c.top.PwriteZeroes(c.l, int64(offset)*512, int64(count), 0), "")
		return
	}
	for i := range area {
		area[i] = byte(c.rand.Uint32())
	}
	c.check(c.top.Pwritev(c.l, int64(offset)*512, block.Vec{bytes.Clone(area)}, 0), "")
}

// compare reads everything.
func (c *chain) compare() {
	c.t.Helper()
	got := make([]byte, chainLength)
	c.check(c.top.Preadv(c.l, 0, block.Vec{got}), "")
	for i := range got {
		if got[i] != c.model[i] {
			c.t.Fatalf("at %d: got %#x, want %#x", i, got[i], c.model[i])
		}
	}
}

// finish writes on until the job has ended.
func (c *chain) finish(j *BlockJob) {
	c.t.Helper()
	j.Start(c.l)
	for c.set.Find(c.l, j.ID()) != nil {
		c.write()
		c.compare()
	}
	c.compare()
	aio.WaitWhile(c.l, func() bool { return c.set.Find(c.l, j.ID()) != nil })
}

// reopen opens the top by its file's name alone: images have to say themselves
// what is behind them.
func (c *chain) reopen(depth int) {
	c.t.Helper()
	c.top.Close(c.l)
	for i := depth - 1; i >= 0; i-- {
		c.check(c.graph.DeleteNode(c.l, fmt.Sprintf("n%d", i)), "")
	}
	c.check(c.add(fmt.Sprintf(`{"driver": "qcow2", "node-name": "again", "file": {"driver": "file", "filename": %q}}`, c.file(depth-1))), "")
	c.use("again")
	c.compare()
}

// behind is the name of a node's backing file.
func (c *chain) behind(name string) string {
	if b := c.graph.Node(name).BackingOf(); b != nil {
		return b.Name()
	}
	return ""
}

func TestStreamContent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ base, want string }{{"", ""}, {"n0", "n0"}, {"n1", "n1"}, {"n2", "n2"}} {
		t.Run("base "+test.base, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, 4)
			p := StreamParams{Params: Params{ID: "j"}, Graph: c.graph, Node: c.graph.Node("n3")}
			if test.base != "" {
				p.Base = c.graph.Node(test.base)
			}
			j, err := c.set.CreateStream(c.l, p)
			c.check(err, "")
			c.finish(j)
			if got := c.behind("n3"); got != test.want {
				t.Errorf("%q is behind the top, want %q", got, test.want)
			}
			c.reopen(4)
		})
	}
}

func TestCommitContent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ top, base string }{{"n1", "n0"}, {"n2", "n0"}, {"n2", "n1"}} {
		t.Run(test.top+" into "+test.base, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, 4)
			j, err := c.set.CreateCommit(c.l, CommitParams{
				Params: Params{ID: "j"}, Graph: c.graph,
				Node: c.graph.Node("n3"), Top: c.graph.Node(test.top), Base: c.graph.Node(test.base),
			})
			c.check(err, "")
			c.finish(j)
			over := map[string]string{"n1": "n2", "n2": "n3"}[test.top]
			if got := c.behind(over); got != test.base {
				t.Errorf("%q is behind %s, want %q", got, over, test.base)
			}
			c.reopen(4)
		})
	}
}

// TestCancelledChain: a job that ends early leaves the chain as it was.
func TestCancelledChain(t *testing.T) {
	t.Parallel()
	c := newChain(t, 4)
	for _, kind := range []Type{Stream, Commit} {
		var (
			j   *BlockJob
			err error
		)
		if kind == Stream {
			j, err = c.set.CreateStream(c.l, StreamParams{Params: Params{ID: "j"}, Graph: c.graph, Node: c.graph.Node("n3"), Speed: 1})
		} else {
			j, err = c.set.CreateCommit(c.l, CommitParams{
				Params: Params{ID: "j"}, Graph: c.graph, Speed: 1,
				Node: c.graph.Node("n3"), Top: c.graph.Node("n2"), Base: c.graph.Node("n0"),
			})
		}
		c.check(err, "")
		j.Start(c.l)
		for range 5 {
			c.write()
		}
		c.check(j.Cancel(c.l, true), "")
		aio.WaitWhile(c.l, func() bool { return c.set.Find(c.l, "j") != nil })
		for i, want := range []string{"", "n0", "n1", "n2"} {
			if got := c.behind(fmt.Sprintf("n%d", i)); got != want {
				t.Errorf("%s: %q is behind n%d, want %q", kind, got, i, want)
			}
		}
		c.compare()
	}
	c.reopen(4)
}
