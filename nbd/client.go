package nbd

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxInFlight is how many requests of a client the server can have before it
// at the same time; more wait for a place.
const maxInFlight = 64

// Client sends requests over a connection whose handshake is done, many at the
// same time, and hands each its reply. Its methods can be called from any
// goroutine; they return when the server has answered. Offsets and lengths are
// bytes, and must be what the export's sizes allow.
//
// Whoever has a request while nobody sends, sends it, and with it the requests
// that came meanwhile. One goroutine reads the replies, data straight into the
// memory of the request. A server that breaks the rules is not talked to any
// more: see [LostError].
type Client struct {
	session ClientSession
	out     sender
	in      replyReader
	calls   [maxInFlight]call
	free    chan uint16 // places in calls that nobody has
	ended   chan struct{}

	mu      sync.Mutex
	serial  uint64  // of cookies
	queue   []*call // to be sent
	spare   []*call // memory for the next queue
	sending bool
	lost    *LostError // why it is over
}

// LostError is what requests get whose connection is lost. Nobody knows
// whether the server has carried them out.
type LostError struct {
	// Errno is what the reference makes of it: EINVAL for the request whose
	// reply broke the rules, EIO for all others.
	Errno syscall.Errno
	Cause error
}

// Error tells the cause.
func (e *LostError) Error() string { return "connection lost: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Cause }

// violation is a rule of the protocol that the server broke in a reply.
type violation string

func (v violation) Error() string { return string(v) }

func violated(format string, args ...any) error { return violation(fmt.Sprintf(format, args...)) }

// NewClient begins the transmission phase. The connection becomes the
// client's.
func NewClient(s *ClientSession) *Client {
	c := &Client{session: *s, free: make(chan uint16, maxInFlight), ended: make(chan struct{})}
	c.out.init(s.Conn)
	c.in.init(s.Conn)
	for i := range uint16(maxInFlight) {
		c.free <- i
	}
	go c.receive()
	return c
}

// Export is what the server told of the export.
func (c *Client) Export() Export { return c.session.Export }

// Mode is how the server replies.
func (c *Client) Mode() Mode { return c.session.Mode }

// HasContext tells whether [Client.BlockStatus] can be asked.
func (c *Client) HasContext() bool { return c.session.HasContext }

// Close says good-bye if nothing is under way, and ends the connection.
// Requests under way are lost. It returns when nothing is left.
func (c *Client) Close() {
	c.mu.Lock()
	polite := c.lost == nil && !c.sending // nobody sends from now on
	if c.lost == nil {
		c.lost = &LostError{Errno: syscall.EIO, Cause: net.ErrClosed}
	}
	c.mu.Unlock()
	if polite {
		_ = c.session.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.session.Conn.Write(c.session.Mode.AppendRequest(nil, Request{Command: CmdDisconnect}))
	}
	c.session.Conn.Close()
	<-c.ended
}

// Read fills v.
func (c *Client) Read(offset uint64, v [][]byte) error {
	return c.do(Request{Command: CmdRead, Offset: offset, Length: length(v)}, v)
}

// Write writes v.
func (c *Client) Write(offset uint64, v [][]byte, flags CommandFlags) error {
	if c.session.Mode == Extended {
		flags |= CmdFlagPayloadLen
	}
	return c.do(Request{Command: CmdWrite, Flags: flags, Offset: offset, Length: length(v)}, v)
}

// WriteZeroes makes an area read as zeroes.
func (c *Client) WriteZeroes(offset, bytes uint64, flags CommandFlags) error {
	return c.do(Request{Command: CmdWriteZeroes, Flags: flags, Offset: offset, Length: bytes}, nil)
}

// Trim drops the data of an area.
func (c *Client) Trim(offset, bytes uint64, flags CommandFlags) error {
	return c.do(Request{Command: CmdTrim, Flags: flags, Offset: offset, Length: bytes}, nil)
}

// Flush makes finished writes durable.
func (c *Client) Flush() error { return c.do(Request{Command: CmdFlush}, nil) }

// Extent is a piece of an export with one status.
type Extent struct {
	Length, Flags uint64
}

// BlockStatus asks for the status of an area in the context that was agreed
// on. It fills extents from offset on, as many as the server tells and there
// is room for, and returns their number. The last one may reach beyond the
// area. Of its flags only [CmdFlagReqOne] makes sense.
func (c *Client) BlockStatus(offset, bytes uint64, flags CommandFlags, extents []Extent) (int, error) {
	k := c.place()
	defer c.leave(k)
	k.extents = extents
	err := c.run(k, Request{Command: CmdBlockStatus, Flags: flags, Offset: offset, Length: bytes})
	if err == nil && k.found == 0 {
		err = syscall.EIO // the server had nothing to say
	}
	return k.found, err
}

func length(v [][]byte) uint64 {
	n := 0
	for _, b := range v {
		n += len(b)
	}
	return uint64(n)
}

// call is a place for a request and what is known of its reply.
type call struct {
	place uint16
	// waiting says that the reply has not come, or not all of it; guarded by
	// the client's lock, like the request's cookie.
	waiting bool

	req Request
	// vec is the data that is sent, or where the data that comes goes.
	vec     [][]byte
	filled  coverage // what has come of a read
	extents []Extent
	found   int // extents
	chunks  int // with a status
	err     error
	// open counts what is still to happen: to be sent whole, and to be
	// answered whole. The memory of vec is in use until both are done: a
	// server may answer early.
	open atomic.Int32
	// signal says true when it is the request's turn to send, for itself and
	// all others, and false when all is done.
	signal chan bool
}

// place waits for a place.
func (c *Client) place() *call {
	place := <-c.free
	k := &c.calls[place]
	if k.signal == nil {
		k.place, k.signal = place, make(chan bool, 2)
	}
	return k
}

func (c *Client) leave(k *call) {
	k.vec, k.extents, k.err, k.found, k.chunks = nil, nil, nil, 0, 0
	k.filled.reset()
	c.free <- k.place
}

// step notes that one of the two things has happened. Afterwards the call
// belongs to others.
func (k *call) step() {
	if k.open.Add(-1) == 0 {
		k.signal <- false
	}
}

func (c *Client) do(req Request, v [][]byte) error {
	k := c.place()
	defer c.leave(k)
	k.vec = v
	return c.run(k, req)
}

// run sends a request and waits for its reply.
func (c *Client) run(k *call, req Request) error {
	k.req = req
	k.open.Store(2)
	send, err := c.enqueue(k)
	if err != nil {
		return err
	}
	if send {
		c.sendQueue()
	}
	for <-k.signal {
		c.sendQueue()
	}
	return k.err
}

// enqueue puts a request where it will be sent; the result tells whether it is
// the caller who sends.
func (c *Client) enqueue(k *call) (send bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return false, c.lost
	}
	c.serial++
	k.req.Cookie = c.serial<<16 | uint64(k.place)
	k.waiting = true
	c.queue = append(c.queue, k)
	send = !c.sending
	c.sending = true
	return send, nil
}

// sendQueue sends all that waits, and leaves what has come meanwhile to the
// first of those, so that nobody sends for others for ever.
func (c *Client) sendQueue() {
	c.mu.Lock()
	batch := c.queue
	c.queue = c.spare
	lost := c.lost != nil
	c.mu.Unlock()
	if !lost {
		if err := c.out.send(c.session.Mode, batch); err != nil {
			c.lose(err)
			c.session.Conn.Close() // the reader finds out, and tells everybody
		}
	}
	for i, k := range batch {
		k.step()
		batch[i] = nil
	}
	c.mu.Lock()
	c.spare = batch[:0]
	var next *call
	if len(c.queue) > 0 {
		next = c.queue[0]
	} else {
		c.sending = false
	}
	c.mu.Unlock()
	if next != nil {
		next.signal <- true
	}
}

// lose notes the first cause of the end. No request is taken from then on.
func (c *Client) lose(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost == nil {
		c.lost = &LostError{Errno: syscall.EIO, Cause: cause}
	}
}

// receive is the goroutine that reads replies, until the connection is lost.
func (c *Client) receive() {
	defer close(c.ended)
	for {
		if err := c.receiveReply(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			c.lose(err)
			break
		}
	}
	c.session.Conn.Close()
	for i := range c.calls {
		c.finish(&c.calls[i], c.lost)
	}
}

// find is the request with a cookie, nil if there is none.
func (c *Client) find(cookie uint64) *call {
	place := cookie & 0xffff
	if place >= maxInFlight {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := &c.calls[place]; k.waiting && k.req.Cookie == cookie {
		return k
	}
	return nil
}

// finish ends a request, if it is one that waits. It ends as its reply said,
// or is lost.
func (c *Client) finish(k *call, lost *LostError) {
	c.mu.Lock()
	waiting := k.waiting
	k.waiting = false
	c.mu.Unlock()
	if !waiting {
		return
	}
	if lost != nil {
		k.err = lost
	}
	k.step()
}
