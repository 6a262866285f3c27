package qemuio

import (
	"math"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
)

func runHelp(s *Session, _ *aio.Lock, argv []string) error {
	if len(argv) == 1 {
		var all strings.Builder
		for _, c := range commands() {
			all.WriteString(c.usage(c.name))
		}
		s.print(all.String() + "\nUse 'help commandname' for extended help.\n")
		return nil
	}
	c := findCommand(argv[1])
	if c == nil {
		s.printf("command %s not found\n", argv[1])
		return nil
	}
	s.print(c.usage(argv[1]) + c.help)
	return nil
}

func runSleep(s *Session, l *aio.Lock, argv []string) error {
	ms, err := keyval.ParseInt(argv[1])
	if err != nil {
		s.printf("%s is not a valid number\n", argv[1])
		return nil
	}
	ms = min(ms, math.MaxInt64/int64(time.Millisecond))
	l.Unlocked(func() { time.Sleep(time.Duration(ms) * time.Millisecond) })
	return nil
}

// The commands of breakpoints say what they say of a driver that has none.

func runBreak(s *Session, _ *aio.Lock, _ []string) error {
	s.printf("Could not set breakpoint: %s\n", qerr.Strerror(syscall.ENOTSUP))
	return nil
}

func runResume(s *Session, _ *aio.Lock, _ []string) error {
	s.printf("Could not resume request: %s\n", qerr.Strerror(syscall.ENOTSUP))
	return nil
}

func runRemoveBreak(s *Session, _ *aio.Lock, argv []string) error {
	s.printf("Could not remove breakpoint %s: %s\n", argv[1], qerr.Strerror(syscall.ENOTSUP))
	return nil
}

func refuseWait(s *Session, _ *aio.Lock, argv []string) error {
	s.printf("Could not wait for breakpoint %s: %s\n", argv[1], qerr.Strerror(syscall.ENOTSUP))
	return nil
}

func refuseAbort(s *Session, _ *aio.Lock, _ []string) error {
	s.print("abort is refused: it would end the server\n")
	return nil
}

const maxSignal = 65

func refuseSignal(s *Session, _ *aio.Lock, argv []string) error {
	switch n, ok := s.number(argv[1]); {
	case !ok:
	case n > maxSignal:
		s.printf("signal argument '%s' is too large to be a valid signal\n", argv[1])
	default:
		s.print("sigraise is refused: it could end the server\n")
	}
	return nil
}

// The commands of zones say what they say of a device that has none.

func (s *Session) noZones() string {
	if s.blk.Node() == nil {
		return qerr.Strerror(syscall.ENOMEDIUM)
	}
	return qerr.Strerror(syscall.ENOTSUP)
}

func runZone(verb string) func(*Session, *aio.Lock, []string) error {
	return func(s *Session, l *aio.Lock, argv []string) error {
		offset, ok := s.number(argv[1])
		if !ok {
			return nil
		}
		length, ok := s.number(argv[2])
		if !ok {
			return nil
		}
		why := s.noZones()
		if err := s.checkEnd(l, offset, length); err != nil {
			why = s.reason(err)
		}
		s.printf("zone %s failed: %s\n", verb, why)
		return nil
	}
}

func runZoneReport(s *Session, _ *aio.Lock, argv []string) error {
	if _, ok := s.number(argv[1]); !ok {
		return nil
	}
	n, ok := s.number(argv[2])
	switch {
	case !ok:
		return nil
	case n > math.MaxUint32:
		s.print("Number of zones must be less than 2^32\n")
		return nil
	}
	s.printf("zone report failed: %s\n", s.noZones())
	return nil
}

func runZoneAppend(s *Session, _ *aio.Lock, argv []string) error {
	rest := s.skipOption(argv[0], argv[1:])
	offset := "(null)" // as the reference prints what is not there
	if len(rest) > 0 {
		offset, rest = rest[0], rest[1:]
	}
	if _, ok := s.number(offset); !ok {
		return nil
	}
	if _, _, ok := s.sizes(rest); ok {
		s.printf("zone append failed: %s\n", s.noZones())
	}
	return nil
}

// skipOption complains of the first option, since zone_append has none but -p,
// which means nothing, and returns what the reference goes on with: the words
// behind it.
func (s *Session) skipOption(name string, words []string) []string {
	for i, word := range words {
		switch {
		case word == "--":
			return slices.Delete(slices.Clone(words), i, i+1)
		case len(word) > 1 && word[0] == '-':
			if word[1] != 'p' {
				s.printf("%s: invalid option -- '%c'\n", name, word[1])
			}
			if len(word) > 2 {
				return words[i:] // more letters to come
			}
			return words[i+1:]
		}
	}
	return words
}
