package blkdebug

import (
	"slices"
	"sync"

	"github.com/qmpblock/qmpblock/block"
)

// iotypes is a set of kinds of requests, as in the QAPI type BlkdebugIOType.
type iotypes uint8

const (
	ioRead iotypes = 1 << iota
	ioWrite
	ioWriteZeroes
	ioDiscard
	ioFlush
	ioBlockStatus

	ioDefault = ioRead | ioWrite | ioWriteZeroes | ioDiscard | ioFlush
)

// iotypeNames are the names, each at the place of its bit.
var iotypeNames = []string{"read", "write", "write-zeroes", "discard", "flush", "block-status"}

// rule is what is done at an event in a state, 0 for any.
type rule struct {
	event block.DebugEvent
	state int32
	// error makes requests fail; without one the state becomes newState.
	error    *injection
	newState int32
}

// injection is an error in wait of its request.
type injection struct {
	kinds       iotypes
	errno       int32
	anywhere    bool
	offset      int64 // in bytes, unless anywhere
	once        bool
	immediately bool
}

func (i *injection) fits(kind iotypes, offset, bytes int64) bool {
	return i.kinds&kind != 0 && (i.anywhere || offset <= i.offset && i.offset < offset+bytes)
}

// rules are those of one node, and what has come of them. Requests look at them
// at the same time.
type rules struct {
	// of holds the rules of each event that has some. It does not change.
	of [block.DebugEvents][]*rule

	mu     sync.Mutex
	state  int32
	active []*injection
	spent  map[*injection]bool // those that were there once and are no more
}

func (r *rules) init(list []*rule) {
	r.state = 1
	r.spent = map[*injection]bool{}
	for _, one := range list {
		r.of[one.event] = append(r.of[one.event], one)
	}
}

// event finds what rules there are for it.
func (r *rules) event(e block.DebugEvent) {
	list := r.of[e]
	if list == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.state
	var found []*injection
	changed := false
	for _, one := range list {
		switch {
		case one.state != 0 && one.state != state:
		case one.error == nil && !changed:
			r.state, changed = one.newState, true
		case one.error != nil && !r.spent[one.error]:
			found = append(found, one.error)
		}
	}
	if found != nil {
		r.active = found
	}
}

// fitting finds what a request of a kind fails with, 0 for nothing.
func (r *rules) fitting(kind iotypes, offset, bytes int64) (errno int32, immediately bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := slices.IndexFunc(r.active, func(i *injection) bool { return i.fits(kind, offset, bytes) })
	if n < 0 {
		return 0, false
	}
	i := r.active[n]
	if i.errno != 0 && i.once {
		r.spent[i] = true
		r.active = slices.Delete(r.active, n, n+1)
	}
	return i.errno, i.immediately
}
