package qemuio

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
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

// sizes reads the lengths of a request's buffers.
func (s *Session) sizes(args []string) (sizes []int64, total int64, ok bool) {
	for _, arg := range args {
		n, ok := s.number(arg)
		if !ok {
			return nil, 0, false
		}
		if n > maxRequest {
			s.printf("Argument '%s' exceeds maximum size %d\n", arg, int64(maxRequest))
			return nil, 0, false
		}
		if total += n; total > maxRequest {
			s.printf("The total number of bytes exceed the maximum size %d\n", int64(maxRequest))
			return nil, 0, false
		}
		sizes = append(sizes, n)
	}
	return sizes, total, true
}

// vector makes buffers of the given sizes, one behind the other in all.
func vector(sizes []int64, total int64, pattern byte) (v block.Vec, all []byte) {
	all = filled(total, pattern)
	at := int64(0)
	for _, n := range sizes {
		v = append(v, all[at:at+n])
		at += n
	}
	return v, all
}

// checkEnd fails as a request beyond the end will, so that no memory is spent
// on it.
func (s *Session) checkEnd(c aio.Caller, offset, bytes int64) error {
	length, err := s.blk.GetLength(c)
	if err == nil && (offset > length || length-offset < bytes) {
		return qerr.From(syscall.EIO)
	}
	return err
}

// fromFile reads the first n bytes of a file, or fewer if it is shorter.
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
	return data, true
}

// repeat fills a buffer with data, over and over.
func repeat(b, data []byte) {
	for at := 0; at < len(b); at += len(data) {
		copy(b[at:], data)
	}
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
