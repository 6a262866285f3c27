package qcow2

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestL1Table compares tables with a plain list of entries, some of whose
// pages are empty.
func TestL1Table(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	page := len(l1Page{})
	for _, entries := range []int{0, 1, page - 1, page, page + 1, 5 * page, 7*page - 3} {
		want := make([]uint64, entries)
		raw := make([]byte, entries*8)
		for n := range want {
			if n/page%2 == 0 && rng.IntN(3) == 0 {
				want[n] = rng.Uint64() | flagCopied
				be.PutUint64(raw[n*8:], want[n])
			}
		}
		l := newL1(entries)
		half := min(entries, 2*page)
		l.decode(0, raw[:half*8])
		l.decode(half, raw[half*8:])
		checkL1(t, &l, want)
		if got := l.encode(0); !bytes.Equal(got, raw) {
			t.Errorf("%d entries are written wrongly", entries)
		}
		longer := l.longer(entries + page)
		checkL1(t, &longer, append(want, make([]uint64, page)...))
		for range entries {
			n, v := rng.IntN(entries), rng.Uint64N(2)<<63
			l.set(n, v)
			want[n] = v
		}
		checkL1(t, &l, want)
		for n, v := range want {
			be.PutUint64(raw[n*8:], v&^flagCopied)
		}
		if got := l.encode(flagCopied); !bytes.Equal(got, raw) {
			t.Errorf("%d entries are written wrongly without a flag", entries)
		}
	}
}

func checkL1(t *testing.T, l *l1Table, want []uint64) {
	t.Helper()
	if l.entries != len(want) || l.bytes() != int64(len(want))*8 {
		t.Fatalf("%d entries in %d bytes, want %d", l.entries, l.bytes(), len(want))
	}
	next := 0
	for n, v := range l.used() {
		for ; next < n; next++ {
			if want[next] != 0 {
				t.Fatalf("entry %d is left out", next)
			}
		}
		if v != want[n] || v == 0 {
			t.Fatalf("entry %d is %#x, want %#x", n, v, want[n])
		}
		next++
	}
	for n, v := range want {
		if got := l.get(n); got != v {
			t.Fatalf("entry %d is %#x, want %#x", n, got, v)
		}
		if n >= next && v != 0 {
			t.Fatalf("entry %d is left out", n)
		}
	}
}
