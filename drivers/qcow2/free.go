package qcow2

import (
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block/aio"
)

// freeReason decides whether a freed cluster is discarded in the file.
type freeReason uint8

const (
	// freeNever: the clusters were never used.
	freeNever freeReason = iota
	// freeRequest: a user discarded them.
	freeRequest
	// freeSnapshot: a snapshot was deleted.
	freeSnapshot
	// freeAlways: they held the content of a bitmap, which nobody chooses to
	// keep.
	freeAlways
	// freeOther: they were written elsewhere, or a table has moved.
	freeOther
	freeReasons
)

// freed is an area of the file which lost one use, in bytes. It need not be
// aligned.
type freed struct {
	offset, bytes int64
	reason        freeReason
}

// frees are the clusters that lost a use of which the refcount still speaks:
// the mapping may still be on disk, and requests which saw it may still be under
// way. It is guarded by the image's mutex, but for the counts of requests.
//
// Time is cut into epochs. A request belongs to the epoch in which it looked at
// the mapping. What was freed in an epoch can be used anew when all requests of
// that epoch and of those before are over.
type frees struct {
	now  uint32
	list [2][]freed // of this epoch and of the one before
	pins [2]atomic.Int64
	held int64 // bytes in both lists
	// cluster is the size of one, in bytes.
	cluster int64
}

// maxHeld bounds what waits to be freed, in bytes, before requests flush by
// themselves.
const maxHeld = 64 << 20

func (f *frees) add(offset, bytes int64, reason freeReason) {
	f.held += bytes
	list := f.list[f.now&1]
	// What begins a cluster of its own can be joined to what is before it.
	if n := len(list) - 1; n >= 0 && offset&(f.cluster-1) == 0 && list[n].offset+list[n].bytes == offset && list[n].reason == reason {
		list[n].bytes += bytes
		return
	}
	f.list[f.now&1] = append(list, freed{offset, bytes, reason})
}

// pin enters a request into the epoch; unpin takes it out again.
func (f *frees) pin() uint32 {
	f.pins[f.now&1].Add(1)
	return f.now
}

func (f *frees) unpin(epoch uint32) { f.pins[epoch&1].Add(-1) }

// ripe takes out what can be used anew. All mappings must be durable.
func (f *frees) ripe() []freed {
	var out []freed
	for range 2 {
		before := (f.now + 1) & 1
		if f.pins[before].Load() > 0 {
			break
		}
		out = append(out, f.list[before]...)
		f.list[before] = nil
		f.now++
	}
	for _, a := range out {
		f.held -= a.bytes
	}
	return out
}

// pending tells whether anything waits to be freed.
func (f *frees) pending() bool { return len(f.list[0])+len(f.list[1]) > 0 }

// release counts down what is ripe, and discards it in the file if the
// options say so.
func (i *image) release(co *aio.Co) error {
	var discards []freed
	list := i.frees.ripe()
	for n, a := range list {
		first, last := a.offset>>i.geo.clusterBits, (a.offset+a.bytes-1)>>i.geo.clusterBits
		for c := first; c <= last; c++ {
			left, err := i.refs.drop(co, c)
			if err != nil {
				// What is left stays counted: leaked, not lost.
				for _, rest := range list[n+1:] {
					i.frees.add(rest.offset, rest.bytes, rest.reason)
				}
				return err
			}
			if left == 0 {
				i.dropped(c << i.geo.clusterBits)
				if i.opts.passDiscard[a.reason] {
					discards = appendRun(discards, c<<i.geo.clusterBits, i.geo.clusterSize)
				}
			}
		}
	}
	for _, d := range discards {
		// A hint: what the file makes of it changes nothing here.
		_ = i.file.CoPdiscard(co, d.offset, d.bytes)
	}
	return nil
}

// dropped forgets what caches hold of a cluster that is free.
func (i *image) dropped(offset int64) {
	i.l2.forget(offset, i.geo.clusterSize)
	if i.compressEnd > offset && i.compressEnd <= offset+i.geo.clusterSize {
		i.compressEnd = 0
	}
}

func appendRun(runs []freed, offset, bytes int64) []freed {
	if n := len(runs); n > 0 && runs[n-1].offset+runs[n-1].bytes == offset {
		runs[n-1].bytes += bytes
		return runs
	}
	return append(runs, freed{offset: offset, bytes: bytes})
}
