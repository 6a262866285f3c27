package qmp

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
)

var timestamp = regexp.MustCompile(`^{"timestamp": {"seconds": \d+, "microseconds": \d+}, `)

// event expects an event, whenever it happened.
func (c *client) event(want string) {
	c.tb.Helper()
	if got := c.line(); timestamp.ReplaceAllString(got, "{") != want {
		c.tb.Fatalf("\n got %.300s\nwant %.300s", got, want)
	}
}

// emitOnStop makes the command stop emit the event STOP before it returns.
func emitOnStop(s *server) {
	s.table.Stop(func(context.Context) error {
		s.events.Emit(&schema.StopEvent{})
		return nil
	})
}

// hold makes the command stop wait until the channel is closed.
func hold(release <-chan struct{}, begun chan<- struct{}) func(*server) {
	return func(s *server) {
		s.table.Stop(func(context.Context) error {
			begun <- struct{}{}
			<-release
			return nil
		})
	}
}

func TestEventsPrecedeTheReply(t *testing.T) {
	t.Parallel()
	s := start(t, emitOnStop)
	c := s.connect()
	const n = 200
	c.send(strings.Repeat(`{"execute":"stop"}{"execute":"query-jobs"}`, n))
	for range n {
		c.event(`{"event": "STOP"}`)
		c.expect(`{"return": {}}`, `{"return": []}`)
	}
}

func TestEventsGoToNegotiatedSessions(t *testing.T) {
	t.Parallel()
	s := start(t, emitOnStop)
	other := NewMonitor(s.monitor.Config)
	ctx, cancel := context.WithCancel(t.Context())
	second := &server{tb: t, source: make(source), served: make(chan error, 1), monitor: other, cancel: cancel}
	go func() { second.served <- other.Serve(ctx, second.source) }()
	t.Cleanup(func() { cancel(); second.await() })

	a := s.connect()
	b := second.dial()
	b.line()
	a.ask(`{"execute":"stop"}`)
	stamped := a.line()
	a.expect(`{"return": {}}`)
	// Nothing for b before it has negotiated, then the same bytes.
	b.ask(`{"execute":"stop"}`, `{"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}`)
	b.ask(`{"execute":"qmp_capabilities"}`, `{"return": {}}`)
	a.ask(`{"execute":"stop"}`)
	if again := a.line(); again == stamped {
		t.Error("two events at the same time")
	} else {
		b.expect(again)
	}
	a.expect(`{"return": {}}`)
	_ = b.Close()
	b = second.connect()
	b.ask(`{"execute":"query-jobs"}`, `{"return": []}`)
}

func TestSubscribe(t *testing.T) {
	t.Parallel()
	clock := &fakeClock{now: time.Unix(17, 42_999)}
	e := NewEmitter(newTable(), clock, nil)
	defer e.Close()
	var got []string
	cancel := e.Subscribe(func(name string, data []byte, seconds, microseconds int64) {
		got = append(got, fmt.Sprintf("%s %s %d.%d", name, data, seconds, microseconds))
	})
	id := "vd0"
	e.Emit(&schema.DeviceDeletedEvent{Device: &id, Path: "/machine/peripheral/vd0"})
	e.Emit(&schema.ResumeEvent{})
	cancel()
	e.Emit(&schema.StopEvent{})
	want := []string{`DEVICE_DELETED {"device": "vd0", "path": "/machine/peripheral/vd0"} 17.42`, `RESUME  17.42`}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestQuit(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	s := start(t, func(s *server) {
		s.table.Quit(func(ctx context.Context) error {
			s.d.Shutdown()
			s.events.Emit(&schema.ShutdownEvent{Reason: schema.ShutdownCauseHostQmpQuit})
			SessionFrom(ctx).End(func() { close(ended) })
			return nil
		})
	})
	c := s.connect()
	c.send(`{"execute":"query-jobs"}{"execute":"quit","id":2}{"execute":"query-jobs","id":3}`)
	c.expect(`{"return": []}`)
	c.event(`{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}`)
	c.expect(`{"return": {}, "id": 2}`)
	c.expectEnd()
	<-ended
	s.await()
	if _, err := s.d.Execute(t.Context(), "query-jobs", qjson.Value{}, nil); err != ErrShutdown {
		t.Errorf("a command after the end: %v", err)
	}
}

// A client that does not read must not keep the server from ending.
func TestQuitWithoutReading(t *testing.T) {
	t.Parallel()
	s := start(t, func(s *server) {
		s.table.QomListTypes(func(context.Context, *schema.QomListTypesArguments) ([]*schema.ObjectTypeInfo, error) {
			return []*schema.ObjectTypeInfo{{Name: strings.Repeat("x", 1<<20)}}, nil
		})
	})
	c := s.connect()
	c.send(`{"execute":"qom-list-types"}{"execute":"quit"}`)
	_, _ = c.r.Peek(1)
	_, _ = c.Write([]byte(strings.Repeat(" ", 1000)))
	s.cancel()
	s.await()
}

func TestCancelFlushesEvents(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.connect()
	const n = 1000
	for range n {
		s.events.Emit(&schema.StopEvent{})
	}
	s.cancel()
	for range n {
		c.event(`{"event": "STOP"}`)
	}
	c.expectEnd()
}

func TestCommandsWithoutSession(t *testing.T) {
	t.Parallel()
	s := start(t)
	out, err := s.d.Execute(t.Context(), "query-version", qjson.Value{}, []byte("x"))
	if err != nil || string(out) != "x"+version {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := s.d.Execute(t.Context(), "bogus", qjson.Value{}, []byte("x")); qerr.From(err).Class != qerr.CommandNotFound || string(out) != "x" {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := s.d.Execute(t.Context(), "qmp_capabilities", qjson.Value{}, nil); err == nil {
		t.Error("negotiated without a session")
	}
	var none *Session
	if none.TakeFD() != nil || none.Monitor() != nil {
		t.Error("a nil session has something")
	}
	called := false
	none.End(func() { called = true })
	if !called {
		t.Error("nothing runs at the end of a nil session")
	}
}

func TestOutOfBandOvertakes(t *testing.T) {
	t.Parallel()
	release, begun := make(chan struct{}), make(chan struct{}, 1)
	s := start(t, hold(release, begun), func(s *server) {
		s.table.Lookup("query-version").AllowOOB = true
	})
	c := s.connect("oob")
	c.send(`{"execute":"stop","id":1}`)
	<-begun
	c.send(`{"execute":"query-jobs","id":2}`)
	c.ask(`{"exec-oob":"query-version","id":3}`, `{"return": `+version+`, "id": 3}`)
	c.ask(`{"exec-oob":"bogus","id":4}`, `{"id": 4, "error": {"class": "CommandNotFound", "desc": "The command bogus has not been found"}}`)
	c.ask(`{"exec-oob":5,"id":5}`, `{"id": 5, "error": {"class": "GenericError", "desc": "QMP input member 'exec-oob' must be a string"}}`)
	// What is no out-of-band request waits, right or wrong.
	c.send(`{"exec-oob":"query-version","execute":"stop","id":6}{"bad" 1}{"execute":"query-jobs","id":7}`)
	close(release)
	c.expect(`{"return": {}, "id": 1}`, `{"return": [], "id": 2}`,
		`{"id": 6, "error": {"class": "GenericError", "desc": "QMP input member 'execute' clashes with 'exec-oob'"}}`,
		`{"error": {"class": "GenericError", "desc": "JSON parse error, missing : in object pair"}}`,
		`{"return": [], "id": 7}`)
	c.ask(`{"execute":"quit"}`, `{"return": {}}`)
	c.expectEnd()
	s.await()
}

// With a full queue reading stops; nothing is lost and nothing changes places.
func TestOutOfBandQueue(t *testing.T) {
	t.Parallel()
	release, begun := make(chan struct{}), make(chan struct{}, 1)
	s := start(t, hold(release, begun))
	c := s.connect("oob")
	c.send(`{"execute":"stop"}`)
	<-begun
	const n = 5000
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if i == 2*queueLength {
				close(release)
			}
			if _, err := fmt.Fprintf(c, `{"execute":"query-jobs","id":{"number":%d}}`, i); err != nil {
				sent <- err
				return
			}
		}
		sent <- c.CloseWrite()
	}()
	c.expect(`{"return": {}}`)
	for i := range n {
		c.expect(fmt.Sprintf(`{"return": [], "id": {"number": %d}}`, i))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	c.expectEnd()
}

// One command at a time, however many monitors there are.
func TestOneDispatch(t *testing.T) {
	t.Parallel()
	running := 0
	s := start(t, func(s *server) {
		s.d.Around = func(ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error) {
			if running++; running != 1 {
				t.Errorf("%d commands at a time", running)
			}
			defer func() { running-- }()
			return c.Run(ctx, args, out)
		}
	})
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 2000 {
				if _, err := s.d.Execute(t.Context(), "query-jobs", qjson.Value{}, nil); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	c := s.connect()
	for range 200 {
		c.ask(`{"execute":"query-jobs"}`, `{"return": []}`)
	}
	for range 4 {
		<-done
	}
}

func TestFileDescriptors(t *testing.T) {
	t.Parallel()
	open := func() *os.File {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	isClosed := func(f *os.File) bool { return f.Close() != nil }
	var in input
	var received fds
	first, second, third := open(), open(), open()
	in.fds = []*os.File{first, second}
	received.replace(in.takeFDs())
	received.replace(in.takeFDs()) // a request without any changes nothing
	if got := received.take(); got != first || !isClosed(second) {
		t.Error("the first is taken, the others of its message are closed")
	}
	if received.take() != nil {
		t.Error("took one twice")
	}
	received.replace([]*os.File{first, third})
	fourth := open()
	received.replace([]*os.File{fourth})
	if !isClosed(first) || !isClosed(third) {
		t.Error("a newer message leaves the older one's descriptors open")
	}
	received.close()
	if !isClosed(fourth) || received.take() != nil {
		t.Error("a descriptor survives the session")
	}
}

func TestTakeFDInAHandler(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	s := start(t, func(s *server) {
		s.table.Stop(func(ctx context.Context) error {
			f := SessionFrom(ctx).TakeFD()
			if f == nil {
				return qerr.New("No file descriptor supplied via SCM_RIGHTS")
			}
			got <- f.Name()
			return f.Close()
		})
	})
	ours, theirs := socketpair(t)
	conn := &socketConn{UnixConn: theirs}
	s.source <- conn
	c := s.client(ours)
	c.line()
	c.ask(`{"execute":"qmp_capabilities"}`, `{"return": {}}`)
	c.ask(`{"execute":"stop"}`, `{"error": {"class": "GenericError", "desc": "No file descriptor supplied via SCM_RIGHTS"}}`)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	conn.mu.Lock()
	conn.fds = append(conn.fds, f)
	conn.mu.Unlock()
	c.ask(`{"execute":"stop"}`, `{"return": {}}`)
	if name := <-got; name != os.DevNull {
		t.Errorf("took %s", name)
	}
}

func TestNoAllocations(t *testing.T) {
	s := start(t)
	session := newSession(t.Context(), s.monitor, nil)
	session.negotiated = true
	var p qjson.Parser
	text := []byte(`{"execute":"query-version","id":"request-1"}` + "\n")
	n := testing.AllocsPerRun(100, func() {
		p.Feed(text)
		v, _, err := p.Next()
		session.reply = session.appendReply(session.reply[:0], v, err)
		session.endTurn()
		if !strings.HasSuffix(string(session.reply[len(session.reply)-16:]), "\"request-1\"}\r\n") {
			t.Fatalf("%s", session.reply)
		}
	})
	if n > 1 {
		t.Errorf("%v allocations for a request", n)
	}
}
