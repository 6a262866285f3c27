package block_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// dump prints the whole graph, orders included: what a failed change must
// leave as it was.
func dump(b *drivertest.Bench) string {
	var s strings.Builder
	b.Main(func(*aio.Lock) {
		for _, n := range b.Graph.Dump().Nodes {
			fmt.Fprintf(&s, "%d %q\n", n.ID, n.Name)
		}
		for _, e := range b.Graph.Dump().Edges {
			fmt.Fprintf(&s, "%d -%s-> %d: %v; %v\n", e.Parent, e.Name, e.Child, e.Perm, e.Shared)
		}
		b.Graph.Nodes(func(n *block.Node) bool {
			fmt.Fprintf(&s, "%s: %s %v, options %s, parents", n.Name(), n.Filename(), n.Flags(), n.Options().AppendJSON(nil))
			n.Parents(func(c *block.Child) bool {
				if p := c.ParentNode(); p != nil {
					fmt.Fprintf(&s, " %s.%s", p.Name(), c.Name())
				} else {
					s.WriteString(" a backend")
				}
				return true
			})
			perm, shared := n.Cumulative()
			fmt.Fprintf(&s, ", together %v; %v\n", perm, shared)
			return true
		})
	})
	return s.String()
}

func TestNames(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"null-co","node-name":"a1.b-c_d"}`)
	long := strings.Repeat("n", 31)
	b.Add(`{"driver":"null-co","node-name":"` + long + `"}`)
	for _, c := range []struct{ json, err string }{
		{`{"driver":"null-co"}`, "'node-name' must be specified for the root node"},
		{`{"driver":"null-co","node-name":""}`, "Invalid node-name: ''"},
		{`{"driver":"null-co","node-name":"1a"}`, "Invalid node-name: '1a'"},
		{`{"driver":"null-co","node-name":"#block1"}`, "Invalid node-name: '#block1'"},
		{`{"driver":"null-co","node-name":"a/b"}`, "Invalid node-name: 'a/b'"},
		{`{"driver":"null-co","node-name":"a1.b-c_d"}`, "Duplicate nodes with node-name='a1.b-c_d'"},
		{`{"driver":"null-co","node-name":"n` + long + `"}`, "Node name too long"},
		{`{"driver":"nope","node-name":"x"}`, "Unknown driver 'nope'"},
		{`{"node-name":"x"}`, "Must specify either driver or file"},
		{`{"driver":"null-co","node-name":"x","bogus":1}`, "Block protocol 'null-co' doesn't support the option 'bogus'"},
		{`{"driver":"raw","node-name":"x","file":"a1.b-c_d","bogus":1}`, "Block format 'raw' does not support the option 'bogus'"},
		{`{"driver":"raw","node-name":"x"}`, `A block device must be specified for "file"`},
		{`{"driver":"raw","node-name":"x","file":"nope"}`, "Cannot find device='nope' nor node-name='nope'"},
	} {
		if _, err := b.TryAdd(c.json); text(err) != c.err {
			t.Errorf("%s: %q, want %q", c.json, text(err), c.err)
		}
	}
	if n := b.Graph.Len(); n != 2 {
		t.Errorf("there are %d nodes", n)
	}
}

// Generated names count every unnamed node, those that failed as well, and
// end in two random digits. A child is named before its parent.
func TestGeneratedNames(t *testing.T) {
	t.Parallel()
	b := bench(t)
	chain := `{"driver":"raw","node-name":"top","file":{"driver":"raw","file":{"driver":"null-co","size":512}}}`
	b.Add(chain)
	var names []string
	b.Graph.NodesOldestFirst(func(n *block.Node) bool {
		names = append(names, n.Name())
		return true
	})
	_, err := b.TryAdd(strings.Replace(chain, `"top",`, `"top2","offset":1024,`, 1))
	if err == nil {
		t.Fatal("a window behind the end was opened")
	}
	n := b.Add(`{"driver":"raw","node-name":"last","file":{"driver":"null-co"}}`)
	names = append(names, n.File().Node().Name())
	got := strings.Join(names, " ")
	if !regexp.MustCompile(`^#block0\d\d #block1\d\d top #block4\d\d$`).MatchString(got) {
		t.Errorf("the names are %s", got)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"raw","node-name":"r0","file":{"driver":"mem","node-name":"inner","size":512}}`)
	b.Add(`{"driver":"raw","node-name":"r1","file":"inner"}`)
	inner := drivertest.DiskOf(b.Graph.Node("inner"))
	blk := b.Use(b.Graph.Node("r1"))
	for _, c := range []struct{ name, err string }{
		{"nope", "Failed to find node with node-name='nope'"},
		{"inner", "Node inner is not owned by the monitor"},
		{"r1", "Node r1 is in use"},
	} {
		if err := b.TryDelete(c.name); text(err) != c.err {
			t.Errorf("%s: %q, want %q", c.name, text(err), c.err)
		}
	}
	b.Drop(blk)
	b.Delete("r0")
	if inner.Closed() || b.Graph.Node("inner") == nil {
		t.Error("the inner node is gone while somebody uses it")
	}
	b.Add(`{"driver":"raw","node-name":"r2","file":"r1"}`)
	if err := b.TryDelete("r1"); text(err) != "Block device r1 is in use" {
		t.Errorf("got %v", err)
	}
	b.Delete("r2")
	b.Delete("r1")
	if !inner.Closed() || b.Graph.Len() != 0 {
		t.Error("something was left behind")
	}
}

func TestDeleteBlocked(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"null-co","node-name":"n"}`)
	first, second := &block.Blocker{Reason: "it sleeps"}, &block.Blocker{Reason: "it eats"}
	n.Block(block.BlockOpDelete, first)
	n.Block(block.BlockOpDelete, second)
	n.Block(block.BlockOpResize, first)
	for _, want := range []string{"Node 'n' is busy: it eats", "Node 'n' is busy: it sleeps", ""} {
		err := n.CheckBlocked(block.BlockOpDelete)
		if text(err) != want {
			t.Errorf("got %v, want %q", err, want)
		}
		n.Unblock(block.BlockOpDelete, second)
		if want == "Node 'n' is busy: it sleeps" {
			n.Unblock(block.BlockOpDelete, first)
		}
	}
	if err := n.CheckBlocked(block.BlockOpResize); err == nil {
		t.Error("the other operation is free")
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	var device *block.Node
	b := drivertest.NewWith(t, block.Config{DeviceName: func(name string) *block.Node {
		if name == "vd0" {
			return device
		}
		return nil
	}})
	device = b.Add(`{"driver":"mem","node-name":"a"}`)
	other := b.Add(`{"driver":"mem","node-name":"b"}`)
	for _, c := range []struct {
		device, node string
		want         *block.Node
		err          string
	}{
		{"vd0", "", device, ""},
		{"vd0", "b", device, ""},
		{"", "b", other, ""},
		{"b", "b", other, ""},
		{"b", "", nil, "Cannot find device='b' nor node-name=''"},
		{"", "x", nil, "Cannot find device='' nor node-name='x'"},
	} {
		n, err := b.Graph.Lookup(c.device, c.node)
		if n != c.want || text(err) != c.err {
			t.Errorf("%q, %q: %v, %v", c.device, c.node, n, err)
		}
	}
	const conflict = "node-name=vd0 is conflicting with a device id"
	if _, err := b.TryAdd(`{"driver":"mem","node-name":"vd0"}`); text(err) != conflict {
		t.Errorf("got %v", err)
	}
}

// attach makes an edge between two nodes that exist.
func attach(b *drivertest.Bench, parent, child, name string, role block.Role) (err error) {
	b.Main(func(l *aio.Lock) {
		err = b.Graph.Write(l, "test", func(w *block.Write) error {
			_, err := w.AttachChild(b.Graph.Node(parent), b.Graph.Node(child), name, role)
			return err
		})
	})
	return err
}

func TestCycles(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"null-co","node-name":"n"}`)
	b.Add(`{"driver":"raw","node-name":"a","file":"n"}`)
	b.Add(`{"driver":"raw","node-name":"b","file":"a"}`)
	b.Add(`{"driver":"raw","node-name":"c","file":"b"}`)
	before := dump(b)
	for _, c := range []struct{ parent, child string }{{"a", "c"}, {"n", "n"}, {"n", "c"}} {
		want := fmt.Sprintf("Making '%s' a extra child of '%s' would create a cycle", c.child, c.parent)
		if err := attach(b, c.parent, c.child, "extra", block.RoleFilter); text(err) != want {
			t.Errorf("%s over %s: %v", c.parent, c.child, err)
		}
	}
	if err := b.Reopen(`{"driver":"raw","node-name":"a","file":"c"}`); text(err) != "Making 'c' a file child of 'a' would create a cycle" {
		t.Errorf("got %v", err)
	}
	if after := dump(b); after != before {
		t.Errorf("the graph was\n%s, and is\n%s", before, after)
	}
}

// Whatever fails leaves the graph as it was.
func TestFailedChanges(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"mem","node-name":"f","size":1048576}`)
	b.Add(`{"driver":"mem","node-name":"g","size":1048576}`)
	b.Add(`{"driver":"raw","node-name":"r0","file":"f"}`)
	b.Add(`{"driver":"raw","node-name":"r1","file":"g","offset":512}`)
	writer, err := b.TryUse(b.Graph.Node("r0"), block.PermWrite|block.PermResize, block.PermAll&^block.PermWrite)
	must(t, err)
	resizer, err := b.TryUse(b.Graph.Node("f"), block.PermResize, block.PermAll)
	must(t, err)
	before := dump(b)
	add := func(json string) func() error {
		return func() error { _, err := b.TryAdd(json); return err }
	}
	for name, change := range map[string]func() error{
		"duplicate":             add(`{"driver":"raw","node-name":"r0","file":{"driver":"null-co","node-name":"x"}}`),
		"duplicate child":       add(`{"driver":"raw","node-name":"x","file":{"driver":"null-co","node-name":"f"}}`),
		"failing child":         add(`{"driver":"raw","node-name":"x","file":{"driver":"raw","node-name":"y","file":"nope"}}`),
		"failing late":          add(`{"driver":"raw","node-name":"x","size":1024,"file":{"driver":"null-co","size":512,"node-name":"y"}}`),
		"leftover option":       add(`{"driver":"raw","node-name":"x","bogus":1,"file":{"driver":"null-co","node-name":"y"}}`),
		"leftover of a child":   add(`{"driver":"raw","node-name":"x","file":{"driver":"null-co","bogus":1}}`),
		"permissions of a node": add(`{"driver":"raw","node-name":"x","file":"f","size":512}`),
		"permissions of a user": func() error {
			_, err := b.TryUse(b.Graph.Node("f"), block.PermWrite, block.PermAll)
			return err
		},
		"taking more": func() (err error) {
			b.Main(func(l *aio.Lock) { err = resizer.SetPerm(l, block.PermWrite, block.PermAll) })
			return err
		},
		"sharing less": func() (err error) {
			b.Main(func(l *aio.Lock) { err = resizer.SetPerm(l, block.PermResize, 0) })
			return err
		},
		"read-only under a writer": func() error { return b.Reopen(`{"driver":"raw","node-name":"r0","file":"f","read-only":true}`) },
		"second of two": func() error {
			return b.Reopen(`{"driver":"raw","node-name":"r1","file":"g","size":512}`, `{"driver":"raw","node-name":"r0","file":"f","read-only":true}`)
		},
		"file under a writer": func() error {
			return b.Reopen(`{"driver":"raw","node-name":"r1","file":"f","offset":1024}`)
		},
	} {
		if err := change(); err == nil {
			t.Errorf("%s: it did not fail", name)
		}
		if after := dump(b); after != before {
			t.Errorf("%s: the graph was\n%s, and is\n%s", name, before, after)
		}
	}
	must(t, outside{writer}.write(0, 512, 1))
}

// TestRollback: a write section that fails after any number of changes leaves
// no trace of them.
func TestRollback(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		b := bench(t)
		const leaves, parents = 4, 5
		for i := range leaves {
			b.Add(fmt.Sprintf(`{"driver":"mem","node-name":"n%d","size":4096}`, i))
		}
		for i := range parents {
			options := rapid.SampledFrom([]string{``, `,"size":512`, `,"read-only":true`}).Draw(rt, "options")
			file := fmt.Sprintf("n%d", rapid.IntRange(0, leaves-1).Draw(rt, "file"))
			if i > 0 && rapid.Bool().Draw(rt, "chain") {
				file = fmt.Sprintf("r%d", rapid.IntRange(0, i-1).Draw(rt, "file"))
			}
			b.Add(fmt.Sprintf(`{"driver":"raw","node-name":"r%d","file":"%s"%s}`, i, file, options))
		}
		node := func() *block.Node {
			i := rapid.IntRange(0, leaves+parents-1).Draw(rt, "node")
			if i < leaves {
				return b.Graph.Node(fmt.Sprintf("n%d", i))
			}
			return b.Graph.Node(fmt.Sprintf("r%d", i-leaves))
		}
		users := rapid.IntRange(0, 3).Draw(rt, "users")
		for range users {
			perm := block.Perm(rapid.IntRange(0, 15).Draw(rt, "perm"))
			_, _ = b.TryUse(node(), perm, block.PermAll&^block.Perm(rapid.IntRange(0, 15).Draw(rt, "denied")))
		}
		before := dump(b)
		abort := errors.New("abort")
		b.Main(func(l *aio.Lock) {
			err := b.Graph.Write(l, "test", func(w *block.Write) error {
				for range rapid.IntRange(1, 6).Draw(rt, "changes") {
					if err := change(rt, w, node); err != nil {
						return err
					}
				}
				return abort
			})
			if err == nil {
				rt.Fatal("the section did not fail")
			}
		})
		if after := dump(b); after != before {
			rt.Fatalf("the graph was\n%s, and is\n%s", before, after)
		}
	})
}

// change attaches or detaches a child somewhere, or replaces a node.
func change(rt *rapid.T, w *block.Write, node func() *block.Node) error {
	parent := node()
	children := parent.Children()
	kind := rapid.IntRange(0, 2).Draw(rt, "kind")
	if kind == 0 || len(children) == 0 {
		role := rapid.SampledFrom([]block.Role{block.RoleFilter, block.RoleImage, block.RoleData, block.RoleCOW}).Draw(rt, "role")
		_, err := w.AttachChild(parent, node(), "extra", role)
		return err
	}
	c := children[rapid.IntRange(0, len(children)-1).Draw(rt, "child")]
	if kind == 1 {
		return w.DetachChild(c)
	}
	return w.ReplaceNode(c.Node(), node())
}
