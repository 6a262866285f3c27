package export

import (
	"errors"
	"fmt"
	"io"

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
		if errors.Is(err, io.EOF) && c.in.buffered() > 0 {
			return nil, errHalfRequest
		}
		return nil, disconnected(err)
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
	switch {
	case err != nil:
		r.refuse("%v", err)
	case c.payload(&header) > nbd.MaxPayload:
		// There is no skipping so much.
		r.refuse("len (%d) is larger than max len (%d)", r.Length, nbd.MaxPayload)
	default:
		if err := c.receive(r); err != nil {
			r.end()
			return nil, err
		}
		return r, nil
	}
	// What follows cannot be made sense of. The client may still read why, and
	// what became of its other requests.
	c.out.put(r)
	c.working.Wait()
	c.out.flush(c)
	return nil, errLost
}

// What the reference says of clients that end in the middle of something.
var (
	//lint:ignore ST1005 These are the reference's words.
	errHalfRequest = errors.New("Unexpected end-of-file before all bytes were read")
	//lint:ignore ST1005 These are the reference's words.
	errLost = errors.New("Request handling failed in intermediate state")
)

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
	if payload > 0 && r.Command != nbd.CmdWrite && !r.isSelection() {
		r.Length = 0 // it was not that of an area
	}
	r.check()
	if err := c.receiveData(r, payload); err != nil {
		return missingData(r.Command, err)
	}
	if r.failure == "" && r.isSelection() {
		r.selectContexts()
	}
	return nil
}

func (c *nbdClient) receiveData(r *request, length uint64) error {
	switch {
	case length == 0:
		return nil
	case r.failure != "":
		return c.in.discard(int64(length))
	}
	r.data = getBuffer(length)
	return c.in.take(r.data.data(length))
}

// disconnected puts the end of a connection between two requests into the reference's
// words, unless it is a regular one.
func disconnected(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return nbd.SocketError(err, "read from")
}

// missingData is the end of a connection in the middle of a request's data.
func missingData(cmd nbd.Command, err error) error {
	err = nbd.SocketError(err, "read from")
	switch cmd {
	case nbd.CmdWrite:
		//lint:ignore ST1005 These are the reference's words.
		return fmt.Errorf("Failed to read CMD_WRITE data: %w", err)
	case nbd.CmdBlockStatus:
		//lint:ignore ST1005 These are the reference's words.
		return fmt.Errorf("Failed to read CMD_BLOCK_STATUS data: %w", err)
	}
	return err
}
