package jobs

import (
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
)

// Run copies until it is told to end. Then the source is drained, so that both
// sides stay the same until the job has let go of them.
func (k *mirror) Run(co *aio.Co, j *Job) error {
	err := k.prepareCopy(co)
	if err == nil {
		err = k.follow(co, j)
	}
	k.settle(co, j)
	if err == nil {
		err = k.failure()
	}
	k.drain(co, j)
	return err
}

// prepareCopy looks at the lengths and finds out what is to be copied.
func (k *mirror) prepareCopy(co *aio.Co) error {
	target, err := k.p.Target.CoGetLength(co)
	switch {
	case err != nil:
		return err
	case target < k.length && k.p.Base == k.p.Target:
		if err := k.target.Root().CoTruncate(co, k.length, false, block.PreallocOff, 0); err != nil {
			return err
		}
	case target != k.length && k.p.Base != k.p.Target:
		return qerr.New("Source and target image have different sizes")
	}
	if k.p.ChangesOnly {
		return nil
	}
	return k.findWork(co)
}

// findWork marks what is to be copied. If nobody knows what the target holds,
// that is everything, or the target is made zero first where this is cheap.
func (k *mirror) findWork(co *aio.Co) error {
	if k.p.ZeroTarget {
		if !k.zeroesCheaply() {
			k.markDirty(0, k.length)
			return nil
		}
		if err := k.zeroTarget(co); err != nil {
			return err
		}
	}
	return k.eachSlice(co, func(offset int64) (int64, error) {
		depth, count, err := k.p.Source.CoIsAllocatedAbove(co, k.p.Base, false, offset, k.length-offset)
		if err == nil && depth > 0 {
			k.markDirty(offset, count)
		}
		return count, err
	})
}

// eachSlice goes over the disk in steps, whose length they return, and lets
// others have their turns in between.
func (k *mirror) eachSlice(co *aio.Co, step func(offset int64) (int64, error)) error {
	last := time.Now()
	for offset := int64(0); offset < k.length; {
		if now := time.Now(); now.Sub(last) > idleTime {
			last = now
			k.job.Sleep(co, 0)
		}
		if k.job.Cancelled() {
			return nil
		}
		count, err := step(offset)
		switch {
		case err != nil:
			return err
		case count == 0:
			return nil // the source has become shorter
		}
		offset += count
	}
	return nil
}

// zeroesCheaply tells whether the target can forget data.
func (k *mirror) zeroesCheaply() bool {
	return k.p.Target.Flags()&block.FlagUnmap != 0 && k.p.Target.Limits().ZeroFlags&block.ReqMayUnmap != 0
}

// zeroTarget makes the target zero, a plain file where it is not already.
func (k *mirror) zeroTarget(co *aio.Co) error {
	return k.eachSlice(co, func(offset int64) (int64, error) {
		bytes := min(k.length-offset, maxZero)
		if !k.plain {
			return bytes, k.zeroSlice(co, offset, bytes)
		}
		st, _, err := k.p.Target.CoBlockStatusAbove(co, nil, false, true, offset, bytes)
		switch {
		case err != nil || st.Bytes == 0:
			return bytes, k.zeroSlice(co, offset, bytes)
		case st.Flags&block.StatusZero == 0:
			err = k.zeroSlice(co, offset, st.Bytes)
		}
		return st.Bytes, err
	})
}

// zeroSlice makes an area of the target zero, or leaves it to be copied.
func (k *mirror) zeroSlice(co *aio.Co, offset, bytes int64) error {
	for !k.job.Cancelled() {
		err := k.target.Root().CoPwriteZeroes(co, offset, bytes, block.ReqMayUnmap)
		if err == nil {
			return nil
		}
		switch k.fail(co, Write, err) {
		case ReportError:
			return err
		case IgnoreError:
			k.markDirty(offset, bytes)
			return nil
		}
		k.job.PausePoint(co)
	}
	return nil
}

// follow copies what is dirty, over and over again, until the job ends.
func (k *mirror) follow(co *aio.Co, j *Job) error {
	for ready := false; ; {
		j.PausePoint(co)
		if k.failing {
			k.failing = false
			j.Sleep(co, retryTime)
		}
		if err := k.failure(); err != nil || j.Cancelled() {
			return err
		}
		dirty := k.announce()
		switch {
		case k.full() || dirty == 0 && k.inFlight > 0:
			k.io.Sleep(co, aio.Forever)
		case dirty > 0:
			k.pace(co, j, k.iterate(co, j))
		default:
			if k.converge(co, j, &ready) {
				return nil
			}
		}
	}
}

// full tells whether no more requests can be under way.
func (k *mirror) full() bool {
	return k.inFlight >= mirrorOps || k.copying > 0 && k.copying+k.unit > k.bufSize
}

// announce says how much is to be done, and returns how much of it nobody is at.
func (k *mirror) announce() (dirty int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	dirty = k.dirty.Count()
	k.job.Progress.SetRemaining(dirty + k.moving + k.active)
	return dirty
}

// pace waits as long as the speed demands after more was copied, and lets others
// have their turns if there is more to copy.
func (k *mirror) pace(co *aio.Co, j *Job, copied int64) {
	for {
		j.takeTurn(co)
		wait := k.job.limiter.Delay(copied, time.Now())
		if wait <= 0 && k.dirty.Count() == 0 {
			return
		}
		j.Sleep(co, wait)
		if wait <= 0 || j.Cancelled() {
			return
		}
		copied = 0
	}
}

// iterate copies the next dirty area, and returns how much that is for the
// speed limit.
func (k *mirror) iterate(co *aio.Co, j *Job) (copied int64) {
	claim := k.claim(co, k.bufSize)
	if claim == nil {
		return 0
	}
	defer k.unclaim(claim)
	k.rounds++
	for claim.Bytes > 0 && k.failure() == nil && !j.Cancelled() {
		method, bytes := k.look(co, claim)
		if bytes > claim.Bytes {
			// What was written there before it was claimed counts.
			k.extend(claim, bytes-claim.Bytes)
			method, bytes = k.look(co, claim)
			bytes = min(bytes, claim.Bytes)
		}
		k.awaitRoom(co, j, method, bytes)
		k.start(co, j, claim, bytes, method)
		if method == copyData || !k.zeroesCheaply() {
			copied += bytes
		}
	}
	if k.at = claim.Offset; k.at >= k.length {
		k.at = 0
	}
	return copied
}

// look finds out how to copy the beginning of a claimed area, which nobody writes
// to meanwhile, unless it becomes dirty. Zeroes may go on behind its end; what is
// of two kinds within a unit is data.
func (k *mirror) look(co *aio.Co, claim *block.Area) (copyMethod, int64) {
	offset, bytes := claim.Offset, claim.Bytes
	if k.rounds > 1 && k.job.Speed() == 0 {
		bytes = max(bytes, min(maxZero, k.length-offset))
	}
	st, _, err := k.p.Source.CoBlockStatusAbove(co, nil, false, true, offset, bytes)
	count := st.Bytes
	if offset+count < k.length {
		count = count / k.unit * k.unit
	}
	if err != nil || count == 0 {
		return copyData, min(k.unit, claim.Bytes)
	}
	switch {
	case st.Flags&block.StatusData != 0 && st.Flags&block.StatusZero == 0:
		return copyData, min(count, k.maxCopy, claim.Bytes)
	case st.Flags&block.StatusZero != 0:
		return copyZeroes, count
	}
	return copyDiscard, min(count, claim.Bytes)
}

// awaitRoom waits until one more request may be under way.
func (k *mirror) awaitRoom(co *aio.Co, j *Job, method copyMethod, bytes int64) {
	j.takeTurn(co)
	for k.inFlight >= mirrorOps || method == copyData && k.copying > 0 && k.copying+bytes > k.bufSize {
		k.io.Sleep(co, aio.Forever)
	}
}

// converge is called when nothing is dirty and no request under way. It makes
// the target durable the first time, when it makes the job ready, and the last
// one. It tells whether the job is over.
func (k *mirror) converge(co *aio.Co, j *Job, ready *bool) (end bool) {
	if !*ready {
		if !k.flush(co) {
			return false
		}
		*ready = true
		j.SetReady(co)
	}
	j.takeTurn(co)
	k.noteSynced()
	if !k.completing && !j.CancelRequested() {
		if k.dirty.Count() == 0 {
			j.Sleep(co, idleTime)
		}
		return false
	}
	if k.dirty.Count() > 0 {
		return false
	}
	k.drain(co, j)
	if k.dirty.Count() == 0 && k.flush(co) {
		return true
	}
	k.undrain(co, j)
	return false
}

// flush makes the target durable, or sees to it that the job learns of a failure
// that is its.
func (k *mirror) flush(co *aio.Co) bool {
	err := k.p.Target.CoFlush(co)
	if err != nil {
		k.fail(co, Write, err)
	}
	return err == nil
}

// noteSynced: where writes go to both sides and nothing is dirty, these hold the
// same. So they do if there is nothing to hold.
func (k *mirror) noteSynced() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty.Use(func(b *hbitmap.Bitmap) {
		k.synced = k.length == 0 || k.mode == CopyOnWrite && b.Count() == 0
	})
}

// settle waits for all requests under way.
func (k *mirror) settle(co *aio.Co, j *Job) {
	j.takeTurn(co)
	for k.inFlight > 0 {
		k.io.Sleep(co, aio.Forever)
	}
}

// Pause waits for the requests under way: a job that rests does nothing.
func (k *mirror) Pause(co *aio.Co, j *Job) { k.settle(co, j) }

// Resume has nothing to do.
func (k *mirror) Resume(*aio.Co, *Job) {}

// drain keeps requests away from the source. They are waited for between
// commands.
func (k *mirror) drain(co *aio.Co, j *Job) {
	j.takeTurn(co)
	if k.drained {
		return
	}
	j.quiet = true
	j.set.cfg.Main.Post(func(l *aio.Lock) {
		k.p.Source.DrainedBegin(l)
		k.drained = true
		k.io.Wake(l)
	})
	for !k.drained {
		k.io.Sleep(co, aio.Forever)
	}
	j.quiet = false
}

func (k *mirror) undrain(co *aio.Co, j *Job) {
	j.takeTurn(co)
	k.drained = false
	k.p.Source.DrainedEnd()
}
