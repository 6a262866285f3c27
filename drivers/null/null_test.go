package null_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
)

func bench(tb testing.TB) *drivertest.Bench { return drivertest.New(tb, null.Co(), null.Aio()) }

// options are sets of options with what becomes of them: a file name and a
// length, or an error. TestReference asks the reference for the same.
var options = []struct {
	json     string
	filename string
	length   int64
	err      string
}{
	{json: `{"driver":"null-co"}`, filename: "null-co://", length: 1 << 30},
	{json: `{"driver":"null-aio"}`, filename: "null-aio://", length: 1 << 30},
	{json: `{"driver":"null-co","latency-ns":5}`, filename: "null-co://", length: 1 << 30},
	{json: `{"driver":"null-co","size":0}`, filename: `json:{"driver": "null-co", "size": 0}`},
	{json: `{"driver":"null-co","size":1}`, filename: `json:{"driver": "null-co", "size": 1}`, length: 512},
	{json: `{"driver":"null-co","size":513}`, filename: `json:{"driver": "null-co", "size": 513}`, length: 1024},
	{
		json: `{"driver":"null-aio","size":4096,"read-zeroes":false}`, length: 4096,
		filename: `json:{"read-zeroes": false, "driver": "null-aio", "size": 4096}`,
	},
	{
		json: `{"driver":"null-co","size":9223372035781033984}`, length: 1<<63 - 1<<30,
		filename: `json:{"driver": "null-co", "size": 9223372035781033984}`,
	},
	{
		json: `{"driver":"null-co","size":9223372036854775807}`,
		err:  "Could not refresh total sector count: File too large",
	},
	{json: `{"driver":"null-co","latency-ns":-1}`, err: "latency-ns is invalid"},
	{json: `{"driver":"null-co","latency-ns":18446744073709551615}`, err: "latency-ns is invalid"},
	{json: `{"driver":"null-co","detect-zeroes":"unmap"}`, err: "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap"},
}

func TestOptions(t *testing.T) {
	t.Parallel()
	b := bench(t)
	for _, c := range options {
		n, err := b.TryAdd(`{"node-name":"n",` + c.json[1:])
		if err != nil {
			if err.Error() != c.err {
				t.Errorf("%s: %q, want %q", c.json, err, c.err)
			}
			continue
		}
		length, err := n.GetLength(aio.Outside)
		if err != nil || length != c.length || n.Filename() != c.filename || c.err != "" {
			t.Errorf("%s: %d bytes, name %s, %v", c.json, length, n.Filename(), err)
		}
		b.Delete("n")
	}
}

// The reference aborts here; see the package's description.
func TestNegativeSize(t *testing.T) {
	t.Parallel()
	const want = "Value '-1' is out of range for parameter 'size'"
	if _, err := bench(t).TryAdd(`{"driver":"null-co","node-name":"n","size":-1}`); err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	for _, c := range options {
		_, desc := r.Ask("blockdev-add", `{"node-name":"n",`+c.json[1:])
		if desc != c.err {
			t.Errorf("%s: %q, want %q", c.json, desc, c.err)
		}
		if desc != "" {
			continue
		}
		image := r.Node("n").Get("image")
		if image.Get("virtual-size").Int() != c.length || image.Get("filename").Str() != c.filename {
			t.Errorf("%s: %d bytes, name %s", c.json, image.Get("virtual-size").Int(), image.Get("filename").Str())
		}
		r.Do("blockdev-del", `{"node-name":"n"}`)
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	b := bench(t)
	for _, c := range []struct {
		options string
		want    byte
	}{{``, 0xab}, {`,"read-zeroes":false`, 0xab}, {`,"read-zeroes":true`, 0}} {
		blk := b.Use(b.Add(`{"driver":"null-co","node-name":"n","size":4096` + c.options + `}`))
		v := drivertest.Fill(0xab, 4096)
		if err := blk.Preadv(aio.Outside, 0, v); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(v[0], drivertest.Fill(c.want, 4096)[0]) {
			t.Errorf("%s: read %#x", c.options, v[0][0])
		}
		b.Drop(blk)
		b.Delete("n")
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b := bench(t)
	for _, c := range []struct {
		options string
		want    block.StatusFlags
	}{
		{``, block.StatusOffsetValid | block.StatusEOF},
		{`,"read-zeroes":true`, block.StatusOffsetValid | block.StatusZero | block.StatusAllocated | block.StatusEOF},
	} {
		n := b.Add(`{"driver":"null-co","node-name":"n","size":4096` + c.options + `}`)
		st, err := n.BlockStatus(aio.Outside, true, 512, 1<<20)
		if err != nil || st.Flags != c.want || st.Bytes != 3584 || st.Map != 512 || st.File != n {
			t.Errorf("%s: %+v, %v", c.options, st, err)
		}
		b.Delete("n")
	}
}

func TestFilenames(t *testing.T) {
	t.Parallel()
	d := null.Aio()
	if err := d.ParseFilename("null-aio://", block.NewOptions()); err != nil {
		t.Error(err)
	}
	const want = "The only allowed filename for this driver is 'null-aio://'"
	if err := d.ParseFilename("null-aio://x", block.NewOptions()); err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"null-co","node-name":"n","size":4096,"latency-ns":1}`)
	for _, c := range []struct{ options, err string }{
		{`"size":4096,"latency-ns":1,"read-only":true`, ""},
		{`"size":4096`, "Option 'latency-ns' cannot be reset to its default value"},
		{`"size":8192,"latency-ns":1`, "Cannot change the option 'size'"},
		{`"size":4096,"latency-ns":2`, "Cannot change the option 'latency-ns'"},
	} {
		err := b.Reopen(`{"driver":"null-co","node-name":"n",` + c.options + `}`)
		if got := text(err); got != c.err {
			t.Errorf("%s: %q, want %q", c.options, got, c.err)
		}
	}
	if !n.ReadOnly() {
		t.Error("the node is not read-only")
	}
	b.Delete("n")
	// Of several options left out, the first of the dictionary is named.
	b.Add(`{"driver":"null-co","node-name":"n","latency-ns":1,"read-zeroes":false}`)
	const want = "Option 'read-zeroes' cannot be reset to its default value"
	if err := b.Reopen(`{"driver":"null-co","node-name":"n"}`); text(err) != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Requests take their time side by side, and writers of the graph get through
// meanwhile: if they waited one after the other, or held the graph's lock, the
// test would take a minute.
func TestLatency(t *testing.T) {
	t.Parallel()
	b := bench(t)
	const requests = 200
	latency := 300 * time.Millisecond
	blk := b.Use(b.Add(`{"driver":"null-co","node-name":"n","latency-ns":300000000}`))
	start := time.Now()
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if err := blk.Preadv(aio.Outside, 0, drivertest.Fill(0, 512)); err != nil {
				t.Error(err)
			}
		})
	}
	for b.Add(`{"driver":"null-co","node-name":"other"}`); time.Since(start) < latency/2; {
		b.Delete("other")
		b.Add(`{"driver":"null-co","node-name":"other"}`)
	}
	wg.Wait()
	if took := time.Since(start); took < latency || took > requests*latency/4 {
		t.Errorf("%d requests of %v took %v", requests, latency, took)
	}
	if err := blk.Flush(aio.Outside); err != nil {
		t.Error(err)
	}
}

// BenchmarkRead measures the way through backend and node; the driver itself
// does nothing.
func BenchmarkRead(bm *testing.B) {
	b := bench(bm)
	blk := b.Use(b.Add(`{"driver":"null-co","node-name":"n"}`))
	v := drivertest.Fill(0, 4096)
	bm.Run("coroutine", func(bm *testing.B) {
		bm.ReportAllocs()
		b.Graph.Main().Enter("bench", func(co *aio.Co) {
			for range bm.N {
				if err := blk.Preadv(co, 0, v); err != nil {
					bm.Fatal(err)
				}
			}
		})
	})
	bm.Run("outside", func(bm *testing.B) {
		bm.ReportAllocs()
		for range bm.N {
			if err := blk.Preadv(aio.Outside, 0, v); err != nil {
				bm.Fatal(err)
			}
		}
	})
}
