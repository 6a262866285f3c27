package export

import (
	"sync"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/nbd"
)

// request is one request of an NBD client, from its header to its reply.
// Requests and their memory are used again and again.
type request struct {
	nbd.Request
	client *nbdClient
	next   *request // of a requestList

	held  int64   // what is counted of its memory, in bytes
	data  *buffer // its own or what is read for it, nil if there is none
	vec   [1][]byte
	metas []nbd.MetaContext // that its block status is about
	flags block.ReqFlags    // that go with every access to the node

	// reply is what goes over the wire: parts of head and of data.
	reply   [][]byte
	head    []byte
	extents []extent // found by a sparse read or a block status
	status  []byte   // a block status, encoded

	err     error // of the node
	failure string
	// half: the holes in what was to be read are known, and its data is not. The
	// reference has sent them by then, and cuts the client off
	// (observed: own/export/read-error).
	half bool
	// run is perform's coroutine; the method value is made once.
	run func(*aio.Co)
}

// requestList is a queue of requests.
type requestList struct{ head, tail *request }

func (l *requestList) push(r *request) {
	r.next = nil
	if l.tail != nil {
		l.tail.next = r
	} else {
		l.head = r
	}
	l.tail = r
}

func (l *requestList) pop() *request {
	r := l.head
	if r == nil {
		return nil
	}
	l.head = r.next
	if l.head == nil {
		l.tail = nil
	}
	r.next = nil
	return r
}

// requestPool keeps the requests of a client that are not in use.
type requestPool struct {
	mu   sync.Mutex
	free requestList
}

// get returns a request with nothing in it but memory.
func (p *requestPool) get(c *nbdClient) *request {
	p.mu.Lock()
	r := p.free.pop()
	p.mu.Unlock()
	if r == nil {
		r = &request{client: c}
		r.run = r.carryOut
	}
	r.err, r.failure, r.half = nil, "", false
	return r
}

// end gives the request's memory back; its reply is out.
func (r *request) end() {
	if r.data != nil {
		r.data.free()
		r.data = nil
	}
	c, held := r.client, r.held
	c.free.mu.Lock()
	c.free.free.push(r)
	c.free.mu.Unlock()
	c.dismiss(held)
}
