package qmp

import (
	"context"
	"os"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
)

// FlushLimit is how long a client may take to read the rest when its session
// ends.
const FlushLimit = time.Second

// Session is one client's connection, from greeting to end. Its methods are
// for handlers, on the goroutine they were called on; with a nil *Session,
// which is what commands over other protocols see, they do something sensible.
type Session struct {
	monitor *Monitor
	conn    Conn
	ctx     context.Context // carries the session
	out     outbox
	reply   []byte // memory for replies

	negotiated  bool   // qmp_capabilities succeeded
	oob         bool   // with out-of-band execution
	unsubscribe func() // nil before the session gets events

	fds fds

	turn  bool   // the session holds the dispatcher's turn
	last  bool   // the current reply is the last one
	after func() // runs behind it
}

type sessionKey struct{}

// SessionFrom returns the session a command came over, nil if it was none.
func SessionFrom(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}

// Monitor returns the monitor the session belongs to, nil for a nil session.
func (s *Session) Monitor() *Monitor {
	if s == nil {
		return nil
	}
	return s.monitor
}

// Negotiate ends the negotiation with the capabilities a client asked for. It
// takes effect with the reply. Errors: the negotiation was over already, or
// there is none (nil session).
func (s *Session) Negotiate(enable []schema.QMPCapability) error {
	if s == nil || s.negotiated {
		return qerr.WithClass(qerr.CommandNotFound, "Capabilities negotiation is already complete, command ignored")
	}
	s.negotiated = true
	for _, c := range enable {
		if c == schema.QMPCapabilityOob {
			s.oob = true
		}
	}
	return nil
}

// TakeFD returns the first file descriptor of the last message that brought
// any, nil if they were taken or there is none; the others of that message
// are closed (observed on the system emulator's getfd). The caller owns it.
func (s *Session) TakeFD() *os.File {
	if s == nil {
		return nil
	}
	return s.fds.take()
}

// Then makes f run behind the reply to the current command: what it emits
// comes after the reply. With a nil session it runs at once. A command calls
// either this or End, once.
func (s *Session) Then(f func()) {
	if s == nil {
		f()
		return
	}
	s.after = f
}

// End makes the reply to the current command the last one: it is sent, the
// connection ends, whatever the client may have sent besides, and then after
// is called. The monitor takes no further connections. With a nil session
// after is called at once.
func (s *Session) End(after func()) {
	if s == nil {
		after()
		return
	}
	s.last, s.after = true, after
}

func newSession(ctx context.Context, m *Monitor, conn Conn) *Session {
	s := &Session{monitor: m, conn: conn}
	s.ctx = context.WithValue(ctx, sessionKey{}, s)
	s.out.init(conn)
	return s
}

// run serves the client until it goes, must go, or the context ends; last
// when a reply was to be the monitor's last.
func (s *Session) run() (last bool) {
	hungUp := make(chan struct{})
	stop := context.AfterFunc(s.ctx, func() {
		defer close(hungUp)
		s.hangUp()
	})
	if s.out.send(s.present(s.monitor.greeting), nil) == nil {
		s.serve()
	}
	if s.unsubscribe != nil {
		s.unsubscribe()
	}
	if !stop() {
		<-hungUp
	}
	if s.last {
		s.hangUp()
		defer s.after()
	}
	_ = s.conn.Close()
	s.out.close()
	s.fds.close()
	closeAll(s.conn.TakeFDs())
	if s.monitor.Closed != nil {
		s.monitor.Closed(s)
	}
	return s.last
}

// hangUp ends the connection when what is queued has been written, or that
// takes too long.
func (s *Session) hangUp() {
	late := time.AfterFunc(FlushLimit, func() { _ = s.conn.Close() })
	defer late.Stop()
	_ = s.out.flush()
	_ = s.conn.Close()
}

// serve reads and executes requests.
func (s *Session) serve() {
	in := input{conn: s.conn, replies: &s.out}
	for {
		v, wrong, err := in.next()
		if err != nil {
			return
		}
		s.fds.replace(in.takeFDs())
		if !s.answer(v, wrong, in.parser.Pending()) {
			return
		}
		if s.oob {
			s.serveOOB(&in)
			return
		}
	}
}

// answer executes a message and sends the reply; at once, unless more
// replies will follow soon. It returns false when the session is over.
func (s *Session) answer(v qjson.Value, wrong error, more bool) bool {
	s.reply = s.appendReply(s.reply[:0], v, wrong)
	defer s.endTurn()
	if len(s.reply) == 0 {
		return false
	}
	line := s.present(s.reply)
	if cap(s.reply) > keepMemory {
		s.reply = nil
	}
	ok := s.deliver(line, more)
	if after := s.after; after != nil && !s.last {
		s.after = nil
		after()
	}
	return ok
}

// deliver sends a reply, or leaves it for the next write when more is to come
// soon; false when the session is over.
func (s *Session) deliver(line []byte, more bool) bool {
	if s.negotiated && s.unsubscribe == nil {
		return s.begin(line)
	}
	if more || s.last {
		return s.out.put(line, s.endTurn) == nil && !s.last
	}
	return s.out.send(line, s.endTurn) == nil
}

// endTurn lets others go on, if a command of the session has kept them waiting.
func (s *Session) endTurn() {
	if s.turn {
		s.turn = false
		s.monitor.Dispatcher.turn.Unlock()
	}
}

// begin lets events in, the first right behind the reply that ends the
// negotiation.
func (s *Session) begin(reply []byte) bool {
	s.unsubscribe = s.monitor.Events.subscribe(s.event, func() { _ = s.out.putEvent(reply) })
	s.endTurn()
	return s.out.flush() == nil
}

// appendReply executes a message and appends the reply; nothing when there is
// to be none.
func (s *Session) appendReply(out []byte, v qjson.Value, wrong error) []byte {
	if wrong != nil {
		return appendError(out, wrong, qjson.Value{})
	}
	r, err := readRequest(v, s.oob)
	if err != nil {
		return appendError(out, err, r.id)
	}
	switch out, err = s.execute(&r, appendReturn(out)); err {
	case nil:
		return appendReturnEnd(out, r.id)
	case ErrShutdown:
		return out[:0]
	}
	return appendError(out[:0], err, r.id)
}

// execute runs a command and appends what it returns.
func (s *Session) execute(r *request, out []byte) ([]byte, error) {
	d := s.monitor.Dispatcher
	name := r.name.Bytes()
	if !s.negotiated && string(name) != "qmp_capabilities" {
		return out, qerr.WithClass(qerr.CommandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'")
	}
	c := d.Commands.Lookup(string(name))
	switch {
	case c == nil:
		return out, errUnknown(string(name))
	case !r.oob:
		d.turn.Lock()
		s.turn = true
		return d.run(s.ctx, c, r.args, out)
	case !c.AllowOOB:
		return out, qerr.New("The command %s does not support OOB", c.Name)
	}
	return d.runNow(s.ctx, c, r.args, out)
}

// event queues an event for the client.
func (s *Session) event(e *occurrence) {
	if s.out.putEvent(s.present(e.line)) == errCutOff {
		s.monitor.Log.Warn().Int("limit", MaxQueued).Msg("QMP client does not read its events and is cut off")
		_ = s.conn.Close()
	}
}

// present returns a line as this monitor prints it.
func (s *Session) present(line []byte) []byte {
	if s.monitor.Pretty {
		return appendPretty(nil, line)
	}
	return line
}
