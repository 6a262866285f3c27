package schema

import (
	"slices"

	"github.com/qmpblock/qmpblock/qjson"
)

// firstUnexpected chooses which of several unknown members an error names.
//
// The reference keeps the members of an object in a hash table of GLib while
// it visits it, takes out those it meets, and names the first that is left in
// the order of the table. The table is filled in dict order.
func firstUnexpected(obj qjson.Value, used []string) string {
	t := hashTable{slots: make([]string, minTable)}
	for name := range obj.DictOrder() {
		t.insert(string(name))
	}
	for _, name := range used {
		t.remove(name)
	}
	return t.first()
}

// minTable is the smallest size of a table; all are powers of two.
const minTable = 8

// tablePrimes are the moduli of GLib's tables of 1, 2, 4, 8, … slots: the
// largest prime below the size.
var tablePrimes = [...]uint32{
	1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521,
	131071, 262139, 524287, 1048573, 2097143,
}

// removed marks a slot whose member was taken out. No name contains a zero
// byte, since strings of this dialect have none.
const removed = "\x00"

// hashTable is a GHashTable of strings with open addressing.
type hashTable struct {
	// slots hold the names with a mark in front, "" when never used.
	slots    []string
	nodes    int // members in the table
	occupied int // slots with a member or the mark of one removed
}

// find returns the slot of a name, or the one where it is to be put.
func (t *hashTable) find(name string) (slot int, there bool) {
	prime := tablePrimes[log2(len(t.slots))]
	mask := uint32(len(t.slots) - 1)
	i := stringHash(name) * 11 % prime
	grave := -1
	for distance := uint32(1); t.slots[i] != ""; distance++ {
		switch {
		case t.slots[i] == "="+name:
			return int(i), true
		case t.slots[i] == removed && grave < 0:
			grave = int(i)
		}
		i = (i + distance) & mask
	}
	if grave >= 0 {
		return grave, false
	}
	return int(i), false
}

func (t *hashTable) insert(name string) {
	i, there := t.find(name)
	if there {
		return
	}
	if t.slots[i] == "" {
		t.occupied++
	}
	t.slots[i] = "=" + name
	t.nodes++
	t.resize()
}

func (t *hashTable) remove(name string) {
	i, there := t.find(name)
	if !there {
		return
	}
	t.slots[i] = removed
	t.nodes--
	t.resize()
}

// resize builds the table anew when it is too full or too empty.
func (t *hashTable) resize() {
	size := len(t.slots)
	tooLarge := size > t.nodes*4 && size > minTable
	tooSmall := size <= t.occupied+t.occupied/16
	if !tooLarge && !tooSmall {
		return
	}
	t.rebuild()
}

// rebuild moves every member to the place it has in a table of the right
// size, in the very array: slot after slot is emptied, and what is put into a
// slot that has not had its turn throws out what lies there, which moves next.
func (t *hashTable) rebuild() {
	old := len(t.slots)
	size := minTable
	for want := int(float64(t.nodes) * 1.333); size <= want; {
		size *= 2
	}
	if size > old {
		t.slots = append(t.slots, make([]string, size-old)...)
	}
	prime, mask := tablePrimes[log2(size)], uint32(size-1)
	settled := make([]bool, len(t.slots))
	for i := range old {
		name := t.slots[i]
		if settled[i] {
			continue
		}
		t.slots[i] = ""
		for name != "" && name != removed {
			to := stringHash(name[1:]) * 11 % prime
			for distance := uint32(1); settled[to]; distance++ {
				to = (to + distance) & mask
			}
			settled[to] = true
			name, t.slots[to] = t.slots[to], name
		}
	}
	t.slots = t.slots[:size]
	t.occupied = t.nodes
}

func (t *hashTable) first() string {
	i := slices.IndexFunc(t.slots, func(s string) bool { return s != "" && s != removed })
	if i < 0 {
		return ""
	}
	return t.slots[i][1:]
}

// stringHash is GLib's hash of strings, djb2 over signed bytes.
func stringHash(s string) uint32 {
	h := uint32(5381)
	for i := range len(s) {
		h = h*33 + uint32(int32(int8(s[i])))
	}
	return h
}

func log2(size int) int {
	n := 0
	for size > 1 {
		size >>= 1
		n++
	}
	return n
}
