package qemuio_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// mapped are nodes over $FILE, which has 10000 bytes, some of them data.
var mapped = []string{
	`"driver":"file","filename":"$FILE"`,
	`"driver":"raw","file":{"driver":"file","filename":"$FILE"}`,
	`"driver":"raw","offset":100,"file":{"driver":"file","filename":"$FILE"}`,
	`"driver":"raw","offset":3584,"size":4096,"file":{"driver":"file","filename":"$FILE"}`,
	`"driver":"raw","size":512,"file":{"driver":"raw","offset":4196,"file":{"driver":"file","filename":"$FILE"}}`,
	`"driver":"raw","file":{"driver":"blklogwrites","file":{"driver":"file","filename":"$FILE"},"log":{"driver":"null-co"}}`,
	`"driver":"blklogwrites","file":{"driver":"file","filename":"$FILE"},"log":{"driver":"null-co"}`,
	`"driver":"null-co","size":10000`,
	`"driver":"null-co","size":10000,"read-zeroes":true`,
	`"driver":"raw","offset":512,"file":{"driver":"null-aio","size":10000}`,
}

// TestMapsOfReference compares what is said of all kinds of nodes by qemu-io
// and qemu-img map.
func TestMapsOfReference(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(daemon.Reference(t).Storage[0])
	path := filepath.Join(t.TempDir(), "file")
	data := make([]byte, 10000)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(data[:512], 4096)
	}
	if err == nil {
		err = f.Truncate(10000)
	}
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	bench := drivertest.New(t, file.Driver(), raw.Driver(), null.Co(), null.Aio(), blklogwrites.Driver())
	commands := []string{"alloc 0 10000", "alloc 5000 1000", "alloc 9900 400", "map"}
	for i, options := range mapped {
		options = strings.ReplaceAll(options, "$FILE", path)
		name := fmt.Sprint("n", i)
		n := bench.Add(`{"node-name":"` + name + `",` + options + `}`)
		got := on(t, bench, name, commands...)
		var args []string
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		var out, errors strings.Builder
		cmd := exec.Command(filepath.Join(dir, "qemu-io"), append(args, "json:{"+options+"}")...)
		cmd.Stdout, cmd.Stderr = &out, &errors
		err := cmd.Run()
		if want := out.String() + strings.TrimPrefix(errors.String(), "qemu-io: "); got != want {
			t.Errorf("%s:\n%swant (%v)\n%s", options, got, err, want)
		}
		if err != nil {
			bench.Delete(name)
			continue // the image ends unexpectedly: qemu-img aborts
		}
		theirs, err := exec.Command(filepath.Join(dir, "qemu-img"), "map", "--output=json", "json:{"+options+"}").Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := extents(t, n), extentsOf(t, theirs); !slices.Equal(got, want) {
			t.Errorf("%s:\n%v want\n%v", options, got, want)
		}
		bench.Delete(name)
	}
}

// extent is a row of qemu-img map; offset is -1 if it is not known.
type extent struct {
	start, length, depth, offset int64
	present, zero, data          bool
}

func extentsOf(t *testing.T, json []byte) (list []extent) {
	t.Helper()
	rows, err := qjson.Parse(json)
	if err != nil {
		t.Fatal(err)
	}
	for row := range rows.Elems() {
		e := extent{
			start: row.Get("start").Int(), length: row.Get("length").Int(), depth: row.Get("depth").Int(), offset: -1,
			present: row.Get("present").Bool(), zero: row.Get("zero").Bool(), data: row.Get("data").Bool(),
		}
		if offset := row.Get("offset"); offset.Exists() {
			e.offset = offset.Int()
		}
		list = append(list, e)
	}
	return list
}

// extents is what our own block layer says, in the words of qemu-img map: it
// joins what belongs together, and counts depths from 0.
func extents(t *testing.T, n *block.Node) (list []extent) {
	t.Helper()
	length, err := n.GetLength(aio.Outside)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < length; {
		st, depth, err := n.BlockStatusAbove(aio.Outside, nil, false, true, at, length-at)
		if err != nil || st.Bytes == 0 {
			t.Fatalf("at %d: %+v, %v", at, st, err)
		}
		e := extent{
			start: at, length: st.Bytes, depth: int64(max(depth-1, 0)), offset: -1, present: st.Flags&block.StatusAllocated != 0,
			zero: st.Flags&block.StatusZero != 0, data: st.Flags&block.StatusData != 0,
		}
		if st.Flags&block.StatusOffsetValid != 0 && e.present {
			e.offset = st.Map
		}
		at += st.Bytes
		if len(list) > 0 {
			last := &list[len(list)-1]
			joined := *last
			joined.start, joined.length = e.start, e.length
			if e.offset >= 0 {
				joined.offset += last.length
			}
			if joined == e {
				last.length += e.length
				continue
			}
		}
		list = append(list, e)
	}
	return list
}
