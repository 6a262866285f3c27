package qmp

import (
	"os"

	"github.com/qmpblock/qmpblock/qjson"
)

// queueLength is how many requests wait to be executed before reading stops
// (qmp-spec, "Out-of-band execution").
const queueLength = 8

// message is one that waits for its turn.
type message struct {
	value qjson.Value
	wrong error
	doc   *qjson.Doc // holds value
	fds   []*os.File
}

// serveOOB goes on with a client that has enabled out-of-band execution. This
// goroutine reads, and executes what overtakes; another executes the rest in
// order.
func (s *Session) serveOOB(in *input) {
	in.replies = nil // which may still be in the making
	queue := make(chan message, queueLength)
	free := make(chan *qjson.Doc, queueLength+1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.work(queue, free)
	}()
	s.readAhead(in, queue, free)
	close(queue)
	<-done
}

// work executes messages until there are no more. It goes on taking them when
// the session is over, so that the reader never waits in vain.
func (s *Session) work(queue <-chan message, free chan<- *qjson.Doc) {
	over := false
	for m := range queue {
		s.fds.replace(m.fds)
		if !over && !s.answer(m.value, m.wrong, len(queue) > 0) {
			over = true
			s.hangUp()
		}
		select {
		case free <- m.doc:
		default:
		}
	}
	_ = s.out.flush()
}

func (s *Session) readAhead(in *input, queue chan<- message, free <-chan *qjson.Doc) {
	var reply []byte
	doc := new(qjson.Doc)
	for {
		in.parser.Use(doc)
		v, wrong, err := in.next()
		if err != nil {
			closeAll(in.takeFDs())
			return
		}
		if overtakes(v) {
			reply = s.appendReply(reply[:0], v, nil)
			if len(reply) == 0 || s.out.send(s.present(reply), nil) != nil {
				return
			}
			continue
		}
		queue <- message{v, wrong, doc, in.takeFDs()}
		select {
		case doc = <-free:
		default:
			doc = new(qjson.Doc)
		}
	}
}
