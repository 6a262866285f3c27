package quorum_test

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// What reaches the children of a request.
func TestRequests(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 3, `"vote-threshold":1`)
	for _, c := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"write", func() error { return v.blk.Pwritev(aio.Outside, 100, drivertest.Fill(1, 50), 0) }, []string{"write 100+50"}},
		{"durable write", func() error { return v.blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 512), block.ReqFUA) }, []string{"write 0+512", "flush"}},
		{"zeroes", func() error { return v.blk.PwriteZeroes(aio.Outside, 1, 512, 0) }, []string{"zero 1+512"}},
		{"cheap zeroes", func() error { return v.blk.PwriteZeroes(aio.Outside, 0, 512, block.ReqMayUnmap|block.ReqNoFallback) }, []string{"zero 0+512 unmap no-fallback"}},
		{"discard", func() error { return v.blk.Pdiscard(aio.Outside, 0, 4096) }, nil},
		{"flush", func() error { return v.blk.Flush(aio.Outside) }, []string{"flush"}},
		{"flush again", func() error { return v.blk.Flush(aio.Outside) }, nil},
	} {
		must(t, c.do())
		for i := range 3 {
			if got := v.disk(i).TakeCalls(); !slices.Equal(got, c.want) {
				t.Errorf("%s: child %d got %q, want %q", c.name, i, got, c.want)
			}
		}
	}
	if got := v.take(); len(got) > 0 {
		t.Errorf("reported %q", got)
	}
}

func TestWriteFails(t *testing.T) {
	t.Parallel()
	for threshold, want := range map[int]string{1: "", 2: "", 3: "No space left on device"} {
		v := newVoters(t, 3, fmt.Sprintf(`"vote-threshold":%d`, threshold))
		v.disk(1).SetHook(failing(drivertest.Write, syscall.ENOSPC))
		reports := []string{"d1 write 1+2 No space left on device"}
		if want != "" {
			reports = append(reports, "q failed 1+2")
		}
		if err := v.blk.Pwritev(aio.Outside, 1000, drivertest.Fill(1, 500), 0); text(err) != want {
			t.Errorf("%d of 3: %v", threshold, err)
		}
		if got := v.take(); !slices.Equal(got, reports) {
			t.Errorf("%d of 3: reported %q", threshold, got)
		}
		if v.disk(0).Bytes()[1499] != 1 || v.disk(2).Bytes()[1000] != 1 {
			t.Errorf("%d of 3: it was not written to the others", threshold)
		}
		v.disk(2).SetHook(failing(drivertest.Flush, syscall.ENOSPC))
		if err := v.blk.Flush(aio.Outside); text(err) != want {
			t.Errorf("%d of 3: flushing: %v", threshold, err)
		}
		if got := v.take(); !slices.Equal(got, []string{"d2 flush 0+0 No space left on device"}) {
			t.Errorf("%d of 3: flushing: reported %q", threshold, got)
		}
	}
}

// change adds or takes away a child.
func (v *voters) change(f func(l *aio.Lock) error) (err error) {
	v.Main(func(l *aio.Lock) { err = f(l) })
	return err
}

func (v *voters) addChild(name string) error {
	return v.change(func(l *aio.Lock) error { return v.node.AddChild(l, v.Graph.Node(name)) })
}

func (v *voters) removeChild(name string) error {
	return v.change(func(l *aio.Lock) error { return v.node.RemoveChild(l, v.node.Child(name)) })
}

// names lists the children, the newest last.
func (v *voters) names() (names []string) {
	for _, c := range slices.Backward(v.node.Children()) {
		names = append(names, c.Name()+"="+c.Node().Name())
	}
	return names
}

func TestChildren(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 3, `"vote-threshold":2`)
	for i := 3; i < 6; i++ {
		v.Add(fmt.Sprintf(`{"driver":"mem","node-name":"d%d","size":%d}`, i, diskSize))
	}
	v.Add(fmt.Sprintf(`{"driver":"raw","node-name":"r","file":{"driver":"mem","node-name":"m","size":%d}}`, diskSize))
	v.Add(`{"driver":"raw","node-name":"x","file":"q"}`)
	for _, c := range []struct {
		add, remove string
		err         string
		want        []string
	}{
		{add: "d3", want: []string{"children.0=d0", "children.1=d1", "children.2=d2", "children.3=d3"}},
		{add: "d3", err: "The node d3 already has a parent"},
		{add: "m", err: "The node m already has a parent"},
		{add: "q", err: "The node q already has a parent"},
		{add: "x", err: "Making 'x' a children.4 child of 'q' would create a cycle"},
		{remove: "children.1", want: []string{"children.0=d0", "children.2=d2", "children.3=d3"}},
		{add: "d4", want: []string{"children.0=d0", "children.2=d2", "children.3=d3", "children.4=d4"}},
		{remove: "children.4", want: []string{"children.0=d0", "children.2=d2", "children.3=d3"}},
		{add: "d1", want: []string{"children.0=d0", "children.2=d2", "children.3=d3", "children.4=d1"}},
		{remove: "children.0", want: []string{"children.2=d2", "children.3=d3", "children.4=d1"}},
		{remove: "children.3", want: []string{"children.2=d2", "children.4=d1"}},
		{remove: "children.2", err: "The number of children cannot be lower than the vote threshold 2"},
		{add: "r", want: []string{"children.2=d2", "children.4=d1", "children.5=r"}},
	} {
		var err error
		before := v.names()
		if c.add != "" {
			err = v.addChild(c.add)
		} else {
			err = v.removeChild(c.remove)
		}
		if c.err != "" {
			c.want = before
		}
		if got := v.names(); text(err) != c.err || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, %q", c, err, got)
		}
	}
	if name := v.node.Filename(); name != `json:{"children": [{"driver": "mem", "size": 65536}, {"driver": "mem", "size": 65536}, `+
		`{"driver": "raw", "file": {"driver": "mem", "size": 65536}}], "driver": "quorum", "vote-threshold": 2}` {
		t.Errorf("its name is %s", name)
	}
	raw := v.Graph.Node("r")
	if err := v.change(func(l *aio.Lock) error { return raw.RemoveChild(l, raw.File()) }); text(err) != "The node r does not support removing a child" {
		t.Error(err)
	}
	if err := v.change(func(l *aio.Lock) error { return raw.AddChild(l, v.Graph.Node("d5")) }); text(err) != "The node r does not support adding a child" {
		t.Error(err)
	}
	must(t, v.blk.Pwritev(aio.Outside, 0, drivertest.Fill(3, 512), 0))
	if v.disk(0).Bytes()[0] != 0 || v.disk(2).Bytes()[0] != 3 || drivertest.DiskOf(v.Graph.Node("m")).Bytes()[0] != 3 {
		t.Error("the write went elsewhere")
	}
	v.Delete("d0") // it is nobody's child any more
}

// Children come and go while requests are under way.
func TestChildrenUnderLoad(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 3, `"vote-threshold":2`)
	v.Add(fmt.Sprintf(`{"driver":"mem","node-name":"d3","size":%d}`, diskSize))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				offset := int64(w) * 4096
				if err := v.blk.Pwritev(aio.Outside, offset, drivertest.Fill(byte(i), 4096), 0); err != nil {
					t.Error(err)
				}
				if got, err := v.read(offset, 4096); err != nil || got[0] != byte(i) {
					t.Errorf("%d, %v; want %d", got[0], err, byte(i))
				}
			}
		})
	}
	for range 200 {
		// What the new child holds is not looked at, and may be outvoted.
		must(t, v.addChild("d3"))
		must(t, v.removeChild("children.3"))
	}
	close(stop)
	wg.Wait()
}

func TestCanBeReplaced(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 3, `"vote-threshold":1`)
	must(t, v.removeChild("children.2"))
	v.Add(fmt.Sprintf(`{"driver":"raw","node-name":"r","file":{"driver":"mem","node-name":"m","size":%d}}`, diskSize))
	must(t, v.addChild("r"))
	for name, want := range map[string]bool{"q": true, "d0": true, "d1": true, "d2": false, "r": true, "m": false} {
		if got := v.Graph.Node(name).CanBeReplaced(v.node); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	// Somebody else may look at it.
	other := v.Use(v.Add(`{"driver":"raw","node-name":"x","file":"d2"}`))
	blk, err := v.TryUse(v.Graph.Node("d0"), block.PermConsistentRead, block.PermAll)
	must(t, err)
	if v.Graph.Node("d0").CanBeReplaced(v.node) {
		t.Error("a node with two users can be replaced")
	}
	v.Drop(blk)
	v.Drop(other)
	if !v.Graph.Node("d0").CanBeReplaced(v.node) {
		t.Error("a node that has lost its other user cannot be replaced")
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	const unit = drivertest.HoleUnit
	v := newBench(t)
	for i := range 2 {
		v.Add(fmt.Sprintf(`{"driver":"mem","node-name":"d%d","size":%d,"sparse":true,"zero":true}`, i, diskSize))
	}
	v.node = v.Add(`{"driver":"quorum","node-name":"q","children":["d0","d1"],"vote-threshold":1}`)
	v.put(0, 2*unit, 1, unit)
	v.put(1, 3*unit, 1, 2*unit)
	v.put(1, 8*unit, 1, unit)
	const zero, data = block.StatusZero | block.StatusAllocated, block.StatusData | block.StatusAllocated
	for _, c := range []struct {
		offset int64
		want   block.StatusFlags
		bytes  int64
	}{{0, zero, 2 * unit}, {2 * unit, data, unit}, {3 * unit, data, 2 * unit}, {5 * unit, zero, 3 * unit}, {8 * unit, data, unit}, {9 * unit, zero | block.StatusEOF, diskSize - 9*unit}} {
		st, err := v.node.BlockStatus(aio.Outside, true, c.offset, diskSize-c.offset)
		if err != nil || st.Flags != c.want || st.Bytes != c.bytes {
			t.Errorf("at %d: %+v, %v; want %v, %d bytes", c.offset, st, err, c.want, c.bytes)
		}
	}
	if st, err := v.node.BlockStatus(aio.Outside, false, 0, diskSize); err != nil || st.Flags != data|block.StatusEOF || st.Bytes != diskSize {
		t.Errorf("without looking for zeroes: %+v, %v", st, err)
	}
	v.disk(1).SetHook(failing(drivertest.Status, syscall.EIO))
	if st, err := v.node.BlockStatus(aio.Outside, true, 5*unit, unit); err != nil || st.Flags != data || st.Bytes != unit {
		t.Errorf("where one cannot tell: %+v, %v", st, err)
	}
	if got := v.take(); !slices.Equal(got, []string{"d1 read 40+8 Input/output error"}) {
		t.Errorf("reported %q", got)
	}
}
