package quorum

import (
	"sync"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// requests are those under way. Of two that overlap, one of them a write, the
// later one waits: no read finds some children before a write and others behind
// it, and writes come to all children in the same order.
type requests struct {
	mu     sync.Mutex
	newest *request
	free   *request // for use again, linked by older
}

type request struct {
	offset, bytes int64
	write         bool
	done          chan struct{} // made when somebody waits
	newer, older  *request
}

// begin enters a request and waits for those in its way; with the flag
// ReqImmediate it fails instead.
func (s *requests) begin(co *aio.Co, offset, bytes int64, write bool, flags block.ReqFlags) (*request, error) {
	s.mu.Lock()
	r := s.enter(offset, bytes, write)
	for {
		other := r.inTheWay()
		if other == nil {
			s.mu.Unlock()
			return r, nil
		}
		if flags&block.ReqImmediate != 0 {
			s.leave(r)
			s.mu.Unlock()
			return nil, qerr.From(syscall.EAGAIN)
		}
		if other.done == nil {
			other.done = make(chan struct{})
		}
		done := other.done
		s.mu.Unlock()
		co.Yield(func() { <-done })
		s.mu.Lock()
	}
}

// end is the end of a request.
func (s *requests) end(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(r)
}

// inTheWay finds an older request that r must wait for.
func (r *request) inTheWay() *request {
	for o := r.older; o != nil; o = o.older {
		if (r.write || o.write) && o.offset < r.offset+r.bytes && r.offset < o.offset+o.bytes {
			return o
		}
	}
	return nil
}

func (s *requests) enter(offset, bytes int64, write bool) *request {
	r := s.free
	if r == nil {
		r = new(request)
	} else {
		s.free = r.older
	}
	*r = request{offset: offset, bytes: bytes, write: write, older: s.newest}
	if s.newest != nil {
		s.newest.newer = r
	}
	s.newest = r
	return r
}

func (s *requests) leave(r *request) {
	if r.newer != nil {
		r.newer.older = r.older
	} else {
		s.newest = r.older
	}
	if r.older != nil {
		r.older.newer = r.newer
	}
	if r.done != nil {
		close(r.done)
	}
	r.older, s.free = s.free, r
}
