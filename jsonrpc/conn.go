package jsonrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// MaxMessage is the length in bytes above which a message is refused. A longer
// line of a UNIX socket is skipped; a WebSocket is closed (code 1009).
const MaxMessage = 16 << 20

// FlushLimit is how long a client may take to read the rest when the
// connection ends.
const FlushLimit = time.Second

// CodeCommandFailed is the code of errors that have none of their own in
// JSON-RPC; the error class in data tells them apart.
const CodeCommandFailed = -32000

// errTooLong is returned by transports for a message that was skipped.
var errTooLong = fmt.Errorf("message is longer than %d bytes", MaxMessage)

// transport carries messages over a socket.
type transport interface {
	// read returns the next message, valid until the next call.
	read() ([]byte, error)
	// write sends a message; it may append to it.
	write(message []byte) error
	// socket is below, to set a deadline and to cut the connection.
	socket() net.Conn
	Close() error
}

// conn is one connection. Three goroutines work on it, none of which outlives
// [Listener.serve]: the library reads requests and calls Handle for one after
// the other; serve itself sends what is in the outbox; whoever emits events
// puts them there.
type conn struct {
	l       *Listener
	wire    transport
	box     outbox
	sent    chan struct{} // closed when nothing is sent any more
	closed  chan struct{} // closed when the library has closed the stream
	request qjson.Value   // the one being handled; of the reading goroutine
	result  []byte        // memory for results; the same
}

// keepResult is the memory for results that a connection keeps.
const keepResult = 64 << 10

// serve runs a connection to its end.
func (l *Listener) serve(t transport) {
	c := &conn{l: l, wire: t, sent: make(chan struct{}), closed: make(chan struct{})}
	c.box.init()
	if !l.add(c) {
		_ = t.Close()
		return
	}
	defer l.remove(c)
	if l.Events != nil {
		defer l.Events.Subscribe(c.event)()
	}
	// The library would close the connection with the context, answered or not.
	ctx := context.WithoutCancel(l.ctx)
	rpc := jsonrpc2.NewConn(ctx, stream{c}, c, jsonrpc2.SetLogger(libraryLog{l.Log}))
	c.sendAll(rpc)
	<-c.closed
}

// Handle implements [jsonrpc2.Handler]: it executes one request and returns
// when its answer was sent, so that a client which does not read its answers
// gets no further ones.
func (c *conn) Handle(_ context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) {
	var gone <-chan struct{}
	c.execute(r.Method, func(result []byte, failure *jsonrpc2.Error) {
		if r.Notif {
			return
		}
		answer := &jsonrpc2.Response{ID: r.ID, Error: failure}
		if failure == nil {
			answer.Result = (*json.RawMessage)(&result)
		}
		gone = c.box.put(&message{answer: answer})
	})
	if gone != nil {
		c.await(gone)
	}
}

// await waits until an answer is sent, but not for ever once the listener
// closes.
func (c *conn) await(gone <-chan struct{}) {
	select {
	case <-gone:
		return
	case <-c.l.closing:
	}
	late := time.AfterFunc(FlushLimit, c.cut)
	defer late.Stop()
	<-gone
}

// execute runs the command that the current request asks for.
func (c *conn) execute(name string, answer func([]byte, *jsonrpc2.Error)) {
	args := c.request.Get("params")
	if args.Exists() && args.Kind() != qjson.Object {
		answer(nil, &jsonrpc2.Error{Code: jsonrpc2.CodeInvalidParams, Message: "params must be an object: the command's arguments by name"})
		return
	}
	c.l.Executor.Execute(c.l.ctx, name, args, c.result[:0], func(result []byte, err error) {
		if err != nil {
			answer(nil, commandError(qerr.From(err)))
			return
		}
		if c.result = result; cap(result) > keepResult {
			c.result = nil
		}
		answer(result, nil)
	})
}

func commandError(e *qerr.Error) *jsonrpc2.Error {
	failure := &jsonrpc2.Error{Code: CodeCommandFailed, Message: e.Desc}
	if e.Class == qerr.CommandNotFound {
		failure.Code = jsonrpc2.CodeMethodNotFound
	}
	failure.SetError(map[string]qerr.Class{"class": e.Class})
	return failure
}

// event queues an event. It is called by whoever emits one and does not wait.
func (c *conn) event(name string, data []byte, seconds, microseconds int64) {
	e := fmt.Appendf(nil, `{"timestamp": {"seconds": %d, "microseconds": %d}, "event": `, seconds, microseconds)
	e = qjson.AppendString(e, name)
	if len(data) > 0 {
		e = append(append(e, `, "data": `...), data...)
	}
	if c.box.putEvent(append(e, '}')) {
		return
	}
	c.l.Log.Warn().Str("address", c.l.url).Str("client", peer(c.wire.socket())).Int("limit", MaxQueued).
		Msg("JSON-RPC client does not read its events and is cut off")
	c.cut()
}

// sendAll sends what is in the outbox until that has ended.
func (c *conn) sendAll(rpc *jsonrpc2.Conn) {
	defer close(c.sent)
	for {
		m := c.box.next()
		if m == nil {
			return
		}
		err := c.send(rpc, m)
		c.box.done(m)
		if err != nil {
			c.cut()
		}
	}
}

func (c *conn) send(rpc *jsonrpc2.Conn, m *message) error {
	switch {
	case m.event != nil:
		return rpc.Notify(c.l.ctx, "event", m.event)
	case m.refusal != nil:
		return c.wire.write(m.refusal)
	}
	err := rpc.SendResponse(c.l.ctx, m.answer)
	if noJSON := (*json.MarshalerError)(nil); errors.As(err, &noJSON) {
		// QMP may print a number that JSON cannot express, such as inf.
		return rpc.ReplyWithError(c.l.ctx, m.answer.ID, &jsonrpc2.Error{
			Code: jsonrpc2.CodeInternalError, Message: "the result cannot be expressed in JSON",
		})
	}
	return err
}

// cut ends the connection at once.
func (c *conn) cut() {
	c.box.drop()
	_ = c.wire.socket().Close()
}

// stopReading ends the connection in order: the request being handled is the
// last one.
func (c *conn) stopReading() { _ = c.wire.socket().SetReadDeadline(time.Unix(0, 1)) }

// stream is a connection as the library sees it.
type stream struct{ *conn }

// ReadObject implements [jsonrpc2.ObjectStream]: it reads the next request.
// What is no request is answered here. After the last one everything is sent
// before the library learns of the end and closes the stream.
func (s stream) ReadObject(request any) error {
	for !s.l.isClosing() {
		text, err := s.wire.read()
		if err != nil && !errors.Is(err, errTooLong) {
			break
		}
		envelope, refusal := s.accept(text, err)
		if refusal == nil && envelope == nil {
			continue
		}
		if refusal == nil {
			return json.Unmarshal(envelope, request)
		}
		s.await(s.box.put(&message{refusal: refusal}))
	}
	s.flush()
	return io.EOF
}

// flush waits until everything has been sent, or too long.
func (s stream) flush() {
	late := time.AfterFunc(FlushLimit, s.cut)
	defer late.Stop()
	s.box.end()
	<-s.sent
}

// WriteObject implements [jsonrpc2.ObjectStream].
func (s stream) WriteObject(m any) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.wire.write(text)
}

// Close implements [jsonrpc2.ObjectStream]. The library calls it once.
func (s stream) Close() error {
	defer close(s.closed)
	return s.wire.Close()
}
