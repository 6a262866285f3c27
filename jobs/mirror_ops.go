package jobs

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
)

// enter begins with an area, once nobody else is at a part of it: the job, or a
// write that goes to source and target.
func (k *mirror) enter(co *aio.Co, offset, bytes int64) *block.Area {
	for {
		k.mu.Lock()
		busy := k.areas.Conflict(offset, bytes)
		if busy == nil {
			defer k.mu.Unlock()
			return k.addArea(offset, bytes)
		}
		k.mu.Unlock()
		co.Yield(func() { <-busy })
	}
}

// addArea is called with mu held.
func (k *mirror) addArea(offset, bytes int64) *block.Area {
	area := &block.Area{Offset: offset, Bytes: bytes}
	k.areas.Add(area)
	return area
}

// exit is the end of an area.
func (k *mirror) exit(area *block.Area) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.areas.Remove(area)
}

// split makes the beginning of an area one of its own.
func (k *mirror) split(area *block.Area, bytes int64) *block.Area {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := k.addArea(area.Offset, bytes)
	area.Offset += bytes
	area.Bytes -= bytes
	area.Wake()
	return first
}

// copyMethod is how an area of the target gets what the source has.
type copyMethod uint8

const (
	copyData copyMethod = iota
	copyZeroes
	copyDiscard
)

// mirrorOp is a request of the job.
type mirrorOp struct {
	area   *block.Area
	method copyMethod
	failed bool
}

// start begins to copy the beginning of a claimed area, and returns when the
// request has ended or waits for something.
func (k *mirror) start(co *aio.Co, j *Job, claim *block.Area, bytes int64, method copyMethod) {
	j.takeTurn(co)
	op := &mirrorOp{area: k.split(claim, bytes), method: method, failed: true}
	k.inFlight++
	k.moving += bytes
	if method == copyData {
		k.copying += bytes
	}
	co.Fork(j.set.cfg.Main, "mirror", func(co *aio.Co) { k.perform(co, op) }, func(l *aio.Lock, p *aio.PanicError) {
		if p != nil {
			j.set.cfg.Panicked(p)
			k.giveUp(p)
		}
		if op.failed {
			k.unclaim(op.area)
		} else {
			j.Progress.Add(bytes)
		}
		k.inFlight--
		k.moving -= bytes
		if method == copyData {
			k.copying -= bytes
		}
		k.io.Wake(l)
	})
}

// perform copies an area. If that fails the area is to be copied still.
func (k *mirror) perform(co *aio.Co, op *mirrorOp) {
	direction, err := k.copyArea(co, op)
	if err == nil {
		op.failed = false
		k.exit(op.area)
		return
	}
	k.fail(co, direction, err)
}

// copyArea returns what went wrong, if something did, and where.
func (k *mirror) copyArea(co *aio.Co, op *mirrorOp) (Operation, error) {
	offset, bytes := op.area.Offset, op.area.Bytes
	switch op.method {
	case copyZeroes:
		return Write, k.zero(co, offset, bytes)
	case copyDiscard:
		return Write, k.target.Root().CoPdiscard(co, offset, bytes)
	}
	buf := block.GetBuffer(bytes)
	defer buf.Free()
	data := block.Vec{buf.B}
	if err := k.filter.Backing().CoPreadv(co, offset, data, 0); err != nil {
		return Read, err
	}
	return Write, k.target.Root().CoPwritev(co, offset, data, 0)
}

// zero makes an area of the target read as zeroes, if it does not already and is
// a plain file: what is sparse stays sparse.
func (k *mirror) zero(co *aio.Co, offset, bytes int64) error {
	if k.plain {
		if zero, err := k.p.Target.CoIsZero(co, offset, bytes); zero && err == nil {
			if offset+bytes < k.length {
				return nil
			}
			// The file may end within the last sector.
			rest := min(bytes, k.unit)
			offset, bytes = offset+bytes-rest, rest
		}
	}
	var flags block.ReqFlags
	if k.p.Unmap {
		flags = block.ReqMayUnmap
	}
	return k.target.Root().CoPwriteZeroes(co, offset, bytes, flags)
}

// fail does what the job's policy demands about a failed request.
func (k *mirror) fail(co *aio.Co, direction Operation, err error) ErrorAction {
	policy := k.p.TargetErrors
	if direction == Read {
		policy = k.p.SourceErrors
	}
	action := k.job.handle(co, direction, policy, err)
	switch action {
	case ReportError:
		k.giveUp(err)
	case IgnoreError:
		k.failing = true
	}
	return action
}

// giveUp ends the job with an error.
func (k *mirror) giveUp(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
}

func (k *mirror) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// claim takes the next area, at most limit bytes, out of what is to be copied,
// when nobody is at its beginning; nil: there is none any more. Who claims it
// must copy it, or give it back.
func (k *mirror) claim(co *aio.Co, limit int64) *block.Area {
	for {
		area, busy := k.tryClaim(limit)
		if busy == nil {
			return area
		}
		co.Yield(func() { <-busy })
	}
}

func (k *mirror) tryClaim(limit int64) (area *block.Area, busy <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty.Use(func(b *hbitmap.Bitmap) {
		offset := b.Next(k.at, k.length-k.at)
		if offset < 0 {
			offset = b.Next(0, k.length)
		}
		if offset < 0 {
			return // a write has taken it over
		}
		offset = offset / k.unit * k.unit
		if busy = k.areas.Conflict(offset, k.unit); busy == nil {
			area = k.addArea(offset, 0)
			k.claimMore(b, area, limit)
		}
	})
	return area, busy
}

// claimMore makes a claim longer by what is dirty behind it, at most limit
// bytes, up to where somebody is. It is called with mu held.
func (k *mirror) claimMore(b *hbitmap.Bitmap, area *block.Area, limit int64) {
	offset := area.Offset + area.Bytes
	limit = min(limit, k.length-offset)
	end := b.NextZero(offset, limit)
	if end < 0 {
		end = offset + limit
	}
	// A unit is dirty if a part of it is.
	end = min((max(end, offset+1)+k.unit-1)/k.unit*k.unit, k.length)
	for a := range k.areas.All() {
		if a != area && a.Overlaps(offset, end-offset) {
			end = max(a.Offset/k.unit*k.unit, offset)
		}
	}
	b.Reset(offset, end-offset)
	area.Bytes += end - offset
}

// extend makes a claim longer if what follows is to be copied.
func (k *mirror) extend(area *block.Area, limit int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty.Use(func(b *hbitmap.Bitmap) {
		if limit > 0 && b.Get(area.Offset+area.Bytes) {
			k.claimMore(b, area, limit)
		}
	})
}

// unclaim gives back what is left of a claim.
func (k *mirror) unclaim(area *block.Area) {
	if area.Bytes > 0 {
		k.markDirty(area.Offset, area.Bytes)
	}
	k.exit(area)
}
