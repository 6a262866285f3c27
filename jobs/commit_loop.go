package jobs

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// commitOps is how many requests of a commit are under way at most: while one
// writes, the next one reads.
const commitOps = 2

// commitWork is how far a commit has come. It changes in turns of the main
// context.
type commitWork struct {
	offset int64       // where the next request begins
	unpaid int64       // bytes that the speed does not know of
	ops    []*commitOp // what has been started and not been looked at since, in order
	idle   aio.Sleeper // where the job waits for the first of them
	err    error       // why the job fails
}

// commitOp is about one area: all of it is to be copied, or nothing is.
type commitOp struct {
	offset, bytes int64
	done          bool
	failed        Operation // what has failed if err is not nil
	err           error
}

// copyAll copies everything, in order as far as anybody can see. Requests that
// fail and are not to end the job are tried again.
func (k *commit) copyAll(co *aio.Co, j *Job, length int64) error {
	w := &k.work
	for w.err == nil && w.offset < length {
		unpaid := w.unpaid
		w.unpaid = 0
		k.job.Throttle(co, unpaid)
		if w.err != nil || j.Cancelled() {
			break
		}
		k.start(co, k.look(co, w.offset, length-w.offset))
		most := commitOps - 1
		if w.offset == length || k.job.speed > 0 {
			most = 0
		}
		k.reap(co, most)
	}
	k.settle(co)
	return w.err
}

// look finds out what is to be done at offset. Where that is nothing the area
// reaches far.
func (k *commit) look(co *aio.Co, offset, bytes int64) *commitOp {
	op := &commitOp{offset: offset, bytes: bytes}
	depth, count, err := k.p.Top.CoIsAllocatedAbove(co, k.p.Base, false, offset, bytes)
	if count > 0 { // or the images have ended
		op.bytes = count
	}
	if err != nil || depth == 0 {
		op.done, op.failed, op.err = true, Read, err
	} else {
		op.bytes = min(op.bytes, copyChunk)
	}
	return op
}

// start begins with an area, if there is anything to do.
func (k *commit) start(co *aio.Co, op *commitOp) {
	w := &k.work
	k.job.takeTurn(co)
	w.ops = append(w.ops, op)
	w.offset += op.bytes
	if op.done {
		return
	}
	w.unpaid = op.bytes
	co.Fork(k.job.set.cfg.Main, "commit", func(co *aio.Co) { k.copy(co, op) }, func(l *aio.Lock, p *aio.PanicError) {
		if p != nil {
			k.job.set.cfg.Panicked(p)
			op.err = p
		}
		op.done = true
		w.idle.Wake(l)
	})
}

func (k *commit) copy(co *aio.Co, op *commitOp) {
	buf := block.GetBuffer(op.bytes)
	defer buf.Free()
	data := block.Vec{buf.B}
	op.failed = Read
	if op.err = k.from.CoPreadv(co, op.offset, data, 0); op.err == nil {
		op.failed = Write
		op.err = k.to.CoPwritev(co, op.offset, data, 0)
	}
}

// reap looks at what has ended until at most so many requests are under way.
// When one has failed, what was started behind it is done again as well.
func (k *commit) reap(co *aio.Co, most int) {
	w := &k.work
	for len(w.ops) > most && w.err == nil {
		op := w.ops[0]
		k.await(co, op)
		if op.err == nil {
			w.ops = w.ops[1:]
			k.job.Progress.Add(op.bytes)
			continue
		}
		k.settle(co)
		w.ops, w.offset, w.unpaid = nil, op.offset, 0
		if k.job.handle(co, op.failed, k.p.Errors, op.err) == ReportError {
			w.err = op.err
		}
	}
}

// settle waits for all that is under way.
func (k *commit) settle(co *aio.Co) {
	for _, op := range k.work.ops {
		k.await(co, op)
	}
}

func (k *commit) await(co *aio.Co, op *commitOp) {
	k.job.takeTurn(co)
	for !op.done {
		k.work.idle.Sleep(co, aio.Forever)
	}
}

// Pause waits for what is under way, and tells of what has failed: a job that
// rests does nothing.
func (k *commit) Pause(co *aio.Co, _ *Job) { k.reap(co, 0) }

// Resume has nothing to do.
func (k *commit) Resume(*aio.Co, *Job) {}
