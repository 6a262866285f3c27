package qmp

import (
	"bytes"
	"time"

	"github.com/qmpblock/qmpblock/qjson"
)

// interval is the shortest time between two similar events of the kinds that
// are limited.
const interval = time.Second

// similar tells which events are limited, and which member of their data,
// besides the name, makes two of them similar (qmp-spec, "Asynchronous
// events"; the reference manual says which are "rate-limited").
func similar(event string) (member string, limited bool) {
	switch event {
	case "BALLOON_CHANGE", "HV_BALLOON_STATUS_REPORT", "QUORUM_FAILURE", "RTC_CHANGE", "WATCHDOG":
		return "", true
	case "BLOCK_IO_ERROR", "MEMORY_DEVICE_SIZE_CHANGE":
		return "qom-path", true
	case "QUORUM_REPORT_BAD":
		return "node-name", true
	case "VSERPORT_CHANGE":
		return "id", true
	}
	return "", false
}

// limit watches over similar events during an interval: the first has been
// sent, of all further ones the last is sent when the interval is over.
type limit struct {
	stop    func() bool // ends the timer
	pending bool
	last    occurrence
}

// hold keeps an event back if a similar one was sent during the last
// interval. The lock is held.
func (e *Emitter) hold(o *occurrence) bool {
	member, limited := similar(o.name)
	if !limited {
		return false
	}
	key := o.name
	if member != "" {
		if data, err := qjson.Parse(o.data); err == nil {
			key += "\x00" + data.Get(member).Str()
		}
	}
	l := e.limits[key]
	if l == nil {
		e.limits[key] = &limit{stop: e.wake(key)}
		return false
	}
	l.pending = true
	l.last = occurrence{name: o.name, data: bytes.Clone(o.data), seconds: o.seconds, microseconds: o.microseconds}
	return true
}

// wake calls release after an interval.
func (e *Emitter) wake(key string) (stop func() bool) {
	e.timers.Add(1)
	e.ending = append(e.ending, key)
	return e.clock.AfterFunc(interval, func() {
		defer e.timers.Done()
		e.release()
	})
}

// release ends the interval that began first, whichever timer was the fastest:
// what was held back is sent, with the time at which it happened, and begins
// another.
func (e *Emitter) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	key := e.ending[0]
	e.ending = e.ending[1:]
	l := e.limits[key]
	if !l.pending {
		delete(e.limits, key)
		return
	}
	l.pending = false
	e.send(&l.last)
	l.stop = e.wake(key)
}
