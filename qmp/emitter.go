package qmp

import (
	"slices"
	"sync"
	"time"

	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
	"github.com/qmpblock/qmpblock/trace"
)

// Clock tells the time and wakes up, so that tests can turn the hands.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f on its own goroutine after d. stop reports whether
	// it prevented that.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// occurrence is an event that has happened, ready to be sent.
type occurrence struct {
	name                  string
	data                  []byte // empty when it has none
	seconds, microseconds int64
	line                  []byte // as QMP prints it
}

// subscriber receives events. It is called with the emitter's lock held, must
// not wait for anything, and must not keep what it is given.
type subscriber struct{ receive func(*occurrence) }

// Emitter sends the events of one instance to everybody who wants them, with
// the same timestamp, in the same order for all. Events that nobody wants are
// lost.
type Emitter struct {
	table  *schema.Table
	clock  Clock
	tracer *trace.Tracer

	mu          sync.Mutex
	subscribers []*subscriber
	limits      map[string]*limit
	ending      []string // keys of limits, that which ends first in front
	memory      occurrence
	closed      bool
	timers      sync.WaitGroup
}

// NewEmitter returns an emitter of a table's events. A nil clock is the real
// one, a nil tracer silent.
func NewEmitter(table *schema.Table, clock Clock, tracer *trace.Tracer) *Emitter {
	if clock == nil {
		clock = realClock{}
	}
	return &Emitter{table: table, clock: clock, tracer: tracer, limits: map[string]*limit{}}
}

// Subscribe makes f get every event from now until cancel returns. f is given
// the event's name, its data as JSON (empty when it has none), and the time
// since the epoch. It must not wait for anything, nor keep data.
func (e *Emitter) Subscribe(f func(name string, data []byte, seconds, microseconds int64)) (cancel func()) {
	return e.subscribe(func(o *occurrence) { f(o.name, o.data, o.seconds, o.microseconds) }, func() {})
}

// subscribe calls first before any event can come. Neither may wait.
func (e *Emitter) subscribe(receive func(*occurrence), first func()) (cancel func()) {
	s := &subscriber{receive}
	e.mu.Lock()
	defer e.mu.Unlock()
	first()
	e.subscribers = append(e.subscribers, s)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.subscribers = slices.DeleteFunc(e.subscribers, func(other *subscriber) bool { return other == s })
	}
}

// Emit sends an event to all subscribers, or keeps it for later when there
// are too many of its kind. It waits for no client.
func (e *Emitter) Emit(event schema.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	now := e.clock.Now()
	o := &e.memory
	o.name = event.EventName()
	o.data = e.table.AppendData(o.data[:0], event)
	o.seconds, o.microseconds = now.Unix(), int64(now.Nanosecond()/1000)
	if t := e.tracer.At(trace.EventEmit); t != nil {
		t.Str("event", o.name).Bytes("data", o.data).Send()
	}
	e.pass(o)
	if cap(o.data)+cap(o.line) > keepMemory {
		e.memory = occurrence{}
	}
}

// Close stops the emitter: nothing is sent any more, what is held back is
// lost.
func (e *Emitter) Close() {
	e.mu.Lock()
	e.closed = true
	for _, l := range e.limits {
		if l.stop() {
			e.timers.Done()
		}
	}
	clear(e.limits)
	e.ending = nil
	e.mu.Unlock()
	e.timers.Wait()
}

// pass sends an event unless it is to be held back. The lock is held.
func (e *Emitter) pass(o *occurrence) {
	if !e.hold(o) {
		e.send(o)
	}
}

// send hands an event to all subscribers. The lock is held.
func (e *Emitter) send(o *occurrence) {
	if len(e.subscribers) == 0 {
		return
	}
	o.line = o.appendLine(o.line[:0])
	for _, s := range e.subscribers {
		s.receive(o)
	}
}

// appendLine appends the event as QMP prints it, members in dict order.
func (o *occurrence) appendLine(dst []byte) []byte {
	dst = append(dst, `{"timestamp": {"seconds": `...)
	dst = qjson.AppendInt(dst, o.seconds)
	dst = append(dst, `, "microseconds": `...)
	dst = qjson.AppendInt(dst, o.microseconds)
	dst = append(dst, `}, "event": `...)
	dst = qjson.AppendString(dst, o.name)
	if len(o.data) > 0 {
		dst = append(dst, `, "data": `...)
		dst = append(dst, o.data...)
	}
	return append(dst, '}', '\r', '\n')
}
