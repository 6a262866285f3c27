package hbitmap

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// model is a bitmap as plain as can be.
type model struct {
	size, gran int64
	units      []bool
}

func newModel(size, gran int64) *model {
	return &model{size, gran, make([]bool, (size+gran-1)/gran)}
}

func (m *model) set(offset, bytes int64) {
	for at := offset; at < min(offset+bytes, m.size); at++ {
		m.units[at/m.gran] = true
	}
}

func (m *model) reset(offset, bytes int64) {
	for u := range m.units {
		start := int64(u) * m.gran
		if start >= offset && min(start+m.gran, m.size) <= offset+bytes {
			m.units[u] = false
		}
	}
}

func (m *model) next(offset, bytes int64, want bool) int64 {
	for at := offset; at < min(offset+bytes, m.size); at++ {
		if m.units[at/m.gran] == want {
			return at
		}
	}
	return -1
}

func (m *model) count() int64 {
	n := int64(0)
	for _, set := range m.units {
		if set {
			n += m.gran
		}
	}
	return n
}

// TestAgainstModel compares long random histories.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		gran := int64(1) << rapid.IntRange(0, 6).Draw(t, "shift")
		size := rapid.Int64Range(0, 9000).Draw(t, "size")
		b, m := New(size, gran), newModel(size, gran)
		area := func() (offset, bytes int64) {
			offset = rapid.Int64Range(0, size).Draw(t, "offset")
			return offset, rapid.Int64Range(0, size-offset+10).Draw(t, "bytes")
		}
		check := func() {
			if b.Count() != m.count() {
				t.Fatalf("count %d, want %d", b.Count(), m.count())
			}
			offset, bytes := area()
			if got, want := b.Next(offset, bytes), m.next(offset, bytes, true); got != want {
				t.Fatalf("next from %d+%d: %d, want %d", offset, bytes, got, want)
			}
			if got, want := b.NextZero(offset, bytes), m.next(offset, bytes, false); got != want {
				t.Fatalf("next zero from %d+%d: %d, want %d", offset, bytes, got, want)
			}
			if offset < size && b.Get(offset) != m.units[offset/gran] {
				t.Fatalf("get %d: %v", offset, b.Get(offset))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"set":   func(*rapid.T) { o, n := area(); b.Set(o, n); m.set(o, n) },
			"reset": func(*rapid.T) { o, n := area(); b.Reset(o, n); m.reset(o, n) },
			"clear": func(*rapid.T) { b.Clear(); m.reset(0, m.size) },
			"truncate": func(t *rapid.T) {
				old := m
				size = rapid.Int64Range(0, 9000).Draw(t, "new size")
				b.Truncate(size)
				m = newModel(size, gran)
				copy(m.units, old.units)
			},
			"serialize": func(*rapid.T) {
				buf := make([]byte, b.SerializedSize())
				b.Serialize(buf, 0)
				c := New(size, gran)
				half := int64(len(buf)) / 16 * 8
				c.Deserialize(buf[:half], 0)
				c.Deserialize(buf[half:], half)
				if c.SHA256() != b.SHA256() || c.Count() != b.Count() {
					t.Fatal("what was serialized comes back changed")
				}
			},
			"merge": func(t *rapid.T) {
				other := New(size, int64(1)<<rapid.IntRange(0, 6).Draw(t, "other shift"))
				o, n := area()
				other.Set(o, n)
				want := newModel(size, gran)
				copy(want.units, m.units)
				for at := int64(0); at < size; at++ {
					if other.Get(at) {
						want.set(at, 1)
					}
				}
				b.Merge(other)
				m = want
			},
			"": func(*rapid.T) { check() },
		})
	})
}

func TestNextArea(t *testing.T) {
	t.Parallel()
	b := New(1<<20, 4096)
	b.Set(8192, 1)
	b.Set(20000, 30000)
	for _, c := range []struct{ offset, bytes, limit, start, length int64 }{
		{0, 1 << 20, 1 << 20, 8192, 4096},
		{9000, 1 << 20, 1 << 20, 9000, 3288},
		{12288, 1 << 20, 1 << 20, 16384, 36864},
		{12288, 1 << 20, 10000, 16384, 10000},
		{12288, 8192, 1 << 20, 16384, 4096},
	} {
		start, length, ok := b.NextArea(c.offset, c.bytes, c.limit)
		if !ok || start != c.start || length != c.length {
			t.Errorf("%+v: %d+%d %v", c, start, length, ok)
		}
	}
	if _, _, ok := b.NextArea(60000, 1<<20, 1<<20); ok {
		t.Error("an area where nothing is set")
	}
	if set, length := b.Status(0, 1<<20); set || length != 8192 {
		t.Errorf("status at 0: %v %d", set, length)
	}
	if set, length := b.Status(8200, 1<<20); !set || length != 4088 {
		t.Errorf("status at 8200: %v %d", set, length)
	}
}

// TestSHA256 has hashes that the reference gave for the same bitmaps
// (observed: transcript bitmaps/count).
func TestSHA256(t *testing.T) {
	t.Parallel()
	coarse, fine, empty := New(1<<20, 65536), New(1<<20, 4096), New(1<<20, 4096)
	for _, b := range []*Bitmap{coarse, fine} {
		b.Set(0, 4096)
		b.Set(102400, 8192)
	}
	for _, c := range []struct {
		b    *Bitmap
		want string
	}{
		{coarse, "35be322d094f9d154a8aba4733b8497f180353bd7ae7b0a15f90b586b549f28b"},
		{fine, "48ad42939630df51be4ae4796cc7a09c9d8c760ac37dafacd52e98d0a6be022f"},
		{empty, "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"},
	} {
		if got := fmt.Sprintf("%x", c.b.SHA256()); got != c.want {
			t.Errorf("hash %s, want %s", got, c.want)
		}
	}
}

// BenchmarkNext finds the one dirty unit at the end of 16 TiB.
func BenchmarkNext(b *testing.B) {
	m := New(16<<40, 65536)
	m.Set(16<<40-1, 1)
	b.ReportAllocs()
	for b.Loop() {
		if m.Next(0, 16<<40) < 0 {
			b.Fatal("lost")
		}
	}
}

func BenchmarkSet(b *testing.B) {
	m := New(16<<40, 65536)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		m.Set(i*0x1e3779b97f4a7c15>>10&(16<<40-1), 4096)
	}
}
