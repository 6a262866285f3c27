package qmp

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
)

const query = `{"execute":"query-version","id":17}` + "\r\n"

const reply = `{"return": ` + version + `, "id": 17}` + "\r\n"

// BenchmarkRequest is reading, dispatching and answering without a socket.
func BenchmarkRequest(b *testing.B) {
	s := start(b)
	session := newSession(b.Context(), s.monitor, nil)
	session.negotiated = true
	var p qjson.Parser
	text := []byte(query)
	b.ReportAllocs()
	for b.Loop() {
		p.Feed(text)
		v, _, err := p.Next()
		session.reply = session.appendReply(session.reply[:0], v, err)
		_ = p.Pending()
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	c := start(b).connect()
	benchmarkRoundTrip(b, c)
}

func BenchmarkRoundTripOOB(b *testing.B) {
	c := start(b).connect("oob")
	benchmarkRoundTrip(b, c)
}

// BenchmarkEcho is the measure of all round trips: a server which answers
// each request with a fixed text of the same length.
func BenchmarkEcho(b *testing.B) {
	ours, theirs := socketpair(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		in := make([]byte, smallBuffer)
		for {
			if _, err := theirs.Read(in); err != nil {
				return
			}
			if _, err := theirs.Write([]byte(reply)); err != nil {
				return
			}
		}
	}()
	benchmarkRoundTrip(b, &client{b, ours, bufio.NewReader(ours)})
	_ = ours.Close()
	<-done
}

func benchmarkRoundTrip(b *testing.B, c *client) {
	text, answer := []byte(query), make([]byte, len(reply))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(text); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.r, answer); err != nil {
			b.Fatal(err)
		}
	}
	if string(answer) != reply {
		b.Fatalf("%s", answer)
	}
}

// BenchmarkPipeline sends many requests before it reads the replies.
func BenchmarkPipeline(b *testing.B) {
	const depth = 64
	c := start(b).connect()
	text, answer := []byte(strings.Repeat(query, depth)), make([]byte, depth*len(reply))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(text); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.r, answer); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*depth), "ns/request")
}

func BenchmarkEmit(b *testing.B) {
	e := NewEmitter(newTable(), nil, nil)
	defer e.Close()
	event := &schema.ShutdownEvent{Reason: schema.ShutdownCauseHostQmpQuit}
	b.Run("nobody", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			e.Emit(event)
		}
	})
	b.Run("subscriber", func(b *testing.B) {
		defer e.Subscribe(func(string, []byte, int64, int64) {})()
		b.ReportAllocs()
		for b.Loop() {
			e.Emit(event)
		}
	})
}
