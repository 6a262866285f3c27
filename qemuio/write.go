package qemuio

import (
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// writeRequest is a write, of data or of zeroes.
type writeRequest struct {
	outcome
	sizes   []int64 // of the buffers
	flags   block.ReqFlags
	zeroes  bool
	vmstate bool
	pattern byte
	source  []byte // the data, to be repeated; nil: pattern
}

// submit makes the request and measures it.
func (w *writeRequest) submit(s *Session, c aio.Caller) error {
	if err := s.checkEnd(c, w.offset, w.asked); err != nil {
		return err
	}
	if w.zeroes {
		start := time.Now()
		err := s.blk.PwriteZeroes(c, w.offset, w.asked, w.flags)
		w.took = time.Since(start)
		return err
	}
	vec, all := vector(w.sizes, w.asked, w.pattern)
	if w.source != nil {
		repeat(all, w.source)
	}
	start := time.Now()
	err := s.blk.Pwritev(c, w.offset, vec, w.flags)
	w.took = time.Since(start)
	return err
}

func runWrite(s *Session, l *aio.Lock, argv []string) error {
	w, ok := s.parseWrite(argv)
	if !ok {
		return nil
	}
	err := s.refuseVMState(w.vmstate)
	if err == nil {
		err = s.refuseCompressed(w.flags)
	}
	if err == nil {
		err = w.submit(s, l)
	}
	if err != nil {
		s.printf("write failed: %s\n", s.reason(err))
		return nil
	}
	s.print(w.String())
	return nil
}

// refuseVMState: no backend reaches the machine states that images hold.
func (s *Session) refuseVMState(wanted bool) error {
	switch {
	case !wanted:
		return nil
	case s.blk.Node() == nil:
		return qerr.From(syscall.ENOMEDIUM)
	}
	return qerr.From(syscall.ENOTSUP)
}

// refuseCompressed: only some formats can compress.
func (s *Session) refuseCompressed(flags block.ReqFlags) error {
	n := s.blk.Node()
	switch {
	case flags&block.ReqCompressed == 0:
		return nil
	case n == nil:
		return qerr.From(syscall.ENOMEDIUM)
	case n.Limits().WriteFlags&block.ReqCompressed == 0:
		return qerr.From(syscall.ENOTSUP)
	}
	return nil
}

// writeLetters are the options of write that are no more than switches.
type writeLetters map[byte]bool

func (s *Session) parseWrite(argv []string) (w *writeRequest, ok bool) {
	w = &writeRequest{outcome: outcome{verb: "wrote"}, pattern: defaultPattern}
	on := make(writeLetters)
	source := ""
	o := s.options(argv, "bcCfnpP:qrs:uz")
	for {
		letter, value, more := o.next()
		if !more {
			break
		}
		on[letter] = true
		switch letter {
		case 'P':
			if w.pattern, ok = s.pattern(value); !ok {
				return nil, false
			}
		case 's':
			source = value
		}
	}
	if o.bad || !o.count(2, 2) {
		return nil, false
	}
	if why := on.conflict(); why != "" {
		s.print(why + "\n")
		return nil, false
	}
	w.apply(on)
	if !s.writeArea(w, o.rest, on) {
		return nil, false
	}
	if on['s'] {
		w.source, ok = s.fromFile(source, w.asked)
		return w, ok
	}
	return w, true
}

// conflict names what cannot be combined, "" if all can.
func (on writeLetters) conflict() string {
	sources := 0
	for _, letter := range []byte{'z', 'P', 's'} {
		if on[letter] {
			sources++
		}
	}
	switch {
	case on['b'] && on['z']:
		return "-b and -z cannot be specified at the same time"
	case on['f'] && (on['b'] || on['c']):
		return "-f and -b or -c cannot be specified at the same time"
	case on['n'] && !on['z']:
		return "-n requires -z to be specified"
	case on['u'] && !on['z']:
		return "-u requires -z to be specified"
	case sources > 1:
		return "Only one of -z, -P, and -s can be specified at the same time"
	}
	return ""
}

func (w *writeRequest) apply(on writeLetters) {
	w.zeroes, w.vmstate = on['z'], on['b']
	w.machine, w.quiet = on['C'], on['q']
	if on['f'] {
		w.flags |= block.ReqFUA
	}
	if on['n'] {
		w.flags |= block.ReqNoFallback
	}
	if on['u'] {
		w.flags |= block.ReqMayUnmap
	}
	if on['c'] && !w.zeroes {
		w.flags |= block.ReqCompressed
	}
}

// writeArea reads the two numbers that say where to write.
func (s *Session) writeArea(w *writeRequest, rest []string, on writeLetters) (ok bool) {
	if w.offset, ok = s.number(rest[0]); !ok {
		return false
	}
	if w.asked, ok = s.number(rest[1]); !ok {
		return false
	}
	w.done, w.sizes = w.asked, []int64{w.asked}
	if w.asked > maxRequest && !on['n'] {
		s.printf("length cannot exceed %d without -n, given %s\n", int64(maxRequest), rest[1])
		return false
	}
	if (on['b'] || on['c']) && !s.aligned(rest, w.offset, w.asked) {
		return false
	}
	if on['z'] && on['r'] {
		s.print("cannot combine zero write with registered I/O buffer\n")
		return false
	}
	return true
}

func runWritev(s *Session, l *aio.Lock, argv []string) error {
	w := &writeRequest{outcome: outcome{verb: "wrote"}, pattern: defaultPattern}
	o := s.options(argv, "CfqP:r")
	for {
		letter, value, more := o.next()
		if !more {
			break
		}
		switch letter {
		case 'C':
			w.machine = true
		case 'f':
			w.flags |= block.ReqFUA
		case 'q':
			w.quiet = true
		case 'P':
			var ok bool
			if w.pattern, ok = s.pattern(value); !ok {
				return nil
			}
		}
	}
	if o.bad || !o.count(2, anyNumber) || !s.writeVector(w, o.rest) {
		return nil
	}
	if err := w.submit(s, l); err != nil {
		s.printf("writev failed: %s\n", s.reason(err))
		return nil
	}
	s.print(w.String())
	return nil
}

// writeVector reads the offset and the lengths of buffers, and fills them.
func (s *Session) writeVector(w *writeRequest, rest []string) (ok bool) {
	if w.offset, ok = s.number(rest[0]); !ok {
		return false
	}
	w.sizes, w.asked, ok = s.sizes(rest[1:])
	w.done = w.asked
	return ok
}
