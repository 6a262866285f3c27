// Package ghash is a hash table that iterates in the order of GLib's
// GHashTable with string keys.
//
// QEMU keeps types, properties and children in such tables and lists them as
// it finds them, so the order is part of what a client sees. It depends on the
// keys and on the history of insertions and removals: where a slot is taken
// the next free one of a probe sequence is used, a removed key leaves its slot
// marked, and the table is rebuilt when it is too full or too empty. This
// package does the same steps; what it does is observed in listings of
// hundreds of objects added and removed at random.
package ghash

import "iter"

// Table maps strings to values. The zero Table is empty and ready for use.
type Table[V any] struct {
	slots []slot[V]
	shift uint // len(slots) is 1 << shift
	n     int  // keys
	used  int  // keys and removed ones
}

// slot holds a key. A hash of 0 is a slot never used, 1 a key removed.
type slot[V any] struct {
	hash  uint32
	key   string
	value V
}

const (
	unused   = 0
	removed  = 1
	minShift = 3
)

// primes are the largest ones up to each power of two, beginning with 2^3.
var primes = [...]uint32{
	7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071, 262139,
	524287, 1048573, 2097143, 4194301, 8388593, 16777213, 33554393, 67108859, 134217689,
}

// hash is djb2 over signed characters, moved out of the way of the marks.
func hash(key string) uint32 {
	h := uint32(5381)
	for i := range len(key) {
		h = h*33 + uint32(int8(key[i]))
	}
	return max(h, removed+1)
}

// Len returns the number of keys.
func (t *Table[V]) Len() int { return t.n }

// Get returns the value of a key; ok is false if there is none.
func (t *Table[V]) Get(key string) (value V, ok bool) {
	if t.n == 0 {
		return value, false
	}
	i, ok := t.find(key, hash(key))
	if ok {
		value = t.slots[i].value
	}
	return value, ok
}

// Set adds a key or replaces its value.
func (t *Table[V]) Set(key string, value V) {
	if t.slots == nil {
		t.shift = minShift
		t.slots = make([]slot[V], 1<<minShift)
	}
	h := hash(key)
	i, ok := t.find(key, h)
	old := t.slots[i].hash
	t.slots[i] = slot[V]{h, key, value}
	if ok {
		return
	}
	t.n++
	if old == unused {
		t.used++
		t.resize()
	}
}

// Delete removes a key, if it is there, and makes the table smaller if it is
// too empty then.
func (t *Table[V]) Delete(key string) {
	t.DeleteInPlace(key)
	t.resize()
}

// DeleteInPlace removes a key, if it is there, and nothing else. GLib does so
// when a key is removed while it iterates, which is how QEMU takes an object
// out of its parent.
func (t *Table[V]) DeleteInPlace(key string) {
	if t.n == 0 {
		return
	}
	if i, ok := t.find(key, hash(key)); ok {
		t.slots[i] = slot[V]{hash: removed}
		t.n--
	}
}

// All iterates in GLib's order. The table must not be changed meanwhile.
func (t *Table[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for i := range t.slots {
			if s := &t.slots[i]; s.hash > removed && !yield(s.key, s.value) {
				return
			}
		}
	}
}

// Reversed iterates in the opposite order, which most listings have because
// they are built from the end.
func (t *Table[V]) Reversed() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for i := len(t.slots) - 1; i >= 0; i-- {
			if s := &t.slots[i]; s.hash > removed && !yield(s.key, s.value) {
				return
			}
		}
	}
}

// find returns the slot of a key or, if it is missing, the one it would take.
func (t *Table[V]) find(key string, h uint32) (int, bool) {
	free := -1
	i := t.home(h)
	for step := 1; t.slots[i].hash != unused; step++ {
		if t.slots[i].hash == h && t.slots[i].key == key {
			return i, true
		}
		if t.slots[i].hash == removed && free < 0 {
			free = i
		}
		i = (i + step) & (len(t.slots) - 1)
	}
	if free >= 0 {
		i = free
	}
	return i, false
}

func (t *Table[V]) home(h uint32) int { return int(h * 11 % primes[t.shift-minShift]) }

// resize gives the table the size that its number of keys asks for, if it is
// too full or too empty.
func (t *Table[V]) resize() {
	size := len(t.slots)
	if size == 0 {
		return
	}
	tooEmpty := size > 1<<minShift && size > t.n*4
	if !tooEmpty && size > t.used+t.used/16 {
		return
	}
	t.shift = minShift
	for t.n*1333/1000>>t.shift != 0 {
		t.shift++
	}
	t.rebuild(1 << t.shift)
	t.used = t.n
}

// rebuild moves the keys to the places of their new homes within the same
// memory, slot after slot. A key whose place is still taken by one that has
// not moved yet pushes that one out, and it is moved next: this is what makes
// the order differ from that of a fresh table.
func (t *Table[V]) rebuild(size int) {
	old := len(t.slots)
	if size > old {
		t.slots = append(make([]slot[V], 0, size), t.slots...)[:size]
	}
	moved := make([]bool, len(t.slots))
	for i := range old {
		s := t.slots[i]
		if moved[i] {
			continue
		}
		t.slots[i] = slot[V]{}
		for s.hash > removed {
			to := t.home(s.hash)
			for step := 1; moved[to]; step++ {
				to = (to + step) & (size - 1)
			}
			moved[to] = true
			s, t.slots[to] = t.slots[to], s
		}
	}
	t.slots = t.slots[:size:size]
}
