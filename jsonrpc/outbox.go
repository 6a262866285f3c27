package jsonrpc

import (
	"encoding/json"
	"sync"

	"github.com/sourcegraph/jsonrpc2"
)

// MaxQueued is how many bytes of events may wait for a client to read them.
const MaxQueued = 1 << 20

// eventOverhead is what an event costs besides its text, so that many small
// ones are bounded too.
const eventOverhead = 128

// message is something to send: one of an event, the answer to a request, or
// the answer to what was no request.
type message struct {
	event   json.RawMessage
	answer  *jsonrpc2.Response
	refusal []byte

	gone chan struct{} // of an answer: closed when it was sent or dropped
}

func (m *message) size() int {
	if m.event == nil {
		return 0 // the one answer under way is not what piles up
	}
	return len(m.event) + eventOverhead
}

func (m *message) leave() {
	if m.gone != nil {
		close(m.gone)
	}
}

// outbox holds what waits to be sent, in the order in which it came about.
type outbox struct {
	mu      sync.Mutex
	changed sync.Cond
	queue   []*message
	bytes   int
	ended   bool // nothing more comes in
}

func (b *outbox) init() { b.changed.L = &b.mu }

// put adds an answer. The channel is closed when it was sent or dropped.
func (b *outbox) put(m *message) (gone <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.gone = make(chan struct{})
	b.add(m)
	return m.gone
}

// putEvent adds an event; false when too many wait already.
func (b *outbox) putEvent(e json.RawMessage) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &message{event: e}
	if !b.ended && b.bytes+m.size() > MaxQueued {
		return false
	}
	b.add(m)
	return true
}

func (b *outbox) add(m *message) {
	if b.ended {
		m.leave()
		return
	}
	b.queue = append(b.queue, m)
	b.bytes += m.size()
	b.changed.Signal()
}

// next waits for a message and returns it, nil when there will be none. The
// message counts until done.
func (b *outbox) next() *message {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) == 0 && !b.ended {
		b.changed.Wait()
	}
	if len(b.queue) == 0 {
		return nil
	}
	m := b.queue[0]
	b.queue = b.queue[1:]
	return m
}

// done says that a message is out of the way.
func (b *outbox) done(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.leave()
	b.bytes -= m.size()
}

// end lets nothing more in; what is there will still be sent.
func (b *outbox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.changed.Signal()
}

// drop lets nothing more in and forgets what is there.
func (b *outbox) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	for _, m := range b.queue {
		m.leave()
		b.bytes -= m.size()
	}
	b.queue = nil
	b.changed.Signal()
}
