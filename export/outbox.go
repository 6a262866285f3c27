package export

import (
	"fmt"
	"net"
	"sync"

	"github.com/qmpblock/qmpblock/nbd"
)

// corked is how much of replies may wait for company, in bytes.
const corked = 256 << 10

// sendBuffer is the room for replies that the client has not read yet, in
// bytes: a reply that fits leaves without waiting.
const sendBuffer = 1 << 20

// maxGather bounds the pieces of one write.
const maxGather = 1024

// outbox writes replies to a connection. At any time at most one goroutine
// writes; what others add meanwhile it takes along.
type outbox struct {
	conn    net.Conn
	secret  bool // each write is encrypted by itself, so that few are better
	mu      sync.Mutex
	queue   requestList
	bytes   int // in the queue
	writing bool
	rest    chan struct{} // closed when nobody writes any more; nil: nobody waits

	// Only whoever writes uses these.
	gather  net.Buffers
	scratch []byte // to make one write of many pieces
}

func (o *outbox) init(conn net.Conn) {
	o.conn = conn
	switch c := conn.(type) {
	case *net.UnixConn:
		// The system may give less; replies leave in more pieces then.
		_ = c.SetWriteBuffer(sendBuffer)
	case *net.TCPConn: // whose buffers grow by themselves
	default:
		o.secret = true
	}
}

// put adds a reply, which leaves with the next flush.
func (o *outbox) put(r *request) (crowded bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue.push(r)
	for _, part := range r.reply {
		o.bytes += len(part)
	}
	return o.bytes >= corked
}

// flush writes what is queued, unless somebody is at it.
func (o *outbox) flush(c *nbdClient) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing {
		return
	}
	o.writing = true
	for o.queue.head != nil {
		list := o.queue
		o.queue, o.bytes = requestList{}, 0
		o.mu.Unlock()
		o.write(c, list)
		o.mu.Lock()
	}
	o.writing = false
	if o.rest != nil {
		close(o.rest)
		o.rest = nil
	}
}

// atRest returns a channel that is closed when nobody writes: requests whose
// replies the client may have seen have ended then.
func (o *outbox) atRest() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rest != nil {
		return o.rest
	}
	rest := make(chan struct{})
	if o.writing {
		o.rest = rest
	} else {
		close(rest)
	}
	return rest
}

// write writes some replies and ends their requests. What cannot be written
// ends the connection.
func (o *outbox) write(c *nbdClient, list requestList) {
	pending := list.head
	o.gather = o.gather[:0]
	for r := list.head; r != nil; r = r.next {
		o.gather = append(o.gather, r.reply...)
		if r.next == nil || len(o.gather) >= maxGather {
			if err := o.send(); err != nil {
				//lint:ignore ST1005 These are the reference's words.
				c.blame(fmt.Errorf("Failed to send reply: %w", nbd.SocketError(err, "write to")))
			}
			o.gather = o.gather[:0]
		}
	}
	for pending != nil {
		r := pending
		pending = r.next
		r.end()
	}
}

// send writes the gathered pieces.
func (o *outbox) send() error {
	if o.secret {
		return o.sendSecret()
	}
	// WriteTo shortens the slice that it is called on.
	pieces := o.gather
	_, err := o.gather.WriteTo(o.conn)
	o.gather = pieces
	clear(pieces)
	return err
}

// sendSecret copies small pieces together.
func (o *outbox) sendSecret() error {
	const small = 16 << 10
	o.scratch = o.scratch[:0]
	for _, piece := range o.gather {
		if len(o.scratch) > 0 && len(o.scratch)+len(piece) > small {
			if _, err := o.conn.Write(o.scratch); err != nil {
				return err
			}
			o.scratch = o.scratch[:0]
		}
		if len(piece) > small {
			if _, err := o.conn.Write(piece); err != nil {
				return err
			}
			continue
		}
		o.scratch = append(o.scratch, piece...)
	}
	if len(o.scratch) == 0 {
		return nil
	}
	_, err := o.conn.Write(o.scratch)
	return err
}
