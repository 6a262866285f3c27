package schema

import (
	"context"
	"testing"
)

// benchTable's handlers do nothing.
func benchTable() *Table {
	t := NewTable()
	t.BlockdevAdd(func(context.Context, *BlockdevOptions) error { return nil })
	t.BlockResize(func(context.Context, *BlockResizeArguments) error { return nil })
	return t
}

func BenchmarkDecodeBlockdevAdd(b *testing.B) {
	benchmarkRun(b, "blockdev-add", `{"driver": "qcow2", "node-name": "q0", "file": {"driver": "file", "filename": "a.qcow2", "aio": "native"}, "cache": {"direct": true}}`)
}

func BenchmarkDecodeBlockResize(b *testing.B) {
	benchmarkRun(b, "block_resize", `{"node-name": "n0", "size": 1048576}`)
}

func benchmarkRun(b *testing.B, command, args string) {
	c := benchTable().Lookup(command)
	v := parse(b, args)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, err = c.Run(context.Background(), v, out[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeError(b *testing.B) {
	v := parse(b, `{"driver": "null-co", "node-name": "n0", "a": 1, "b": 2}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeBlockdevOptions(v, QMP); err == nil {
			b.Fatal("no error")
		}
	}
}

func BenchmarkEncodeNode(b *testing.B) {
	name, size := "node0", int64(1<<20)
	info := &BlockDeviceInfo{
		File: "a.raw", NodeName: &name, Drv: "raw", Active: true,
		Image: ImageInfo{Filename: "a.raw", Format: "raw", VirtualSize: size, ActualSize: &size},
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = info.AppendJSON(out[:0])
	}
	b.SetBytes(int64(len(out)))
}

func BenchmarkEncodeOptions(b *testing.B) {
	o, err := DecodeBlockdevOptions(parse(b, `{"driver": "raw", "file": {"driver": "file", "filename": "a"}, "node-name": "n0", "read-only": true}`), QMP)
	if err != nil {
		b.Fatal(err)
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = o.AppendJSON(out[:0])
	}
}

func BenchmarkIntrospect(b *testing.B) {
	table := everything(Newest)
	b.ReportAllocs()
	for b.Loop() {
		table.Introspect()
	}
}
