package qemuio

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// Session runs commands on one backend. It is for one user at a time.
type Session struct {
	blk     *block.Backend
	pending sync.WaitGroup // aio requests under way

	mu  sync.Mutex // protects out: requests print when they are done
	out io.Writer
}

// New makes a session on a backend that the caller owns. What commands print
// goes to out.
func New(b *block.Backend, out io.Writer) *Session {
	return &Session{blk: b, out: out}
}

// Close waits for requests under way. The caller holds the lock of the main
// context, which is released meanwhile.
func (s *Session) Close(l *aio.Lock) { s.wait(l) }

func (s *Session) wait(l *aio.Lock) { l.Unlocked(s.pending.Wait) }

// Run runs one command in the main context. The error is what the reference
// reports apart from what it prints: it belongs into a monitor's reply. A
// command that fails otherwise says so in its output.
func (s *Session) Run(l *aio.Lock, line string) error {
	argv := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' })
	if len(argv) == 0 {
		return nil
	}
	c := findCommand(argv[0])
	if c == nil {
		s.printf("command \"%s\" not found\n", argv[0])
		return nil
	}
	if !s.checkCount(c, argv) {
		return nil
	}
	if err := s.takePerm(l, c.perm); err != nil {
		return err
	}
	return c.run(s, l, argv)
}

func (s *Session) checkCount(c *command, argv []string) bool {
	n := len(argv) - 1
	if n >= c.min && (n <= c.max || c.max == anyNumber) {
		return true
	}
	expected := fmt.Sprintf("between %d and %d", c.min, c.max)
	switch c.max {
	case anyNumber:
		expected = fmt.Sprintf("at least %d", c.min)
	case c.min:
		expected = fmt.Sprintf("%d", c.min)
	}
	s.printf("bad argument count %d to %s, expected %s arguments\n", n, argv[0], expected)
	return false
}

// takePerm adds what a command needs to what the backend has, for good.
func (s *Session) takePerm(l *aio.Lock, perm block.Perm) error {
	root := s.blk.Root()
	if root == nil || root.Perm()&perm == perm {
		return nil
	}
	return s.blk.SetPerm(l, root.Perm()|perm, root.Shared())
}

func (s *Session) printf(format string, args ...any) {
	s.print(fmt.Sprintf(format, args...))
}

// print writes text in one piece. That nobody may be listening any more is no
// concern of a command.
func (s *Session) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.out, text)
}

// reason is the system's text for why a request failed.
func (s *Session) reason(err error) string {
	fallback := syscall.EIO
	if s.blk.Node() == nil {
		fallback = syscall.ENOMEDIUM
	}
	if errors.Is(err, syscall.ENOTSUP) {
		return qerr.Strerror(syscall.ENOTSUP)
	}
	return qerr.Strerror(qerr.ErrnoOf(err, fallback))
}
