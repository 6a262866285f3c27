package qemuio

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// maxRequest is the longest request, in bytes.
const maxRequest = block.MaxRequest

// defaultPattern is what is written when nothing else is asked for.
const defaultPattern = 0xcd

func filled(n int64, pattern byte) []byte {
	b := block.AlignedMemory(int(n))
	for i := range b {
		b[i] = pattern
	}
	return b
}

// vector reads the lengths of a request's buffers and makes them, one behind
// the other in all.
func (s *Session) vector(lengths []string, pattern byte) (v block.Vec, all []byte, ok bool) {
	var sizes []int64
	var total int64
	for _, arg := range lengths {
		n, ok := s.number(arg)
		if !ok {
			return nil, nil, false
		}
		if n > maxRequest {
			s.printf("Argument '%s' exceeds maximum size %d\n", arg, int64(maxRequest))
			return nil, nil, false
		}
		if total += n; total > maxRequest {
			s.printf("The total number of bytes exceed the maximum size %d\n", int64(maxRequest))
			return nil, nil, false
		}
		sizes = append(sizes, n)
	}
	all = filled(total, pattern)
	at := int64(0)
	for _, n := range sizes {
		v = append(v, all[at:at+n])
		at += n
	}
	return v, all, true
}

// fromFile fills a buffer with a file's beginning, repeated as often as
// needed.
func (s *Session) fromFile(name string, n int64) (b []byte, ok bool) {
	data, err := readStart(name, n)
	switch {
	case err != nil:
		s.printf("%s: %s\n", name, systemText(err))
		return nil, false
	case len(data) == 0:
		s.printf("%s: file is empty\n", name)
		return nil, false
	}
	b = block.AlignedMemory(int(n))
	for at := 0; at < len(b); at += len(data) {
		copy(b[at:], data)
	}
	return b, true
}

func readStart(name string, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, max(n, 1)))
}

// systemText is the system's own text of an error, without a path.
func systemText(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return qerr.From(err).Desc
}
