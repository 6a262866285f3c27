package jsonrpc

import (
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/sourcegraph/jsonrpc2"
	wsstream "github.com/sourcegraph/jsonrpc2/websocket"
)

// abandon leaves a socket file behind, as a server does that was killed.
func abandon(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSlowClient: one client reads nothing while events pour in. It is cut
// off and named in the log, memory is bounded, and the other client gets all.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	slow, quick := dialRaw(t, s), dialRaw(t, s)
	eventually(t, "both subscriptions", func() bool { return s.subscribers() == 2 })

	data := []byte(`{"reason": "` + strings.Repeat("x", 10000) + `"}`)
	for s.subscribers() == 2 {
		s.emit("NOISE", data)
		if _, err := quick.in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	quick.send(`{"jsonrpc":"2.0","id":1,"method":"empty"}` + "\n")
	quick.want(`{"id":1,"result":{},"jsonrpc":"2.0"}`)
	if !strings.Contains(s.logs.String(), "JSON-RPC client does not read its events and is cut off") {
		t.Errorf("the log says %q", s.logs)
	}
	for {
		if _, err := slow.in.ReadString('\n'); err != nil {
			break // the end comes behind what was sent before
		}
	}
}

func TestSmallEventsAreBoundedToo(t *testing.T) {
	t.Parallel()
	var b outbox
	b.init()
	n := 0
	for ; b.putEvent([]byte("{}")); n++ {
		if n > MaxQueued {
			t.Fatal("there is no bound")
		}
	}
	if n < 1000 {
		t.Errorf("only %d events fit", n)
	}
	m := b.next()
	b.done(m)
	if !b.putEvent([]byte("{}")) {
		t.Error("there is no room after one was sent")
	}
	b.drop()
	if b.next() != nil || b.bytes != 0 {
		t.Errorf("%d bytes left after drop", b.bytes)
	}
}

// TestCloseAnswersTheRunningCommand: Close waits for the command that runs,
// its answer arrives although the context has ended, and what is sent behind
// it is not executed.
func TestCloseAnswersTheRunningCommand(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	c := dialRaw(t, s)
	c.send(`{"jsonrpc":"2.0","id":1,"method":"block"}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"empty"}` + "\n")
	<-s.entered
	s.cancel()
	closed := make(chan error)
	go func() { closed <- s.Listener.Close() }()
	<-s.Listener.closing
	select {
	case <-closed:
		t.Fatal("Close did not wait for the command")
	default:
	}
	close(s.release)
	c.want(`{"id":1,"result":"released","jsonrpc":"2.0"}`)
	c.wantEnd()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := s.commands(); len(got) != 1 {
		t.Errorf("executed %v", got)
	}
}

// TestCloseDoesNotWaitForAClientThatDoesNotRead: its answer is too long for
// the socket's buffers.
func TestCloseDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	c := dialRaw(t, s)
	c.send(`{"jsonrpc":"2.0","id":1,"method":"large","params":{"size":8000000}}` + "\n")
	if _, err := c.in.ReadByte(); err != nil { // the answer is on its way
		t.Fatal(err)
	}
	if err := s.Listener.Close(); err != nil {
		t.Error(err)
	}
}

func TestCommandOutlivesItsClient(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	c := dialRaw(t, s)
	c.send(`{"jsonrpc":"2.0","id":1,"method":"block"}` + "\n")
	<-s.entered
	_ = c.Close()
	close(s.release)
	eventually(t, "the end of the subscription", func() bool { return s.subscribers() == 0 })
}

// TestNothingIsLeft counts goroutines, so it runs alone.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, spec := range []string{"unix:" + shortDir(t) + "/s", "ws::0"} {
		s := listen(t, spec)
		var clients []*jsonrpc2.Conn
		for range 4 {
			stream := openStream(t, s)
			clients = append(clients, client(t, stream, ignore))
		}
		idle, err := net.Dial(network(s), address(s)) // connects and says nothing
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			if err := c.Call(t.Context(), "empty", nil, nil); err != nil {
				t.Error(err)
			}
		}
		_ = clients[0].Close()
		if err := s.Listener.Close(); err != nil {
			t.Error(err)
		}
		for _, c := range clients {
			<-c.DisconnectNotify()
		}
		_ = idle.Close()
		if s.subscribers() != 0 {
			t.Error("a subscription is left")
		}
	}
	// The library's goroutines have nothing left to do but to return.
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}

func network(s *server) string {
	if strings.HasPrefix(s.URL(), "unix:") {
		return "unix"
	}
	return "tcp"
}

func address(s *server) string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(s.URL(), "unix:"), "ws://"), "/")
}

func openStream(t *testing.T, s *server) jsonrpc2.ObjectStream {
	t.Helper()
	if network(s) == "unix" {
		return jsonrpc2.NewPlainObjectStream(dial(t, s))
	}
	c, _, err := websocket.DefaultDialer.Dial(s.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return wsstream.NewObjectStream(c)
}
