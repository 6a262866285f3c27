package qmp

import (
	"errors"
	"io"
	"sync"
)

// MaxQueued is how many bytes of events may wait for a client to read them.
const MaxQueued = 4 << 20

// keepMemory is the size up to which a session keeps a buffer for reuse.
const keepMemory = 64 << 10

var errCutOff = errors.New("the client does not read its events")

// outbox brings lines to a connection in the order in which they come about.
// At any time at most one goroutine writes: the session, for a reply when
// nothing else is under way, or a goroutine that exists while something is
// queued.
type outbox struct {
	w  io.Writer
	mu sync.Mutex
	// progress is signalled when written or err changes, or writing ends.
	progress sync.Cond
	queue    []byte
	spare    []byte // memory for the next queue
	writing  bool
	// appended and written count the bytes that have ever been queued and
	// of those the ones that have been written.
	appended, written uint64
	err               error // why nothing is written any more
	writers           sync.WaitGroup
}

func (o *outbox) init(w io.Writer) {
	o.w = w
	o.progress.L = &o.mu
}

// send writes line and everything before it, and returns when that is done.
// placed, when not nil, is called as soon as nothing can come before line any
// more.
func (o *outbox) send(line []byte, placed func()) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing || len(o.queue) > 0 || o.err != nil {
		o.add(line)
		if placed != nil {
			placed()
		}
		return o.wait()
	}
	o.writing = true
	if placed != nil {
		placed()
	}
	o.write(line)
	o.finish()
	return o.err
}

// put queues a reply that others will follow soon, so that they may be
// written together. When many wait it returns after they were written. placed
// is called as send does.
func (o *outbox) put(line []byte, placed func()) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	crowded := len(o.queue) > keepMemory
	o.add(line)
	placed()
	if crowded {
		return o.wait()
	}
	return o.err
}

// putEvent queues an event. It does not wait; with too much in the queue the
// connection is given up, with errCutOff.
func (o *outbox) putEvent(line []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil && len(o.queue)+len(line) > MaxQueued {
		o.fail(errCutOff)
		return errCutOff
	}
	o.add(line)
	return nil
}

// flush waits until everything queued so far has been written.
func (o *outbox) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wait()
}

// close gives the connection up, which must have been closed, and waits for
// the writer.
func (o *outbox) close() {
	o.mu.Lock()
	o.fail(io.ErrClosedPipe)
	o.mu.Unlock()
	o.writers.Wait()
}

// The functions below are called with the mutex held.

func (o *outbox) add(line []byte) {
	if o.err != nil {
		return
	}
	o.queue = append(o.queue, line...)
	o.appended += uint64(len(line))
	if !o.writing {
		o.writing = true
		o.writers.Go(func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.finish()
		})
	}
}

// wait returns when what was queued until now has been written.
func (o *outbox) wait() error {
	for target := o.appended; o.written < target && o.err == nil; {
		o.progress.Wait()
	}
	return o.err
}

// finish writes what is queued until nothing is.
func (o *outbox) finish() {
	for len(o.queue) > 0 && o.err == nil {
		lines := o.queue
		o.queue = o.spare[:0]
		o.spare = nil
		o.write(lines)
		o.written += uint64(len(lines))
		if cap(lines) <= keepMemory {
			o.spare = lines
		}
		o.progress.Broadcast()
	}
	o.writing = false
}

func (o *outbox) write(lines []byte) {
	o.mu.Unlock()
	_, err := o.w.Write(lines)
	o.mu.Lock()
	if err != nil {
		o.fail(err)
	}
}

// fail drops what is queued and everything that will be.
func (o *outbox) fail(err error) {
	if o.err == nil {
		o.err = err
		o.queue, o.spare = nil, nil
		o.progress.Broadcast()
	}
}
