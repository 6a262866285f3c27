package blklogwrites

import (
	"slices"
	"sync"

	"github.com/qmpblock/qmpblock/block/aio"
)

// ranges are the areas of the disk where something is being done. They are
// few: one for each request under way.
type ranges struct {
	mu   sync.Mutex
	held []*area
}

// area is one of them.
type area struct {
	start, end int64
	free       chan struct{} // closed when the area is released
}

// acquire waits until nobody holds a part of the area, and takes it.
func (r *ranges) acquire(co *aio.Co, offset, bytes int64) *area {
	a := &area{offset, offset + bytes, make(chan struct{})}
	for {
		r.mu.Lock()
		i := slices.IndexFunc(r.held, a.overlaps)
		if i < 0 {
			r.held = append(r.held, a)
			r.mu.Unlock()
			return a
		}
		other := r.held[i]
		r.mu.Unlock()
		co.Yield(func() { <-other.free })
	}
}

func (a *area) overlaps(b *area) bool { return a.start < b.end && b.start < a.end }

// release lets others have the area.
func (r *ranges) release(a *area) {
	r.mu.Lock()
	i := slices.Index(r.held, a)
	r.held = slices.Delete(r.held, i, i+1)
	r.mu.Unlock()
	close(a.free)
}
