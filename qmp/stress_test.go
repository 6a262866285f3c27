package qmp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/schema"
)

// beside starts another monitor of the same instance.
func (s *server) beside() *server {
	other := *s
	other.source, other.served = make(source), make(chan error, 1)
	other.monitor = NewMonitor(s.monitor.Config)
	ctx, cancel := context.WithCancel(context.Background())
	other.cancel = cancel
	go func() { other.served <- other.monitor.Serve(ctx, other.source) }()
	s.tb.Cleanup(func() {
		cancel()
		other.await()
	})
	return &other
}

// A client that does not read its events is cut off; nobody waits for it.
func TestUnreadEvents(t *testing.T) {
	t.Parallel()
	s := start(t, emitOnStop)
	deaf := s.connect()
	other := s.beside()
	c := other.connect()
	reason := schema.ShutdownCauseHostQmpQuit
	e := &schema.ShutdownEvent{Reason: reason}
	const many = 2 * MaxQueued / 100
	for i := range many {
		s.events.Emit(e)
		if i%100 == 0 {
			c.send(`{"execute":"query-jobs"}`)
		}
		for range 1 + i%100/99 {
			c.line()
		}
	}
	// Its place is free for another client, while what was sent to it can
	// still be read.
	s.connect().ask(`{"execute":"query-jobs"}`, `{"return": []}`)
	deaf.event(`{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}`)
}

// A client that does not read its replies is read no further.
func TestUnreadReplies(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, capability := range [][]string{nil, {"oob"}} {
		c := s.connect(capability...)
		request := strings.Repeat(`{"execute":"query-version"}`+"\n", 1000)
		if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		stuck := make(chan int, 1)
		go func() {
			sent := 0
			for {
				n, err := c.Write([]byte(request))
				sent += n
				if err != nil {
					stuck <- sent
					return
				}
			}
		}()
		// Others are served all the time.
		other := s.beside().connect()
		for range 1000 {
			other.ask(`{"execute":"query-jobs"}`, `{"return": []}`)
		}
		if err := c.SetWriteDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if sent := <-stuck; sent > 4<<20 {
			t.Errorf("%d bytes of requests were read from a client that reads nothing", sent)
		}
		_ = c.Close()
	}
}

// Clients of all kinds at several monitors, while events rain.
func TestStress(t *testing.T) {
	t.Parallel()
	s := start(t, emitOnStop, func(s *server) { s.table.Lookup("query-version").AllowOOB = true })
	monitors := []*server{s, s.beside(), s.beside(), s.beside()}
	stop := make(chan struct{})
	var rain sync.WaitGroup
	for range 2 {
		rain.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
					s.events.Emit(&schema.ResumeEvent{})
				}
			}
		})
	}
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	var served atomic.Int64
	var clients sync.WaitGroup
	for i, m := range monitors {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for round := range rounds {
				c := m.dial()
				if err := behave(c, r, round); err == nil {
					served.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	clients.Wait()
	close(stop)
	rain.Wait()
	if want := int64(len(monitors) * rounds / 4); served.Load() < want {
		t.Errorf("%d clients were served, at least %d should be", served.Load(), want)
	}
}

// behave is one client's life. The kinds that do what they should return nil.
func behave(c *client, r *rand.Rand, round int) error {
	const unfinished = `{"execute":"query-jobs","id":[1,2,"thr`
	switch r.IntN(8) {
	case 0: // goes at once
		return errors.New("gone")
	case 1: // goes in the middle of a request
		_, err := c.Write([]byte(`{"execute":"qmp_capabilities"}` + unfinished))
		return errors.Join(err, errors.New("gone"))
	case 2: // goes in the middle of a reply
		_, err := c.Write([]byte(`{"execute":"qmp_capabilities"}` + strings.Repeat(`{"execute":"query-version"}`, 2000)))
		_, _ = c.r.Discard(r.IntN(5000))
		return errors.Join(err, errors.New("gone"))
	case 3: // sends rubbish
		rubbish := make([]byte, r.IntN(2000))
		for i := range rubbish {
			rubbish[i] = "{}[]\",:'\\ \n\xff01at"[r.IntN(16)]
		}
		_, _ = c.Write(rubbish)
		return errors.New("rubbish")
	}
	enable := ""
	if r.IntN(2) == 0 {
		enable = `"oob"`
	}
	if _, err := fmt.Fprintf(c, `{"execute":"qmp_capabilities","arguments":{"enable":[%s]}}`, enable); err != nil {
		return err
	}
	for n := range 50 {
		request := fmt.Sprintf(`{"execute":"stop","id":"%d-%d"}`+"\n", round, n)
		half := r.IntN(len(request))
		for _, piece := range []string{request[:half], request[half:]} {
			if _, err := c.Write([]byte(piece)); err != nil {
				return err
			}
		}
		if err := awaitReply(c, fmt.Sprintf(`"id": "%d-%d"}`, round, n)); err != nil {
			return err
		}
	}
	return nil
}

// awaitReply reads lines up to the reply with an id. The event STOP must have
// come before it.
func awaitReply(c *client, id string) error {
	stopped := false
	for {
		line, err := c.r.ReadString('\n')
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			c.tb.Error("no reply")
			return err
		case err != nil:
			return err
		case strings.Contains(line, `"STOP"`):
			stopped = true
		case strings.HasSuffix(line, id+"\r\n"):
			if !stopped {
				c.tb.Error("the reply came before the event")
			}
			return nil
		}
	}
}
