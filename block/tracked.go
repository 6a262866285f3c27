package block

import (
	"sync"
	"syscall"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// tracked is one write under way. Requests that touch the same bytes may run
// at the same time, as on real disks, unless one of them is serialising: a
// read-modify-write cycle must not lose what another request writes.
type tracked struct {
	offset, bytes int64
	// overlapOffset and overlapBytes are the area that a serialising request
	// keeps to itself, aligned to its read-modify-write unit.
	overlapOffset, overlapBytes int64
	serialising                 bool
	done                        chan struct{} // made when somebody waits
	prev, next                  *tracked
}

// trackedRequests are the requests under way on one node.
type trackedRequests struct {
	mu          sync.Mutex
	head        *tracked
	serialising int
	free        *tracked // for use again, linked by next
}

// begin enters a request. With a unit it is serialising from the start, so that
// nobody who comes later slips in: it keeps its area, aligned to the unit, to
// itself. Without one (0) it may overlap others.
func (t *trackedRequests) begin(offset, bytes, unit int64) *tracked {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.get()
	r.offset, r.bytes = offset, bytes
	r.overlapOffset, r.overlapBytes = offset, bytes
	r.serialising = unit > 0
	if r.serialising {
		t.serialising++
		r.overlapOffset = alignDown(offset, unit)
		r.overlapBytes = alignUp(offset+bytes, unit) - r.overlapOffset
	}
	r.next = t.head
	if t.head != nil {
		t.head.prev = r
	}
	t.head = r
	return r
}

// get takes memory for a request: as many as were under way at once are kept.
func (t *trackedRequests) get() *tracked {
	r := t.free
	if r == nil {
		return new(tracked)
	}
	t.free = r.next
	*r = tracked{}
	return r
}

func (t *trackedRequests) end(r *tracked) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.serialising {
		t.serialising--
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		t.head = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	if r.done != nil {
		close(r.done)
	}
	r.next, t.free = t.free, r
}

// wait waits for every request that overlaps r and must not. Of two
// serialising requests the one that began later waits, so that they never
// wait for each other. The flags ReqNoWait and ReqImmediate make it fail instead.
func (t *trackedRequests) wait(co *aio.Co, r *tracked, flags ReqFlags) error {
	for {
		t.mu.Lock()
		other := t.conflicting(r)
		if other == nil {
			t.mu.Unlock()
			return nil
		}
		if flags&(ReqNoWait|ReqImmediate) != 0 {
			t.mu.Unlock()
			if flags&ReqImmediate != 0 {
				return errWouldWait
			}
			return qerr.From(syscall.EBUSY)
		}
		if other.done == nil {
			other.done = make(chan struct{})
		}
		done := other.done
		t.mu.Unlock()
		co.Yield(func() { <-done })
	}
}

// conflicting finds an older request in r's way: the list runs from the newest
// to the oldest, so only what follows r can be older.
func (t *trackedRequests) conflicting(r *tracked) *tracked {
	if t.serialising == 0 {
		return nil
	}
	for o := r.next; o != nil; o = o.next {
		if (o.serialising || r.serialising) && o.overlaps(r) {
			return o
		}
	}
	return nil
}

func (o *tracked) overlaps(r *tracked) bool {
	return o.overlapOffset < r.overlapOffset+r.overlapBytes &&
		r.overlapOffset < o.overlapOffset+o.overlapBytes
}

func alignDown(n, align int64) int64 { return n &^ (align - 1) }
func alignUp(n, align int64) int64   { return (n + align - 1) &^ (align - 1) }
