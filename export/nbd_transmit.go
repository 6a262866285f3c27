package export

import (
	"fmt"

	"github.com/qmpblock/qmpblock/nbd"
)

// transmit serves requests until the client disconnects.
func (c *nbdClient) transmit() error {
	for {
		r, err := c.next()
		if r == nil || err != nil {
			return err
		}
		if r.failure == "" && !r.immediate() {
			c.hand(r)
			continue
		}
		if crowded := c.out.put(r); crowded {
			c.out.flush(c)
		}
	}
}

// next reads a request with its data. Nil is the end: the client has
// disconnected, or was cut off.
func (c *nbdClient) next() (*request, error) {
	size := c.mode.RequestHeaderSize()
	head, err := c.in.peek(size)
	if err != nil {
		return nil, err
	}
	header, err := c.mode.ParseRequest(head)
	c.in.skip(size)
	if err == nil && header.Command == nbd.CmdDisconnect {
		return nil, nil
	}
	held := c.held(&header)
	if !c.admit(held) {
		return nil, nil
	}
	r := c.free.get(c)
	r.Request, r.held = header, held
	if err == nil {
		err = r.tooLong()
	}
	if err != nil {
		// What follows cannot be made sense of. The client may still read why.
		r.refuse("%v", err)
		c.out.put(r)
		c.out.flush(c)
		return nil, err
	}
	return r, c.receive(r)
}

// tooLong refuses more data than a request may have: there is no skipping so
// much.
func (r *request) tooLong() error {
	if r.client.payload(&r.Request) > nbd.MaxPayload {
		return fmt.Errorf("len (%d) is larger than max len (%d)", r.Length, nbd.MaxPayload)
	}
	return nil
}

// held is the memory that a request's data takes, in bytes.
func (c *nbdClient) held(r *nbd.Request) int64 {
	switch {
	case r.Command == nbd.CmdRead && r.Length <= nbd.MaxPayload:
		return int64(r.Length)
	case c.payload(r) <= nbd.MaxPayload:
		return int64(c.payload(r))
	}
	return 0
}

// payload is the length of the data that follows a request's header.
func (c *nbdClient) payload(r *nbd.Request) uint64 {
	if r.Command == nbd.CmdWrite || c.mode == nbd.Extended && r.Flags&nbd.CmdFlagPayloadLen != 0 {
		return r.Length
	}
	return 0
}

// receive checks a request and reads its data. A request that breaks the rules
// gets its failure, and its data is skipped.
func (c *nbdClient) receive(r *request) error {
	payload := c.payload(&r.Request)
	r.check()
	switch {
	case payload == 0:
		return nil
	case r.failure != "":
		return c.in.discard(int64(payload))
	}
	r.data = getBuffer(payload)
	if err := c.in.take(r.data.data(payload)); err != nil {
		return err
	}
	if r.Command == nbd.CmdBlockStatus {
		r.selectContexts()
	}
	return nil
}
