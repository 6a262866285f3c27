package qjson

import (
	"fmt"
	"strings"
	"testing"
)

const small = `{"execute":"query-version","id":17}` + "\r\n"

const options = `{"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"q0","discard":"unmap",` +
	`"cache":{"direct":true,"no-flush":false},"file":{"driver":"file","filename":"/var/lib/images/disk0.qcow2",` +
	`"aio":"native","locking":"auto"},"l2-cache-size":1048576,"lazy-refcounts":false},"id":"libvirt-42"}` + "\r\n"

func benchmarkParser(b *testing.B, text string) {
	var p Parser
	in := []byte(text)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		p.Feed(in)
		for {
			_, ok, err := p.Next()
			if err != nil {
				b.Fatal(err)
			}
			if !ok {
				break
			}
		}
	}
}

func BenchmarkParser(b *testing.B) {
	b.Run("small", func(b *testing.B) { benchmarkParser(b, small) })
	b.Run("options", func(b *testing.B) { benchmarkParser(b, options) })
	b.Run("string", func(b *testing.B) { benchmarkParser(b, `"`+strings.Repeat("x", 1<<16)+`"`) })
	b.Run("array", func(b *testing.B) { benchmarkParser(b, `[`+strings.Repeat("12345,", 1<<14)+`0]`) })
	for _, n := range []int{16, 1 << 10, 1 << 16} {
		b.Run(fmt.Sprintf("members-%d", n), func(b *testing.B) { benchmarkParser(b, object(n)) })
	}
}

// object returns an object of n members.
func object(n int) string {
	var s strings.Builder
	s.WriteByte('{')
	for i := range n {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, `"member-%d":%d`, i, i)
	}
	s.WriteByte('}')
	return s.String()
}

func BenchmarkAppendValue(b *testing.B) {
	for _, text := range []string{small, options, object(1 << 10)} {
		v, err := Parse([]byte(text))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(len(text)), func(b *testing.B) {
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				out = AppendValue(out[:0], v)
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	v, _ := Parse([]byte(options))
	args := v.Get("arguments")
	b.ReportAllocs()
	for b.Loop() {
		if !args.Get("lazy-refcounts").Exists() {
			b.Fatal("missing")
		}
	}
}
