package quorum_test

import (
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

func TestRefusedOptions(t *testing.T) {
	t.Parallel()
	const (
		one       = `"children":["d0"]`
		two       = `"children":["d0","d1"]`
		blkverify = "blkverify=on can only be set if there are exactly two files and vote-threshold is 2"
		noArray   = "Option children is not a valid array"
		none      = "Number of provided children must be 1 or more"
		least     = "Parameter 'vote-threshold' expects a value >= 1"
	)
	v := newVoters(t, 2, `"vote-threshold":1`)
	v.Drop(v.blk)
	for _, c := range []struct{ options, err string }{
		{`"vote-threshold":1`, none},
		{`"children":[],"vote-threshold":1`, none},
		{`"children":"d0","vote-threshold":"x"`, none},
		{`"children":{"1":"d0"},"vote-threshold":1`, noArray},
		{`"children":{"0":"d0","2":"d0"},"vote-threshold":1`, noArray},
		{`"children":{"0":"d0","00":"d0"},"vote-threshold":1`, noArray},
		{`"children":{"0":"d0","x":"d0"},"vote-threshold":1`, noArray},
		{`"children":{"0":"d0","0.driver":"mem"},"vote-threshold":1`, noArray},
		{one, least},
		{one + `,"vote-threshold":-1`, least},
		{one + `,"vote-threshold":2147483648`, least},
		{one + `,"vote-threshold":"x"`, "Parameter 'vote-threshold' expects a number"},
		{one + `,"vote-threshold":2`, "threshold may not exceed children count"},
		{one + `,"vote-threshold":1,"read-pattern":"x"`, "Please set read-pattern as fifo or quorum"},
		{one + `,"vote-threshold":"x","blkverify":"z","rewrite-corrupted":"z"`, "Parameter 'blkverify' expects 'on' or 'off'"},
		{one + `,"vote-threshold":"x","rewrite-corrupted":"z"`, "Parameter 'rewrite-corrupted' expects 'on' or 'off'"},
		{one + `,"vote-threshold":1,"blkverify":true`, blkverify},
		{two + `,"vote-threshold":1,"blkverify":true`, blkverify},
		{two + `,"vote-threshold":2,"blkverify":true,"rewrite-corrupted":true`, "rewrite-corrupted=on cannot be used with blkverify=on"},
		{`"children":["nope"],"vote-threshold":1`, "Cannot find device='nope' nor node-name='nope'"},
		{`"children":["d0",{}],"vote-threshold":1`, `A block device must be specified for "children.1"`},
		{`"children":["d0","x"],"vote-threshold":1`, "Making 'x' a children.1 child of 'x' would create a cycle"},
		{`"children":["d0",{"driver":"mem","size":1024}],"vote-threshold":1`, "Could not refresh total sector count: Input/output error"},
		{one + `,"vote-threshold":1,"foo":1`, "Block format 'quorum' does not support the option 'foo'"},
	} {
		nodes := v.Graph.Len()
		if _, err := v.TryAdd(`{"driver":"quorum","node-name":"x",` + c.options + `}`); text(err) != c.err {
			t.Errorf("%s: %q, want %q", c.options, text(err), c.err)
		}
		if v.Graph.Len() != nodes {
			t.Errorf("%s: a node was left behind", c.options)
		}
	}
}

// The upper half of a threshold goes unnoticed, and with fifo both blkverify and
// rewrite-corrupted do.
func TestOddOptions(t *testing.T) {
	t.Parallel()
	for _, options := range []string{
		`"vote-threshold":4294967297`,
		`"vote-threshold":1,"read-pattern":"fifo","blkverify":true,"rewrite-corrupted":true`,
	} {
		v := newVoters(t, 1, options)
		if perm := v.node.Child("children.0").Perm(); perm != block.PermAll {
			t.Errorf("%s: takes %v", options, perm)
		}
		v.Drop(v.blk)
		if perm := v.node.Child("children.0").Perm(); perm != 0 {
			t.Errorf("%s: takes %v without users", options, perm)
		}
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	const keep = block.PermConsistentRead | block.PermWriteUnchanged
	for _, c := range []struct {
		options      string
		perm, shared block.Perm // of the user
		takes, lets  block.Perm
	}{
		{`"vote-threshold":1`, 0, block.PermAll, 0, keep},
		{`"vote-threshold":1`, block.PermAll, block.PermAll, block.PermAll, keep},
		{`"vote-threshold":1`, block.PermConsistentRead, 0, block.PermConsistentRead, 0},
		{`"vote-threshold":1,"rewrite-corrupted":true`, 0, block.PermAll, block.PermWrite, keep},
	} {
		v := newVoters(t, 2, c.options)
		v.Drop(v.blk)
		if _, err := v.TryUse(v.node, c.perm, c.shared); err != nil {
			t.Fatal(err)
		}
		for _, edge := range v.node.Children() {
			if edge.Perm() != c.takes || edge.Shared() != c.lets {
				t.Errorf("%+v: %v, shared %v", c, edge.Perm(), edge.Shared())
			}
		}
	}
}

const reopened = "Block format 'quorum' used by node 'q' does not support reopening files"

func TestNode(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 2, `"vote-threshold":2,"read-pattern":"quorum"`)
	const name = `json:{"read-pattern": "quorum", "children": [{"driver": "mem", "size": 65536}, {"driver": "mem", "size": 65536}], ` +
		`"driver": "quorum", "vote-threshold": 2}`
	if v.node.Filename() != name {
		t.Errorf("its name is %s", v.node.Filename())
	}
	if err := v.blk.Truncate(aio.Outside, 1024, true, block.PreallocOff, 0); text(err) != "Image format driver does not support resize" {
		t.Errorf("resizing: %v", err)
	}
	if err := v.Reopen(`{"driver":"quorum","node-name":"q","children":["d0","d1"],"vote-threshold":1}`); text(err) != reopened {
		t.Errorf("reopening: %v", err)
	}
}

// Zeroes can be as cheap as in the child where they are dearest.
func TestLimits(t *testing.T) {
	t.Parallel()
	v := newBench(t)
	v.Add(`{"driver":"mem","node-name":"a","zero":true,"immediate":true,"max-transfer":4096}`)
	v.Add(`{"driver":"mem","node-name":"b","immediate":true}`)
	for _, c := range []struct {
		children    string
		read, zero  block.ReqFlags
		maxTransfer int64
	}{
		{`"a"`, block.ReqImmediate, block.ReqMayUnmap | block.ReqNoFallback, 4096},
		{`"a","b"`, block.ReqImmediate, 0, 4096},
		{`"b",{"driver":"mem"}`, 0, 0, 0},
	} {
		n := v.Add(`{"driver":"quorum","node-name":"q","vote-threshold":1,"children":[` + c.children + `]}`)
		l := *n.Limits()
		if l.ReadFlags != c.read || l.ZeroFlags != c.zero|block.ReqWriteUnchanged || l.WriteFlags != block.ReqWriteUnchanged ||
			l.MaxTransfer != c.maxTransfer || l.RequestAlignment != 1 {
			t.Errorf("%s: %+v", c.children, l)
		}
		v.Delete("q")
	}
}
