package block_test

import (
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

// pass is a filter that gets its child when it is put over a node.
func pass() *block.Driver {
	return &block.Driver{Name: "pass", Kind: block.Filter, Open: func(a *block.OpenArgs) (block.Instance, error) {
		return passing{a.Node}, nil
	}}
}

type passing struct{ node *block.Node }

func (passing) Close(*aio.Lock) {}

func (passing) CoGetLength(*aio.Co) (int64, error) { return 8192, nil }

func (p passing) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return p.node.File().CoPreadv(co, offset, v, flags)
}

func (p passing) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return p.node.File().CoPwritev(co, offset, v, flags)
}

// overlays has base, a chain top → mid → base of overlays, and a spare one.
func overlays(t *testing.T) *drivertest.Bench {
	b := drivertest.New(t, raw.Driver(), null.Co(), drivertest.OverlayDriver(), pass())
	b.Add(`{"driver":"mem","node-name":"base","size":8192}`)
	b.Add(`{"driver":"overlay","node-name":"mid","size":8192,"backing":"base"}`)
	b.Add(`{"driver":"overlay","node-name":"top","size":8192,"backing":"mid"}`)
	b.Add(`{"driver":"overlay","node-name":"spare","size":8192}`)
	return b
}

func nodes(b *drivertest.Bench, names ...string) []*block.Node {
	var list []*block.Node
	for _, name := range names {
		list = append(list, b.Graph.Node(name))
	}
	return list
}

func appendNode(b *drivertest.Bench, over, below string) (a *block.Appended, err error) {
	b.Main(func(l *aio.Lock) { a, err = b.Graph.Append(l, b.Graph.Node(over), b.Graph.Node(below)) })
	return a, err
}

// Users of the lower node become the upper one's, in the middle of their
// requests, and see the same data; undone, everything is as it was.
func TestAppend(t *testing.T) {
	t.Parallel()
	for _, over := range []string{"spare", "filter"} {
		t.Run(over, func(t *testing.T) {
			t.Parallel()
			b := overlays(t)
			b.Add(`{"driver":"pass","node-name":"filter"}`)
			b.Add(`{"driver":"raw","node-name":"user","file":"top"}`)
			blk := b.Use(b.Graph.Node("top"))
			must(t, outside{blk}.write(0, 512, 7))
			before := dump(b)
			a, err := appendNode(b, over, "top")
			must(t, err)
			if n := blk.Node(); n != b.Graph.Node(over) {
				t.Errorf("the backend uses %s", n.Name())
			}
			if n := b.Graph.Node("user").File().Node(); n != b.Graph.Node(over) {
				t.Errorf("the node uses %s", n.Name())
			}
			if got, err := (outside{blk}).read(0, 512); err != nil || got != 7 {
				t.Errorf("read %d, %v", got, err)
			}
			b.Main(a.Undo)
			if after := dump(b); after != before {
				t.Errorf("the graph was\n%s, and is\n%s", before, after)
			}
		})
	}
}

func TestAppendErrors(t *testing.T) {
	t.Parallel()
	b := overlays(t)
	_, err := b.TryUse(b.Graph.Node("base"), 0, all&^write)
	must(t, err)
	_, err = b.TryUse(b.Graph.Node("spare"), write, all)
	must(t, err)
	b.Add(`{"driver":"raw","node-name":"user","file":"spare"}`)
	b.Add(`{"driver":"pass","node-name":"filter"}`)
	_, err = b.TryUse(b.Graph.Node("filter"), write, all)
	must(t, err)
	before := dump(b)
	for _, c := range []struct{ over, below, err string }{
		{"spare", "spare", "Making 'spare' a backing child of 'spare' would create a cycle"},
		{"spare", "user", "Making 'user' a backing child of 'spare' would create a cycle"},
		{"filter", "base", "Permission conflict on node 'filter': permissions 'write' are both required by an unnamed block device " +
			"(uses node 'filter' as 'root' child) and unshared by an unnamed block device (uses node 'filter' as 'root' child)."},
	} {
		if _, err := appendNode(b, c.over, c.below); text(err) != c.err {
			t.Errorf("%s over %s: %q, want %q", c.over, c.below, text(err), c.err)
		}
		if after := dump(b); after != before {
			t.Errorf("%s over %s: the graph was\n%s, and is\n%s", c.over, c.below, before, after)
		}
	}
}

// What is below the new node stays where it is: moving it would make a cycle.
func TestReplaceNodeKeepsWhatIsBelow(t *testing.T) {
	t.Parallel()
	b := overlays(t)
	n := nodes(b, "base", "mid", "top", "spare")
	b.Add(`{"driver":"raw","node-name":"user","file":"base"}`)
	b.Main(func(l *aio.Lock) { must(t, b.Graph.ReplaceNode(l, n[0], n[2])) })
	if n[1].Backing().Node() != n[0] {
		t.Error("what is below has moved")
	}
	if b.Graph.Node("user").File().Node() != n[2] {
		t.Error("the user has stayed")
	}
	b.Main(func(l *aio.Lock) { must(t, b.Graph.ReplaceNode(l, n[2], n[2])) })
}

// A node that loses its last user and that no user of the daemon owns goes.
func TestDropFilter(t *testing.T) {
	t.Parallel()
	b := overlays(t)
	b.Add(`{"driver":"pass","node-name":"filter"}`)
	before := dump(b)
	_, err := appendNode(b, "filter", "mid")
	must(t, err)
	top := b.Graph.Node("top")
	if got := top.Backing().Node().Name(); got != "filter" {
		t.Fatalf("top is over %s", got)
	}
	if f := b.Graph.Node("mid"); f.BackingOf() != b.Graph.Node("base") || top.BackingOf() != f || top.FindBase() != b.Graph.Node("base") {
		t.Error("the filter is not skipped")
	}
	if got := top.FindOverlay(b.Graph.Node("mid")).Name(); got != "filter" {
		t.Errorf("%s is over mid", got)
	}
	b.Main(func(l *aio.Lock) { must(t, b.Graph.DropFilter(l, b.Graph.Node("filter"))) })
	if after := dump(b); after != before {
		t.Errorf("the graph was\n%s, and is\n%s", before, after)
	}
}

func TestFrozenChains(t *testing.T) {
	t.Parallel()
	b := overlays(t)
	n := nodes(b, "base", "mid", "top", "spare")
	base, mid, top, spare := n[0], n[1], n[2], n[3]
	must(t, top.FreezeChain(mid))
	before := dump(b)
	if err := top.FreezeChain(base); text(err) != "Cannot change 'backing' link from 'top' to 'mid'" {
		t.Errorf("freezing once more: %v", err)
	}
	must(t, mid.CheckFrozen(nil))
	set := func(n, to *block.Node) (err error) {
		b.Main(func(l *aio.Lock) {
			err = b.Graph.Write(l, "test", func(w *block.Write) error { return w.SetBacking(n, to) })
		})
		return err
	}
	for _, to := range []*block.Node{nil, base} {
		if err := set(top, to); text(err) != "Cannot change frozen 'backing' link from 'top' to 'mid'" {
			t.Errorf("setting: %v", err)
		}
	}
	if _, err := appendNode(b, "spare", "mid"); text(err) != "Cannot change 'backing' link to 'mid'" {
		t.Errorf("appending: %v", err)
	}
	if after := dump(b); after != before {
		t.Errorf("the graph was\n%s, and is\n%s", before, after)
	}
	top.UnfreezeChain(mid)
	must(t, set(top, base))
	must(t, set(top, base)) // it is there already
	users := 0
	base.Parents(func(*block.Child) bool { users++; return users < 10 })
	if users != 2 {
		t.Errorf("base has %d users", users)
	}
	must(t, set(mid, nil))
	must(t, set(mid, spare))
	if top.Backing().Node() != base || mid.Backing().Node() != spare {
		t.Error("the backing files are others")
	}
	must(t, set(top, nil))
	if top.Backing() != nil {
		t.Error("there is still a backing file")
	}
	if err := set(base, mid); text(err) != "Driver 'mem' of node 'base' does not support backing files" {
		t.Errorf("a driver without: %v", err)
	}
}

// A reopened node gets other backing files, or none, and its file exchanged
// becomes its newest child.
func TestReopenBacking(t *testing.T) {
	t.Parallel()
	b := overlays(t)
	b.Add(`{"driver":"raw","node-name":"user","file":"mid"}`)
	must(t, b.Reopen(`{"driver":"raw","node-name":"user","file":"spare"}`))
	if got := b.Graph.Node("user").File().Node().Name(); got != "spare" {
		t.Errorf("the file is %s", got)
	}
	if err := b.Graph.Node("base").CheckBlocked(block.BlockOpResize); text(err) != "Node 'base' is busy: node is used as backing hd of 'mid'" {
		t.Errorf("resizing: %v", err)
	}
	for _, op := range []block.BlockOp{block.BlockOpBackupSource, block.BlockOpBackupTarget, block.BlockOpCommitTarget, block.BlockOpStream} {
		must(t, b.Graph.Node("base").CheckBlocked(op))
	}
}

func TestSetReadOnly(t *testing.T) {
	t.Parallel()
	b := overlays(t)
	n := b.Add(`{"driver":"raw","node-name":"r","discard":"unmap","file":{"driver":"mem","node-name":"inner","size":8192}}`)
	for _, on := range []bool{true, true, false} {
		b.Main(func(l *aio.Lock) { must(t, n.SetReadOnly(l, on)) })
		if inner := b.Graph.Node("inner"); n.ReadOnly() != on || inner.ReadOnly() != on {
			t.Errorf("set to %v, read-only are %v and %v", on, n.ReadOnly(), inner.ReadOnly())
		}
	}
	must(t, b.Reopen(`{"driver":"raw","node-name":"r","read-only":false,"discard":"unmap","file":{"driver":"mem","node-name":"inner","size":8192}}`))
}
