package export

import (
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// inboxSize is the memory for input that was read ahead, in bytes: enough for
// a burst of small requests.
const inboxSize = 64 << 10

// inboxPool lends memory to connections with input: one that is idle has none.
var inboxPool = sync.Pool{New: func() any { return new([inboxSize]byte) }}

// inbox reads from a connection in large pieces, and long data to where it
// belongs.
type inbox struct {
	conn net.Conn
	raw  syscall.RawConn // nil if the bytes of the socket are not ours (TLS)
	mem  *[inboxSize]byte
	r, w int // what was read and not yet taken is mem[r:w]
	// idle is called when everything that came is taken, before more is
	// waited for.
	idle func()

	// What a read by raw is about, so that it needs no closure of its own.
	dst    []byte
	n      int
	err    error
	readFn func(fd uintptr) bool
	iov    [2][]byte
}

func (in *inbox) init(conn net.Conn, idle func()) {
	in.conn, in.idle = conn, idle
	in.readFn = in.tryRead
	switch c := conn.(type) {
	case *net.UnixConn:
		in.raw, in.err = c.SyscallConn()
	case *net.TCPConn:
		in.raw, in.err = c.SyscallConn()
	}
}

// buffered is the number of bytes that can be taken without waiting.
func (in *inbox) buffered() int { return in.w - in.r }

// peek returns the next n bytes, at most [inboxSize].
func (in *inbox) peek(n int) ([]byte, error) {
	for in.buffered() < n {
		if in.r > 0 {
			// Only a part of a request is ever moved.
			in.w = copy(in.mem[:], in.mem[in.r:in.w])
			in.r = 0
		}
		if err := in.read(nil); err != nil {
			return nil, err
		}
	}
	return in.mem[in.r : in.r+n], nil
}

// skip takes n bytes that were peeked at.
func (in *inbox) skip(n int) {
	in.r += n
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
}

// take fills dst.
func (in *inbox) take(dst []byte) error {
	if in.buffered() > 0 {
		n := copy(dst, in.mem[in.r:in.w])
		in.skip(n)
		dst = dst[n:]
	}
	for len(dst) > 0 {
		if err := in.read(dst); err != nil {
			return err
		}
		dst = dst[min(in.n, len(dst)):]
	}
	return nil
}

// discard takes n bytes for nothing.
func (in *inbox) discard(n int64) error {
	for n > 0 {
		if in.buffered() == 0 {
			if _, err := in.peek(1); err != nil {
				return err
			}
		}
		part := min(n, int64(in.buffered()))
		in.skip(int(part))
		n -= part
	}
	return nil
}

// read waits for input. It goes to dst first, which may be empty, and then to
// what is free of the memory; in.n is how much there was.
func (in *inbox) read(dst []byte) error {
	in.idle()
	in.dst, in.n, in.err = dst, 0, nil
	if in.raw == nil {
		in.readSecret()
	} else if err := in.raw.Read(in.readFn); err != nil {
		return err
	}
	in.dst, in.iov = nil, [2][]byte{}
	if in.err == nil && in.n == 0 {
		return io.EOF
	}
	if in.err == nil {
		in.w += max(0, in.n-len(dst))
	}
	return in.err
}

// readSecret reads from a connection that decrypts.
func (in *inbox) readSecret() {
	if len(in.dst) == 0 {
		in.borrow()
		in.n, in.err = in.conn.Read(in.mem[in.w:])
		return
	}
	in.n, in.err = in.conn.Read(in.dst)
}

// tryRead reads what there is; false if that is nothing.
func (in *inbox) tryRead(fd uintptr) bool {
	in.borrow()
	in.iov[0], in.iov[1] = in.dst, in.mem[in.w:]
	for {
		if len(in.dst) == 0 {
			in.n, in.err = unix.Read(int(fd), in.iov[1])
		} else {
			in.n, in.err = unix.Readv(int(fd), in.iov[:])
		}
		switch in.err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			in.n, in.err = 0, nil
			in.giveBack()
			return false
		}
		return true
	}
}

func (in *inbox) borrow() {
	if in.mem == nil {
		in.mem = inboxPool.Get().(*[inboxSize]byte)
	}
}

// giveBack returns memory with nothing in it.
func (in *inbox) giveBack() {
	if in.mem != nil && in.r == in.w {
		inboxPool.Put(in.mem)
		in.mem, in.r, in.w = nil, 0, 0
	}
}
