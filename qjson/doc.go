// Package qjson reads and writes JSON as QEMU speaks it on a monitor.
//
// # The dialect
//
// Input is RFC 8259 with QEMU's additions and restrictions: strings may also
// stand in single quotes and know the escape \', integers reach from -2^63 to
// 2^64-1 and are kept exact, every other number is a double; a repeated
// member is an error, and so are control characters, noncharacters and lone
// surrogates in strings. Texts need no separator, so a stream is simply one
// value behind the other, and after a mistake the reader finds its way back
// to the next value by itself.
//
// Output is pure ASCII with ", " between members and ": " behind names, in
// the member order of QEMU's hash tables (see [Bucket]), doubles as C's
// "%.17g" prints them.
//
// # Strings
//
// A string is held as the reference holds it: modified UTF-8, where U+0000 is
// the two bytes C0 80, so that no string contains a zero byte. Everything
// else is ordinary UTF-8.
//
// # Memory
//
// A parsed text lives in a [Doc]: one slice of nodes, one of characters. A
// [Value] is an index into it, two words, free to copy. A Doc is reused for
// text after text and then allocates nothing; the price is that a Value, and
// what [Value.Bytes] returns, is valid only until its Doc is used again.
package qjson

import "hash/maphash"

// Kind is the type of a [Value].
type Kind uint8

// The kinds of values. Uint is used only for integers above 2^63-1, which Int
// cannot hold.
const (
	Invalid Kind = iota // absent: the zero Value
	Null
	Bool
	Int
	Uint
	Double
	String
	Array
	Object
)

var kindNames = [...]string{"absent", "null", "boolean", "integer", "integer", "number", "string", "array", "object"}

// String names the kind in the words of QAPI's error messages.
func (k Kind) String() string {
	if int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// node is one value or key. Nodes stand in the order of the text: an array is
// followed by its elements, an object by key, value, key, value, …
type node struct {
	kind Kind
	// n is the length of a string, the number of elements or members.
	n uint32
	// end is the index behind this node and all it contains; of a key it is
	// the index of the object it belongs to.
	end uint32
	// bits is the number or boolean itself; of a string it is the offset into
	// Doc.text.
	bits uint64
}

// What a Doc keeps for reuse at most, so that one huge text does not hold its
// memory for the life of a session.
const (
	keepNodes = 1 << 12
	keepText  = 1 << 17
	keepKeys  = 1 << 12
)

// Doc is the memory of one parsed text. The zero Doc is ready for use. It
// belongs to one goroutine while it is written; Values may be read by several.
type Doc struct {
	nodes []node
	text  []byte
	keys  keyTable
}

// Reset forgets the text. Values of this Doc must not be used any more.
func (d *Doc) Reset() {
	if cap(d.nodes) > keepNodes {
		d.nodes = nil
	}
	if cap(d.text) > keepText {
		d.text = nil
	}
	d.nodes = d.nodes[:0]
	d.text = d.text[:0]
	d.keys.reset()
}

func (d *Doc) add(k Kind, bits uint64) uint32 {
	i := uint32(len(d.nodes))
	d.nodes = append(d.nodes, node{kind: k, end: i + 1, bits: bits})
	return i
}

// bytes returns the characters of string node i.
func (d *Doc) bytes(i uint32) []byte {
	n := &d.nodes[i]
	end := n.bits + uint64(n.n)
	return d.text[n.bits:end:end]
}

// smallObject is the number of members up to which looking through all of
// them beats a hash table.
const smallObject = 16

// find returns the index of the value of member key of object obj.
func (d *Doc) find(obj uint32, key string) (uint32, bool) {
	o := &d.nodes[obj]
	if o.n > smallObject {
		return d.keys.find(d, obj, key)
	}
	return d.scan(obj, o.n, key)
}

// scan looks for key among the first n members of obj.
func (d *Doc) scan(obj, n uint32, key string) (uint32, bool) {
	k := obj + 1
	for ; n > 0; n-- {
		if d.nodes[k].n == uint32(len(key)) && string(d.bytes(k)) == key {
			return k + 1, true
		}
		k = d.nodes[k+1].end
	}
	return 0, false
}

// addMember registers the member whose key is node key as the newest of obj;
// it reports false when obj has that key already.
func (d *Doc) addMember(obj, key uint32) bool {
	o := &d.nodes[obj]
	d.nodes[key].end = obj
	if o.n < smallObject {
		if _, dup := d.scan(obj, o.n, string(d.bytes(key))); dup {
			return false
		}
		o.n++
		return true
	}
	if o.n == smallObject {
		k := obj + 1
		for range smallObject {
			d.keys.insert(d, k)
			k = d.nodes[k+1].end
		}
	}
	if !d.keys.insert(d, key) {
		return false
	}
	o.n++
	return true
}

// keyTable finds the members of all large objects of one Doc: a hash set of
// key nodes, open addressing, at most half full. The seed is random, so
// nobody can prepare keys that collide.
type keyTable struct {
	seed  maphash.Seed
	slots []uint32 // index of a key node + 1, 0 when free
	used  int
}

func (t *keyTable) reset() {
	if t.used == 0 {
		return
	}
	if len(t.slots) > keepKeys {
		t.slots = nil
	}
	clear(t.slots)
	t.used = 0
}

func (t *keyTable) slot(obj uint32, key string) uint64 {
	return (maphash.String(t.seed, key) + uint64(obj)*0x9E3779B97F4A7C15) & uint64(len(t.slots)-1)
}

func (t *keyTable) find(d *Doc, obj uint32, key string) (uint32, bool) {
	for s := t.slot(obj, key); t.slots[s] != 0; s = (s + 1) & uint64(len(t.slots)-1) {
		k := t.slots[s] - 1
		if d.nodes[k].end == obj && string(d.bytes(k)) == key {
			return k + 1, true
		}
	}
	return 0, false
}

func (t *keyTable) insert(d *Doc, key uint32) bool {
	if 2*(t.used+1) > len(t.slots) {
		t.grow(d)
	}
	obj := d.nodes[key].end
	name := d.bytes(key)
	s := t.slot(obj, string(name))
	for t.slots[s] != 0 {
		k := t.slots[s] - 1
		if d.nodes[k].end == obj && string(d.bytes(k)) == string(name) {
			return false
		}
		s = (s + 1) & uint64(len(t.slots)-1)
	}
	t.slots[s] = key + 1
	t.used++
	return true
}

func (t *keyTable) grow(d *Doc) {
	old := t.slots
	if old == nil {
		t.seed = maphash.MakeSeed()
	}
	t.slots = make([]uint32, max(64, 2*len(old)))
	t.used = 0
	for _, k := range old {
		if k != 0 {
			t.insert(d, k-1)
		}
	}
}
