package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

const chainLength = 2<<20 + 512

// layer is an image of a chain.
type layer struct {
	size int64
	raw  bool
	// writes is how often something is written to it.
	writes int
	// filter is the driver of a filter over it, "" for none.
	filter string
}

// layers are those of an ordinary chain.
func layers(depth int) []layer {
	return slices.Repeat([]layer{{size: chainLength, writes: 12}}, depth)
}

// chain is a chain of images n0, n1 … with random data, where a filter over n1 is
// f1, and what a reader of the top should find.
type chain struct {
	*world
	dir    string
	layers []layer
	top    *block.Backend

	mu    sync.Mutex // protects what follows from the writers
	rand  *rand.Rand
	noise *rand.ChaCha8
	model []byte
}

func newChain(t *testing.T, seed uint64, list []layer) *chain {
	t.Helper()
	noise := rand.NewChaCha8([32]byte{byte(seed), byte(len(list))})
	c := &chain{world: newWorld(t), dir: t.TempDir(), layers: list, rand: rand.New(noise), noise: noise}
	for i, l := range list {
		c.open(i)
		// An image shows zeroes behind the end of the one behind it.
		shown := make([]byte, l.size)
		copy(shown, c.model)
		c.model = shown
		c.use(c.name(i))
		for range l.writes {
			c.write(c.l)
		}
		if i < len(list)-1 {
			c.top.Close(c.l)
		}
	}
	t.Cleanup(func() { c.top.Close(c.l) })
	return c
}

// name is that of an image, or of the filter over it.
func (c *chain) name(i int) string {
	if c.layers[i].filter != "" {
		return fmt.Sprintf("f%d", i)
	}
	return fmt.Sprintf("n%d", i)
}

func (c *chain) file(i int) string { return filepath.Join(c.dir, fmt.Sprintf("%d.%s", i, c.format(i))) }

func (c *chain) format(i int) string {
	if c.layers[i].raw {
		return "raw"
	}
	return "qcow2"
}

// open makes an image and a node of it.
func (c *chain) open(i int) {
	c.t.Helper()
	image := block.NewImage{Filename: c.file(i), Format: c.format(i), Size: c.layers[i].size}
	backing := ""
	if !c.layers[i].raw {
		backing = `, "backing": null`
	}
	if i > 0 {
		image.Backing = block.ImageBacking{Filename: c.file(i - 1), Format: c.format(i - 1)}
		backing = fmt.Sprintf(`, "backing": %q`, c.name(i-1))
	}
	c.unlocked(func() error { return c.graph.CreateImage(c.l, image) })
	c.unlocked(func() error {
		return c.add(fmt.Sprintf(`{"driver": %q, "node-name": "n%d", "file": {"driver": "file", "filename": %q}%s}`,
			c.format(i), i, c.file(i), backing))
	})
	switch filter := c.layers[i].filter; filter {
	case "":
	case "blkdebug":
		c.check(c.add(fmt.Sprintf(`{"driver": %q, "node-name": "f%d", "image": "n%d"}`, filter, i, i)), "")
	default:
		c.check(c.add(fmt.Sprintf(`{"driver": %q, "node-name": "f%d", "file": "n%d"}`, filter, i, i)), "")
	}
}

// unlocked opens files, and tries it again as long as they are locked: another
// test's tool has a copy of every descriptor from its fork until its exec, and so
// of the locks of those that are closed meanwhile.
func (c *chain) unlocked(open func() error) {
	c.t.Helper()
	err := open()
	for err != nil && strings.Contains(err.Error(), "Failed to get") {
		c.l.Unlocked(runtime.Gosched)
		err = open()
	}
	c.check(err, "")
}

// use makes a node the one that is read and written.
func (c *chain) use(name string) {
	c.t.Helper()
	c.top = c.graph.NewBackend("", block.PermConsistentRead|block.PermWrite, block.PermAll&^block.PermResize)
	c.check(c.top.Insert(c.l, c.graph.Node(name)), "")
}

// write changes something somewhere: data, zeroes, or nothing that a reader
// would see.
func (c *chain) write(caller aio.Caller) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	sectors := len(c.model) / 512
	offset := c.rand.IntN(sectors)
	count := min(1+c.rand.IntN(400), sectors-offset) * 512
	area := c.model[offset*512:][:count]
	switch c.rand.IntN(6) {
	case 0, 1:
		clear(area)
		c.check(c.top.PwriteZeroes(caller, int64(offset)*512, int64(count), 0), "")
	case 2:
		c.check(c.top.Flush(caller), "")
	default:
		_, _ = c.noise.Read(area) // it never fails
		c.check(c.top.Pwritev(caller, int64(offset)*512, block.Vec{bytes.Clone(area)}, 0), "")
	}
}

// compare reads everything.
func (c *chain) compare(caller aio.Caller) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	got := make([]byte, len(c.model))
	c.check(c.top.Preadv(caller, 0, block.Vec{got}), "")
	if bytes.Equal(got, c.model) {
		return
	}
	for i := range got {
		if got[i] != c.model[i] {
			c.t.Errorf("at %d: got %#x, want %#x", i, got[i], c.model[i])
			return
		}
	}
}

// under runs f while others write and read from other goroutines.
func (c *chain) under(f func()) {
	c.t.Helper()
	done := make(chan struct{})
	var users sync.WaitGroup
	for n := range 3 {
		users.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if n == 0 {
					c.compare(aio.Outside)
				} else {
					c.write(aio.Outside)
				}
			}
		})
	}
	f()
	close(done)
	c.l.Unlocked(users.Wait)
}

// finish starts a job and waits for its end, while others write.
func (c *chain) finish(j *BlockJob) {
	c.t.Helper()
	c.under(func() {
		j.Start(c.l)
		c.gone(j)
	})
	c.compare(c.l)
}

// gone waits until a job is no more.
func (c *chain) gone(j *BlockJob) {
	aio.WaitWhile(c.l, func() bool { return slices.Contains(c.set.List(c.l), j.Job) })
}

// chain lists the nodes from the top down.
func (c *chain) nodes() (names []string) {
	for n := c.top.Node(); n != nil; n = n.FilterOrCow() {
		names = append(names, n.Name())
	}
	return names
}

// settle closes everything, takes away the images that are not needed any more
// and opens the top again by its file's name alone: images have to say
// themselves what is behind them. The tools of the reference agree with what is there.
func (c *chain) settle() {
	c.t.Helper()
	kept := c.nodes()
	c.top.Close(c.l)
	for i := len(c.layers) - 1; i >= 0; i-- {
		if c.layers[i].filter != "" {
			c.check(c.graph.DeleteNode(c.l, fmt.Sprintf("f%d", i)), "")
		}
		name := fmt.Sprintf("n%d", i)
		c.check(c.graph.DeleteNode(c.l, name), "")
		if !slices.Contains(kept, name) {
			c.check(os.Remove(c.file(i)), "")
		}
	}
	top := len(c.layers) - 1
	c.unlocked(func() error {
		return c.add(fmt.Sprintf(`{"driver": "qcow2", "node-name": "again", "file": {"driver": "file", "filename": %q}}`, c.file(top)))
	})
	c.use("again")
	c.compare(c.l)
	c.askTools(kept)
}

// askTools has qemu-img check the images that are left, and tell what is behind
// them.
func (c *chain) askTools(kept []string) {
	c.t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if os.Getenv("CI") == "true" {
			daemon.Missing(c.t, "no qemu-img")
		}
		return
	}
	var images []int
	for i := len(c.layers) - 1; i >= 0; i-- {
		if slices.Contains(kept, fmt.Sprintf("n%d", i)) {
			images = append(images, i)
		}
	}
	for k, i := range images {
		if c.layers[i].raw {
			continue
		}
		c.tool("check", "-U", c.file(i))
		var info struct {
			Behind string `json:"full-backing-filename"`
			Format string `json:"backing-filename-format"`
		}
		c.check(json.Unmarshal(c.tool("info", "-U", "--output=json", c.file(i)), &info), "")
		var file, format string
		if k+1 < len(images) {
			file, format = c.file(images[k+1]), c.format(images[k+1])
		}
		if info.Behind != file || info.Format != format {
			c.t.Errorf("%s is over %q (%s), want %q (%s)", c.file(i), info.Behind, info.Format, file, format)
		}
	}
}

func (c *chain) tool(args ...string) []byte {
	c.t.Helper()
	out, err := exec.Command("qemu-img", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		c.t.Errorf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// chainJob is a stream or a commit in a chain of four, by the images' numbers;
// -1 stands for none.
type chainJob struct {
	kind               Type
	top, base, bottom  int
	want               []string
	filtered, unevenly bool
}

func (j chainJob) String() string {
	return fmt.Sprintf("%s top %d base %d bottom %d filters %v sizes %v", j.kind, j.top, j.base, j.bottom, j.filtered, j.unevenly)
}

// chainJobs are all that there are.
func chainJobs() (list []chainJob) {
	for _, j := range []chainJob{
		{kind: Stream, base: -1, bottom: -1, want: []string{"n3"}},
		{kind: Stream, base: 0, bottom: -1, want: []string{"n3", "n0"}},
		{kind: Stream, base: 1, bottom: -1, want: []string{"n3", "n1", "n0"}},
		{kind: Stream, base: 2, bottom: -1, want: []string{"n3", "n2", "n1", "n0"}},
		{kind: Stream, base: -1, bottom: 0, want: []string{"n3"}},
		{kind: Stream, base: -1, bottom: 1, want: []string{"n3", "n0"}},
		{kind: Stream, base: -1, bottom: 2, want: []string{"n3", "n1", "n0"}},
		{kind: Commit, top: 1, base: 0, want: []string{"n3", "n2", "n0"}},
		{kind: Commit, top: 2, base: 0, want: []string{"n3", "n0"}},
		{kind: Commit, top: 2, base: 1, want: []string{"n3", "n1", "n0"}},
	} {
		list = append(list, j)
		j.unevenly = true
		list = append(list, j)
		j.filtered = true
		list = append(list, j)
	}
	return list
}

// mayFilter tells whether a filter can stand over an image: over the top, over
// what is taken out, over what a stream leaves behind the top. Below an image that
// stays it would become part of that one's name, and over the top of a commit it
// would keep the image above from being told.
func (j chainJob) mayFilter(i int) bool {
	gone := !slices.Contains(j.want, fmt.Sprintf("n%d", i))
	return i == 3 || gone && (j.kind == Stream || i < j.top) || j.kind == Stream && i == j.base || j.kind == Commit && i > j.top
}

// make makes the chain for the job.
func (j chainJob) make(t *testing.T, seed uint64) *chain {
	list := layers(4)
	r := rand.New(rand.NewPCG(seed, 7))
	if j.unevenly {
		list[0].raw = r.IntN(2) == 0
		for i := range list {
			list[i].size = (1 + r.Int64N(8)) << 18
			list[i].writes = r.IntN(30)
			if seed == 0 && (i == 0 || i == 3) {
				// Where the middle has ended, neither end shows the other.
				list[i].size, list[i].writes = 9<<18, 30
			}
		}
	}
	for i := range list {
		if j.filtered && j.mayFilter(i) {
			list[i].filter = []string{"copy-on-read", "blkdebug", ""}[r.IntN(3)]
		}
	}
	return newChain(t, seed, list)
}

func (j chainJob) create(c *chain, params Params) (*BlockJob, error) {
	node := func(i int) *block.Node {
		if i < 0 {
			return nil
		}
		return c.graph.Node(fmt.Sprintf("n%d", i))
	}
	if j.kind == Stream {
		base := node(j.base)
		if j.base >= 0 {
			base = c.graph.Node(c.name(j.base))
		}
		return c.set.CreateStream(c.l, StreamParams{Params: params, Graph: c.graph, Node: node(3), Base: base, Bottom: node(j.bottom)})
	}
	return c.set.CreateCommit(c.l, CommitParams{
		Params: params, Graph: c.graph, Node: c.top.Node(), Top: node(j.top), Base: node(j.base),
	})
}

// TestChainContent: whatever is taken out of a chain, and while others write,
// readers see what they should, and do not need any more what was taken out.
func TestChainContent(t *testing.T) {
	t.Parallel()
	for _, j := range chainJobs() {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%v/%d", j, seed), func(t *testing.T) {
				t.Parallel()
				c := j.make(t, seed)
				job, err := j.create(c, Params{ID: "j"})
				c.check(err, "")
				c.finish(job)
				var images []string
				for _, name := range c.nodes() {
					if strings.HasPrefix(name, "n") {
						images = append(images, name)
					}
				}
				if !slices.Equal(images, j.want) {
					t.Errorf("the chain is %q, want %q", images, j.want)
				}
				c.settle()
			})
		}
	}
}

// eachChainJob runs do for each job on a chain of images of several sizes, while
// others write and read.
func eachChainJob(t *testing.T, seed uint64, do func(*testing.T, chainJob, *chain)) {
	t.Helper()
	t.Parallel()
	for _, j := range chainJobs() {
		if j.filtered || !j.unevenly {
			continue
		}
		t.Run(j.String(), func(t *testing.T) {
			t.Parallel()
			c := j.make(t, seed)
			do(t, j, c)
			c.settle()
		})
	}
}

// TestChainPaused: jobs that are paused, made slow and let go again come to the
// same end.
func TestChainPaused(t *testing.T) {
	eachChainJob(t, 11, func(_ *testing.T, j chainJob, c *chain) {
		job, err := j.create(c, Params{ID: "j", ManualFinalize: true})
		c.check(err, "")
		c.under(func() {
			c.check(job.SetSpeed(c.l, 1), "")
			job.Start(c.l)
			for range 5 {
				if job.Pause(c.l) != nil {
					break // it is over already
				}
				aio.WaitWhile(c.l, func() bool { return job.Status(c.l) == Running })
				_ = job.SetSpeed(c.l, 1<<20)
				_ = job.Resume(c.l)
			}
			_ = job.SetSpeed(c.l, 0)
			aio.WaitWhile(c.l, func() bool { return job.Status(c.l) != Pending })
			c.check(job.Finalize(c.l), "")
			c.gone(job)
		})
	})
}

// TestChainSpeed: the speed of a job may change whatever the job is at.
func TestChainSpeed(t *testing.T) {
	eachChainJob(t, 3, func(_ *testing.T, j chainJob, c *chain) {
		job, err := j.create(c, Params{ID: "j", ManualFinalize: true})
		c.check(err, "")
		c.under(func() {
			job.Start(c.l)
			for speed := int64(1 << 40); job.Status(c.l) != Pending; speed = 1<<40 - speed {
				c.check(job.SetSpeed(c.l, speed), "")
				aio.WaitWhile(c.l, func() bool { return false }) // what was posted has its turn
			}
			c.check(job.Finalize(c.l), "")
			c.gone(job)
		})
	})
}

// TestChainCancelled: a job that ends early, at whatever point, leaves the chain
// as it was.
func TestChainCancelled(t *testing.T) {
	eachChainJob(t, 5, func(t *testing.T, j chainJob, c *chain) {
		before := c.nodes()
		for _, state := range []Status{Created, Running, Paused, Pending} {
			job, err := j.create(c, Params{ID: "j", ManualFinalize: true})
			c.check(err, "")
			c.under(func() { c.cancelIn(job, state) })
			if after := c.nodes(); !slices.Equal(after, before) {
				t.Errorf("cancelled in state %s: the chain is %q, was %q", state, after, before)
			}
		}
	})
}

// cancelIn cancels a job in a state.
func (c *chain) cancelIn(j *BlockJob, state Status) {
	c.t.Helper()
	if state == Running || state == Paused {
		c.check(j.SetSpeed(c.l, 1), "")
	}
	if state != Created {
		j.Start(c.l)
	}
	if state == Paused && j.Pause(c.l) != nil {
		state = Pending // it had nothing to do
	}
	aio.WaitWhile(c.l, func() bool { return j.Status(c.l) != state && j.Status(c.l) != Pending })
	c.check(j.Cancel(c.l, true), "")
	c.gone(j)
}
