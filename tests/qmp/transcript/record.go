package transcript

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How long the recorder listens for more when nothing tells it how much will
// come. Only recording depends on these.
const (
	settle      = 40 * time.Millisecond  // behind a reply
	settleRaw   = 250 * time.Millisecond // behind bytes that may be anything
	recordLimit = 5 * time.Second        // for a reply
)

// record is the observer of a recording.
func (p *Player) record(s *Step, got []Expect) error {
	before := s.Expect
	s.Expect = got
	switch s.Verb {
	case "#", "args", "monitor", "nodaemon", "system", "race", "loose-events", "fd", "listen", "need", "bg", "waitfile":
		return nil
	case "->":
		p.recordReplies(s, 1)
	case "replies":
		n, err := strconv.Atoi(strings.TrimSpace(s.Rest))
		if err != nil {
			return err
		}
		p.recordReplies(s, n)
	case "start", "accept":
		p.recordReplies(s, 1)
	case "conn":
		p.recordQuiet(s, settleRaw)
	case "wait":
		p.recordEvent(s)
	case "->raw", "signal", "exit":
		p.recordQuiet(s, settleRaw)
	case "shutwr":
		p.recordRest(s)
	case "idle":
		ms, err := strconv.Atoi(strings.TrimSpace(s.Rest))
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	p.recordQuiet(s, settle)
	keepEqual(before, s.Expect)
	return nil
}

// keepEqual leaves lines as they were written before if they mean the same,
// so that recording anew changes only what has changed.
func keepEqual(before, now []Expect) {
	for i := range min(len(before), len(now)) {
		if Normalize(before[i].String()) == Normalize(now[i].String()) {
			now[i] = before[i]
		}
	}
}

// take adds a line to what the step brought.
func (p *Player) take(s *Step, k *conn, line string) {
	s.Expect = append(s.Expect, Expect{Message, k.name, p.contract(line)})
}

// recordReplies reads from the current connection until n messages have come
// which are no events.
func (p *Player) recordReplies(s *Step, n int) {
	k := p.conns[p.current]
	if k == nil {
		return
	}
	end := time.Now().Add(recordLimit)
	for n > 0 && time.Now().Before(end) {
		message, ok := p.recordMessage(s, k, time.Until(end))
		if !ok {
			return
		}
		if !strings.Contains(message, `"timestamp": {`) {
			n--
		}
	}
}

// recordRest reads a connection to its end: a daemon closes when its client has
// nothing more to say.
func (p *Player) recordRest(s *Step) {
	k := p.conns[strings.TrimSpace(s.Rest)]
	if k == nil {
		return
	}
	for end := time.Now().Add(recordLimit); time.Now().Before(end); {
		if _, ok := p.recordMessage(s, k, time.Until(end)); !ok {
			return
		}
	}
}

// recordMessage reads one message, which has several lines with pretty=on.
func (p *Player) recordMessage(s *Step, k *conn, limit time.Duration) (string, bool) {
	var message strings.Builder
	for {
		line, err := k.next(limit)
		if err != nil {
			return "", false
		}
		p.take(s, k, line)
		message.WriteString(line)
		if line == "}" || message.Len() > 1 && strings.HasPrefix(message.String(), `{"`) {
			return message.String(), true
		}
	}
}

// recordEvent reads until the event has come which the step names.
func (p *Player) recordEvent(s *Step) {
	words := strings.Fields(s.Rest)
	if len(words) == 0 || p.conns[p.current] == nil {
		return
	}
	marks := []string{`"event": "` + words[0] + `"`}
	for _, word := range words[1:] {
		if field, value, ok := strings.Cut(word, "="); ok && field != "timeout" {
			marks = append(marks, `"`+field+`": "`+value+`"`)
		}
	}
	limit := max(recordLimit, waitLimit(s.Rest))
	for {
		message, ok := p.recordMessage(s, p.conns[p.current], limit)
		if !ok || containsAll(message, marks) {
			return
		}
	}
}

func containsAll(text string, marks []string) bool {
	for _, m := range marks {
		if !strings.Contains(text, m) {
			return false
		}
	}
	return true
}

// recordQuiet reads from all connections until none has brought anything for
// a while.
func (p *Player) recordQuiet(s *Step, quiet time.Duration) {
	for {
		time.Sleep(quiet) // the end of what comes has no event
		if !p.recordPresent(s) {
			return
		}
	}
}

// recordPresent takes what is there on all connections and tells whether
// there was anything.
func (p *Player) recordPresent(s *Step) bool {
	before := len(s.Expect)
	for _, name := range slices.Sorted(maps.Keys(p.conns)) {
		k := p.conns[name]
		line, ok, ended := k.poll()
		for ; ok; line, ok, ended = k.poll() {
			p.take(s, k, line)
		}
		if ended && !k.eofTold {
			k.eofTold = true
			s.Expect = append(s.Expect, Expect{EOF, k.name, ""})
		}
	}
	return len(s.Expect) > before
}
