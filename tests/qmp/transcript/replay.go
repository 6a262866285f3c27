package transcript

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// compare is the observer of a replay.
func (p *Player) compare(s *Step, got []Expect) error {
	if err := compareOutput(s, got); err != nil {
		return err
	}
	limit := replyLimit
	if s.Verb == "wait" {
		limit = max(limit, waitLimit(s.Rest))
	}
	for _, want := range s.Expect {
		if err := p.compareMessage(want, limit); err != nil {
			return err
		}
	}
	if s.Verb == "->" || s.Verb == "->>" || s.Verb == "->raw" {
		return nil
	}
	if s.Verb != "race" && s.Verb != "#" {
		p.loose = false
	}
	if s.Verb == "idle" {
		return p.compareIdle(s)
	}
	return nil
}

// compareMessage reads the next message of a connection and compares it.
func (p *Player) compareMessage(want Expect, limit time.Duration) error {
	if want.Kind != Message && want.Kind != EOF {
		return nil
	}
	k := p.conns[want.Conn]
	if k == nil {
		return fmt.Errorf("awaited: %s\ncame:    nothing, there is no connection %s", want, want.Conn)
	}
	wanted := Normalize(want.Text)
	if i := slices.Index(p.early, want.Conn+wanted); i >= 0 && want.Kind == Message {
		p.early = slices.Delete(p.early, i, i+1)
		return nil
	}
	for {
		line, err := k.next(limit)
		switch {
		case errors.Is(err, errEnd) && want.Kind == EOF:
			k.eofTold = true
			return nil
		case err != nil:
			return fmt.Errorf("awaited: %s\ncame:    %w", want, err)
		}
		line = p.contract(line)
		p.note("<-[%s] %s", want.Conn, line)
		if came := Normalize(line); want.Kind == Message && came == wanted {
			return nil
		} else if (p.loose || p.looseAll) && isEvent(came) {
			p.early = append(p.early, want.Conn+came)
			continue
		}
		return fmt.Errorf("awaited: %s\ncame:    %s%s", want, line, difference(want.Text, line))
	}
}

func isEvent(line string) bool {
	return strings.HasPrefix(line, `{"timestamp": `)
}

// difference shows the neighbourhood of the first byte that differs, for
// lines too long to be compared by eye.
func difference(want, came string) string {
	if len(want) < 100 {
		return ""
	}
	want, came = Normalize(want), Normalize(came)
	at := 0
	for at < len(want) && at < len(came) && want[at] == came[at] {
		at++
	}
	around := func(s string) string { return s[max(0, min(len(s), at)-60):min(len(s), at+80)] }
	return fmt.Sprintf("\nat byte %d, awaited: …%s…\nat byte %d, came:    …%s…", at, around(want), at, around(came))
}

// compareIdle gives messages that nobody awaits the time to come.
func (p *Player) compareIdle(s *Step) error {
	ms, err := strconv.Atoi(strings.TrimSpace(s.Rest))
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(ms) * time.Millisecond) // the absence of something has no event
	return p.unread()
}

// unread reports a message that nothing in the transcript awaits.
func (p *Player) unread() error {
	for _, k := range p.conns {
		line, ok, _ := k.poll()
		if ok && !p.looseAll {
			return fmt.Errorf("nothing was awaited on %s\ncame: %s", k.name, line)
		}
	}
	return nil
}

// leftover looks for messages behind the last one that is written: the
// connections are ended from our side, and what still comes is too much.
func (p *Player) leftover(f *File) error {
	if p.looseAll || len(f.Steps) == 0 {
		return nil
	}
	last := f.Steps[len(f.Steps)-1]
	for _, k := range p.conns {
		k.shutWrite()
		line, err := k.next(time.Second)
		if err == nil && !isEvent(line) {
			return p.explain(f, last, fmt.Errorf("nothing more was awaited on %s\ncame: %s", k.name, line))
		}
	}
	return nil
}

// compareOutput compares what programs printed, and how they ended.
func compareOutput(s *Step, got []Expect) error {
	var want []Expect
	for _, e := range s.Expect {
		if e.Kind == Output || e.Kind == Status {
			want = append(want, e)
		}
	}
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Errorf("awaited: %s\ncame:    nothing more", want[i])
		case i >= len(want):
			return fmt.Errorf("awaited: nothing more\ncame:    %s", got[i])
		case Normalize(want[i].String()) != Normalize(got[i].String()):
			return fmt.Errorf("awaited: %s\ncame:    %s", want[i], got[i])
		}
	}
	return nil
}

// waitLimit reads timeout=MS of a wait line.
func waitLimit(rest string) time.Duration {
	for _, word := range strings.Fields(rest) {
		if ms, ok := strings.CutPrefix(word, "timeout="); ok {
			n, _ := strconv.Atoi(ms)
			return time.Duration(n) * time.Millisecond
		}
	}
	return 0
}
