package qemuio

import (
	"bytes"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// readRequest is a read with what is to be done about its data.
type readRequest struct {
	outcome
	sizes []int64 // of the buffers
	data  []byte
	show  bool // as a dump
	// verify compares length bytes from skip on with pattern.
	verify       bool
	pattern      byte
	skip, length int64
	vmstate      bool
}

// finish returns what a read that went well prints.
func (r *readRequest) finish() string {
	text := ""
	if r.verify {
		part := r.data[r.skip : r.skip+r.length]
		if !bytes.Equal(part, bytes.Repeat([]byte{r.pattern}, len(part))) {
			text = verificationFailed(r.offset+r.skip, r.length)
		}
	}
	if r.quiet {
		return text
	}
	if r.show {
		text += dump(r.offset, r.data)
	}
	return text + r.String()
}

// submit makes the request and measures it.
func (r *readRequest) submit(s *Session, c aio.Caller) error {
	if err := s.checkEnd(c, r.offset, r.asked); err != nil {
		return err
	}
	var vec block.Vec
	vec, r.data = vector(r.sizes, r.asked, 0)
	start := time.Now()
	err := s.blk.Preadv(c, r.offset, vec)
	r.took = time.Since(start)
	return err
}

func runRead(s *Session, l *aio.Lock, argv []string) error {
	r, ok := s.parseRead(argv)
	if !ok {
		return nil
	}
	err := s.refuseVMState(r.vmstate)
	if err == nil {
		err = r.submit(s, l)
	}
	if err != nil {
		s.printf("read failed: %s\n", s.reason(err))
		return nil
	}
	s.print(r.finish())
	return nil
}

func (s *Session) parseRead(argv []string) (r *readRequest, ok bool) {
	r = &readRequest{outcome: outcome{verb: "read"}}
	var registered, haveLength, haveSkip bool
	o := s.options(argv, "bCl:pP:qrs:v")
	for {
		letter, value, more := o.next()
		if !more {
			break
		}
		ok := true
		switch letter {
		case 'b':
			r.vmstate = true
		case 'C':
			r.machine = true
		case 'l':
			haveLength = true
			r.length, ok = s.number(value)
		case 'P':
			r.verify = true
			r.pattern, ok = s.pattern(value)
		case 'q':
			r.quiet = true
		case 'r':
			registered = true
		case 's':
			haveSkip = true
			r.skip, ok = s.number(value)
		case 'v':
			r.show = true
		}
		if !ok {
			return nil, false
		}
	}
	if o.bad || !o.count(2, 2) {
		return nil, false
	}
	if !s.readArea(r, o.rest) {
		return nil, false
	}
	if !r.verify && (haveLength || haveSkip) {
		s.usage(o.c)
		return nil, false
	}
	if !haveLength {
		r.length = r.asked - r.skip
	}
	if r.length < 0 || r.length+r.skip > r.asked {
		s.print("pattern verification range exceeds end of read data\n")
		return nil, false
	}
	if r.vmstate && !s.aligned(o.rest, r.offset, r.asked) {
		return nil, false
	}
	if r.vmstate && registered {
		s.print("I/O buffer registration is not supported when reading from vmstate\n")
		return nil, false
	}
	return r, true
}

// readArea reads the two numbers that say what to read.
func (s *Session) readArea(r *readRequest, rest []string) (ok bool) {
	if r.offset, ok = s.number(rest[0]); !ok {
		return false
	}
	if r.asked, ok = s.number(rest[1]); !ok {
		return false
	}
	if r.asked > maxRequest {
		s.printf("length cannot exceed %d, given %s\n", int64(maxRequest), rest[1])
		return false
	}
	r.done, r.sizes = r.asked, []int64{r.asked}
	return true
}

// aligned checks what the machine's saved state and compressed clusters
// demand.
func (s *Session) aligned(rest []string, offset, count int64) bool {
	for _, n := range []struct {
		value int64
		what  string
	}{{offset, "offset"}, {count, "count"}} {
		if n.value%block.SectorSize != 0 {
			s.printf("%d is not a sector-aligned value for '%s'\n", n.value, n.what)
			return false
		}
	}
	return true
}

// runReadv is read into several buffers.
func runReadv(s *Session, l *aio.Lock, argv []string) error {
	r, _, ok := s.parseReadv(argv, "CP:qrv")
	if !ok {
		return nil
	}
	if err := r.submit(s, l); err != nil {
		s.printf("readv failed: %s\n", s.reason(err))
		return nil
	}
	s.print(r.finish())
	return nil
}

// parseReadv serves readv and aio_read. invalid says that the latter is asked
// to count a bad request only.
func (s *Session) parseReadv(argv []string, spec string) (r *readRequest, invalid, ok bool) {
	r = &readRequest{outcome: outcome{verb: "read"}}
	o := s.options(argv, spec)
	for {
		letter, value, more := o.next()
		if !more {
			break
		}
		switch letter {
		case 'C':
			r.machine = true
		case 'i':
			return nil, true, false
		case 'P':
			r.verify = true
			var ok bool
			if r.pattern, ok = s.pattern(value); !ok {
				return nil, false, false
			}
		case 'q':
			r.quiet = true
		case 'v':
			r.show = true
		}
	}
	if o.bad || !o.count(2, anyNumber) {
		return nil, false, false
	}
	if r.offset, ok = s.number(o.rest[0]); !ok {
		return nil, false, false
	}
	if r.sizes, r.asked, ok = s.sizes(o.rest[1:]); !ok {
		return nil, false, false
	}
	r.done, r.length = r.asked, r.asked
	return r, false, true
}
