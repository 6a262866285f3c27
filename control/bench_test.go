package control_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/qjson"
)

// instance makes one that runs commands and ends with the test.
func instance(tb testing.TB, cfg control.Config) *control.Instance {
	tb.Helper()
	i := control.New(cfg)
	i.Start()
	tb.Cleanup(i.Close)
	return i
}

func arguments(tb testing.TB, format string, args ...any) qjson.Value {
	tb.Helper()
	v, err := qjson.Parse(fmt.Appendf(nil, format, args...))
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func execute(tb testing.TB, i *control.Instance, command string, args qjson.Value) []byte {
	tb.Helper()
	out, err := i.Execute(context.Background(), command, args)
	if err != nil {
		tb.Fatalf("%s: %v", command, err)
	}
	return out
}

func BenchmarkQueryVersion(b *testing.B) {
	i := instance(b, control.Config{})
	for b.Loop() {
		execute(b, i, "query-version", qjson.Value{})
	}
}

func BenchmarkBlockdevAddDel(b *testing.B) {
	i := instance(b, control.Config{})
	add := arguments(b, `{"driver": "null-co", "node-name": "n0"}`)
	del := arguments(b, `{"node-name": "n0"}`)
	for b.Loop() {
		execute(b, i, "blockdev-add", add)
		execute(b, i, "blockdev-del", del)
	}
}

func BenchmarkBlockResize(b *testing.B) {
	i := instance(b, control.Config{})
	path := filepath.Join(b.TempDir(), "a.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	execute(b, i, "blockdev-add", arguments(b, `{"driver": "file", "node-name": "f", "filename": %q}`, path))
	sizes := []qjson.Value{
		arguments(b, `{"node-name": "f", "size": 1048576}`),
		arguments(b, `{"node-name": "f", "size": 2097152}`),
	}
	for k := 0; b.Loop(); k++ {
		execute(b, i, "block_resize", sizes[k%2])
	}
}

func BenchmarkQueryNamedBlockNodes(b *testing.B) {
	for _, nodes := range []int{1, 1000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			i := instance(b, control.Config{})
			for k := range nodes {
				execute(b, i, "blockdev-add", arguments(b, `{"driver": "null-co", "node-name": "n%d"}`, k))
			}
			for b.Loop() {
				execute(b, i, "query-named-block-nodes", qjson.Value{})
			}
		})
	}
}
