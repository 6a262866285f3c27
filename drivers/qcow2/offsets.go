package qcow2

import "slices"

// offsets is a set of places in the file, sorted.
type offsets []int64

func (o *offsets) add(at int64) {
	i, found := slices.BinarySearch(*o, at)
	if !found {
		*o = slices.Insert(*o, i, at)
	}
}

func (o *offsets) remove(at int64) {
	if i, found := slices.BinarySearch(*o, at); found {
		*o = slices.Delete(*o, i, i+1)
	}
}

// touches tells whether a table of the given size at one of the places lies
// in an area.
func (o offsets) touches(offset, bytes, size int64) bool {
	i, found := slices.BinarySearch(o, offset)
	if found || i > 0 && o[i-1]+size > offset {
		return true
	}
	return i < len(o) && o[i] < offset+bytes
}

// offsetsOf lists the tables that the entries of others name.
func offsetsOf(mask uint64, tables ...[]uint64) offsets {
	var o offsets
	for _, entries := range tables {
		for _, e := range entries {
			if at := int64(e & mask); at != 0 {
				o = append(o, at)
			}
		}
	}
	slices.Sort(o)
	return slices.Compact(o)
}
