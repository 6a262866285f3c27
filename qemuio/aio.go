package qemuio

import (
	"fmt"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

func verificationFailed(offset, length int64) string {
	return fmt.Sprintf("Pattern verification failed at offset %d, %d bytes\n", offset, length)
}

// background starts a request that ends by itself. What it returns is printed
// in one piece.
func (s *Session) background(request func() string) {
	s.pending.Add(1)
	go func() {
		defer s.pending.Done()
		s.print(request())
	}()
}

func runAioFlush(s *Session, l *aio.Lock, _ []string) error {
	s.wait(l)
	return nil
}

// runAioRead reads in the background. Unlike read it counts as what the
// backend's user does.
func runAioRead(s *Session, _ *aio.Lock, argv []string) error {
	r, invalid, ok := s.parseReadv(argv, "CiP:qrv")
	if invalid {
		s.blk.Stats().AccountInvalid(block.OpRead)
		s.print("injecting invalid read request\n")
	}
	if !ok {
		return nil
	}
	s.background(func() string {
		start := time.Now()
		err := r.submit(s, aio.Outside)
		s.blk.Stats().Account(block.OpRead, r.asked, start, err)
		if err != nil {
			return "readv failed: " + s.reason(err) + "\n"
		}
		return r.finish()
	})
	return nil
}

func runAioWrite(s *Session, _ *aio.Lock, argv []string) error {
	w, ok := s.parseAioWrite(argv)
	if !ok {
		return nil
	}
	s.background(func() string {
		start := time.Now()
		err := w.submit(s, aio.Outside)
		if !w.zeroes {
			s.blk.Stats().Account(block.OpWrite, w.asked, start, err)
		}
		if err != nil {
			return "aio_write failed: " + s.reason(err) + "\n"
		}
		return w.String()
	})
	return nil
}

func (s *Session) parseAioWrite(argv []string) (w *writeRequest, ok bool) {
	w = &writeRequest{outcome: outcome{verb: "wrote"}, pattern: defaultPattern}
	var unmap, registered bool
	o := s.options(argv, "CfiP:qruz")
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
		case 'i':
			s.blk.Stats().AccountInvalid(block.OpWrite)
			s.print("injecting invalid write request\n")
			return nil, false
		case 'P':
			if w.pattern, ok = s.pattern(value); !ok {
				return nil, false
			}
		case 'q':
			w.quiet = true
		case 'r':
			registered = true
		case 'u':
			unmap = true
		case 'z':
			w.zeroes = true
		}
	}
	if o.bad || !o.count(2, anyNumber) {
		return nil, false
	}
	why := ""
	switch {
	case w.zeroes && len(o.rest) != 2:
		why = "-z supports only a single length parameter"
	case unmap && !w.zeroes:
		why = "-u requires -z to be specified"
	case w.zeroes && registered:
		why = "cannot combine zero write with registered I/O buffer"
	}
	if why != "" {
		s.print(why + "\n")
		return nil, false
	}
	if !w.zeroes {
		return w, s.writeVector(w, o.rest)
	}
	if unmap {
		w.flags |= block.ReqMayUnmap
	}
	if w.offset, ok = s.number(o.rest[0]); !ok {
		return nil, false
	}
	w.asked, ok = s.number(o.rest[1])
	w.done = w.asked
	return w, ok
}
