package qemuio

import (
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// runFlush says nothing, whatever comes of it.
func runFlush(s *Session, l *aio.Lock, _ []string) error {
	_ = s.blk.Flush(l)
	return nil
}

func runDiscard(s *Session, l *aio.Lock, argv []string) error {
	d := outcome{verb: "discard"}
	o := s.options(argv, "Cq")
	for {
		letter, _, more := o.next()
		if !more {
			break
		}
		d.machine = d.machine || letter == 'C'
		d.quiet = d.quiet || letter == 'q'
	}
	if o.bad || !o.count(2, 2) {
		return nil
	}
	var ok bool
	if d.offset, ok = s.number(o.rest[0]); !ok {
		return nil
	}
	if d.asked, ok = s.number(o.rest[1]); !ok {
		return nil
	}
	if d.asked > maxRequest {
		s.printf("length cannot exceed %d, given %s\n", int64(maxRequest), o.rest[1])
		return nil
	}
	start := time.Now()
	err := s.blk.Pdiscard(l, d.offset, d.asked)
	d.took, d.done = time.Since(start), d.asked
	if err != nil {
		s.printf("discard failed: %s\n", s.reason(err))
		return nil
	}
	s.print(d.String())
	return nil
}

func runLength(s *Session, l *aio.Lock, _ []string) error {
	length, err := s.blk.GetLength(l)
	if err != nil {
		s.printf("getlength: %s\n", s.reason(err))
		return nil
	}
	s.printf("%s\n", human(float64(length)))
	return nil
}

// extents visits what is allocated and what is not from offset on, as far as
// the answers reach.
func (s *Session) extents(l *aio.Lock, offset, bytes int64, f func(offset, bytes int64, allocated bool)) error {
	for bytes > 0 {
		allocated, count, err := s.blk.Node().IsAllocated(l, offset, bytes)
		if err != nil {
			return err
		}
		if count == 0 {
			return nil
		}
		f(offset, count, allocated)
		offset += count
		bytes -= count
	}
	return nil
}

// runAlloc counts the allocated bytes of an area, as far as it lies inside.
func runAlloc(s *Session, l *aio.Lock, argv []string) error {
	offset, ok := s.number(argv[1])
	if !ok {
		return nil
	}
	count := int64(block.SectorSize)
	if len(argv) == 3 {
		if count, ok = s.number(argv[2]); !ok {
			return nil
		}
	}
	if s.blk.Node() == nil {
		// The reference ends itself here.
		return runLength(s, l, nil)
	}
	var inside, allocated int64
	err := s.extents(l, offset, count, func(_, bytes int64, yes bool) {
		inside += bytes
		if yes {
			allocated += bytes
		}
	})
	if err != nil {
		s.printf("is_allocated failed: %s\n", s.reason(err))
		return nil
	}
	s.printf("%d/%d bytes allocated at offset %s\n", allocated, inside, human(float64(offset)))
	return nil
}

// runMap lists the areas that are allocated, and those that are not.
func runMap(s *Session, l *aio.Lock, _ []string) error {
	length, err := s.blk.GetLength(l)
	if err != nil {
		return qerr.New("Failed to query image length: %s", s.reason(err))
	}
	var start, bytes int64
	var state bool
	show := func() {
		if bytes > 0 {
			word := "not allocated"
			if state {
				word = "    allocated"
			}
			s.printf("%s (0x%x) bytes %s at offset %s (0x%x)\n", human(float64(bytes)), bytes, word, human(float64(start)), start)
		}
	}
	err = s.extents(l, 0, length, func(offset, n int64, allocated bool) {
		if allocated != state {
			show()
			start, bytes, state = offset, 0, allocated
		}
		bytes += n
	})
	if err != nil {
		return qerr.New("Failed to get allocation status: %s", s.reason(err))
	}
	show()
	if start+bytes < length {
		return qerr.New("Unexpected end of image")
	}
	return nil
}

func runInfo(s *Session, l *aio.Lock, _ []string) error {
	n := s.blk.Node()
	if n == nil {
		// The reference ends itself here.
		return runLength(s, l, nil)
	}
	s.printf("format name: %s\n", n.Driver().Name)
	if prefix := n.Driver().Prefix; prefix != "" {
		// Of several transports the last is shown, used or not (observed).
		if t := n.Driver().Transports; len(t) > 0 {
			prefix += "+" + t[len(t)-1]
		}
		s.printf("format name: %s\n", prefix)
	}
	info, err := n.GetInfo(l)
	if err != nil {
		return nil // what is not known is not printed
	}
	s.printf("cluster size: %s\nvm state offset: %s\n", human(float64(info.ClusterSize)), human(float64(info.VMStateOffset)))
	return nil
}

func runTruncate(s *Session, l *aio.Lock, argv []string) error {
	mode := block.PreallocOff
	o := s.options(argv, "m:")
	for {
		_, value, more := o.next()
		if !more {
			break
		}
		var ok bool
		if mode, ok = preallocMode(value); !ok {
			return qerr.New("Invalid preallocation mode '%s'", value)
		}
	}
	if o.bad {
		return nil
	}
	arg := ""
	if len(o.rest) > 0 {
		arg = o.rest[0]
	}
	offset, err := parseNumber(arg)
	if err != nil {
		s.badNumber(err, firstWord(argv[1:]))
		return nil
	}
	return s.blk.Truncate(l, offset, false, mode, 0)
}

func preallocMode(name string) (mode block.PreallocMode, ok bool) {
	for m := block.PreallocOff; m <= block.PreallocFull; m++ {
		if m.String() == name {
			return m, true
		}
	}
	return 0, false
}

// firstWord is the word that stands first once getopt has moved the options
// in front: the reference names it when it means the size.
func firstWord(words []string) string {
	for _, w := range words {
		if len(w) > 1 && w[0] == '-' {
			return w
		}
	}
	return words[0]
}
