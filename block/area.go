package block

import (
	"iter"
	"slices"
)

// Area is a part of a disk at which somebody is. Of two who overlap the later
// one waits.
type Area struct {
	Offset, Bytes int64
	done          chan struct{} // made when somebody waits
}

// Overlaps tells whether the area and another one have bytes in common.
func (a *Area) Overlaps(offset, bytes int64) bool {
	return a.Offset < offset+bytes && offset < a.Offset+a.Bytes
}

// Wake lets those who wait for the area look again: it has become smaller, or
// its end has come.
func (a *Area) Wake() {
	if a.done != nil {
		close(a.done)
		a.done = nil
	}
}

// Areas are all those of one disk. A lock of their owner protects them.
type Areas struct{ list []*Area }

// Add puts an area among them, whatever it overlaps.
func (s *Areas) Add(a *Area) { s.list = append(s.list, a) }

// Remove is the end of an area.
func (s *Areas) Remove(a *Area) {
	s.list = slices.DeleteFunc(s.list, func(other *Area) bool { return other == a })
	a.Wake()
}

// Conflict is closed when something has changed about somebody who is at a part
// of the given area; nil: nobody is.
func (s *Areas) Conflict(offset, bytes int64) <-chan struct{} {
	for _, a := range s.list {
		if !a.Overlaps(offset, bytes) {
			continue
		}
		if a.done == nil {
			a.done = make(chan struct{})
		}
		return a.done
	}
	return nil
}

// All visits the areas.
func (s *Areas) All() iter.Seq[*Area] { return slices.Values(s.list) }
