package jobs

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// commitArea is an area that the images either have, all of it, or do not have.
// What they have is copied.
type commitArea struct {
	offset, bytes int64
	allocated     bool
	// err is what went wrong when the images were asked, or read.
	err error

	reading bool
	data    *block.Buffer // what the images hold, once it is read
}

// copyAll copies everything from the beginning to the end. While it writes it
// reads what follows, unless it has a speed. Requests that fail and are not to
// end the job are tried again.
func (k *commit) copyAll(co *aio.Co, j *Job, length int64) error {
	defer k.forget(co)
	var offset, copied int64
	for offset < length {
		k.job.Throttle(co, copied)
		if j.Cancelled() {
			return nil
		}
		a := k.take(co, offset, length)
		if next := a.offset + a.bytes; a.err == nil && next < length && k.job.Speed() == 0 {
			k.readAhead(co, next, length)
		}
		op, err := k.finish(co, a)
		if err != nil {
			if k.job.handle(co, op, k.p.Errors, err) == ReportError {
				return err
			}
			copied = 0
			continue
		}
		if copied = 0; a.allocated {
			copied = a.bytes
		}
		j.Progress.Add(a.bytes)
		offset += a.bytes
	}
	return nil
}

// take returns the area at offset, read.
func (k *commit) take(co *aio.Co, offset, length int64) *commitArea {
	a := k.ahead
	if a == nil || a.offset != offset {
		a = k.look(co, offset, length)
		k.read(co, a)
		return a
	}
	k.await(co, a)
	k.ahead = nil
	return a
}

// look finds out what is at offset. Where nothing is to be copied the area
// reaches far.
func (k *commit) look(co *aio.Co, offset, length int64) *commitArea {
	a := &commitArea{offset: offset, bytes: length - offset}
	depth, count, err := k.p.Top.CoIsAllocatedAbove(co, k.p.Base, false, offset, a.bytes)
	if count > 0 { // or the images have ended
		a.bytes = count
	}
	if a.err = err; err == nil && depth > 0 {
		a.allocated = true
		a.bytes = min(a.bytes, copyChunk)
	}
	return a
}

func (k *commit) read(co *aio.Co, a *commitArea) {
	if !a.allocated {
		return
	}
	a.data = block.GetBuffer(a.bytes)
	a.err = k.from.CoPreadv(co, a.offset, block.Vec{a.data.B}, 0)
}

// finish writes what was read. It returns what has failed, if something did.
func (k *commit) finish(co *aio.Co, a *commitArea) (Operation, error) {
	defer a.free()
	if a.err != nil || !a.allocated {
		return Read, a.err
	}
	return Write, k.to.CoPwritev(co, a.offset, block.Vec{a.data.B}, 0)
}

func (a *commitArea) free() {
	if a.data != nil {
		a.data.Free()
		a.data = nil
	}
}

// readAhead begins to read the area at offset, unless that was done already.
func (k *commit) readAhead(co *aio.Co, offset, length int64) {
	if k.ahead != nil && k.ahead.offset == offset {
		return
	}
	k.forget(co)
	a := k.look(co, offset, length)
	k.ahead = a
	if !a.allocated {
		return
	}
	a.reading = true
	co.Fork(k.job.set.cfg.Main, "commit", func(co *aio.Co) { k.read(co, a) }, func(l *aio.Lock, p *aio.PanicError) {
		if p != nil {
			k.job.set.cfg.Panicked(p)
			a.err = p
		}
		a.reading = false
		k.idle.Wake(l)
	})
}

// await waits until an area is read.
func (k *commit) await(co *aio.Co, a *commitArea) {
	k.job.takeTurn(co)
	for a.reading {
		k.idle.Sleep(co, aio.Forever)
	}
}

// forget waits for what is read ahead and gives it up.
func (k *commit) forget(co *aio.Co) {
	if a := k.ahead; a != nil {
		k.await(co, a)
		a.free()
		k.ahead = nil
	}
}

// Pause lets nothing be under way: a job that rests does nothing. What was read
// is read again, since it may be another thing by then; that it could not be read
// will be told.
func (k *commit) Pause(co *aio.Co, _ *Job) {
	if a := k.ahead; a != nil {
		if k.await(co, a); a.err == nil {
			k.forget(co)
		}
	}
}

// Resume has nothing to do.
func (k *commit) Resume(*aio.Co, *Job) {}
