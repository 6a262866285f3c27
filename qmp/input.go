package qmp

import (
	"os"
	"sync"

	"github.com/qmpblock/qmpblock/qjson"
)

// Sizes of the buffer that input is read into: a session starts with the
// small one and takes the large one when that was full.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

// input reads a connection's messages.
type input struct {
	conn Conn
	// replies, when not nil, are all sent before more input is waited for.
	replies *outbox
	parser  qjson.Parser
	buf     []byte
	end     error      // what Read returned
	fds     []*os.File // came with the bytes and are not taken yet
}

// next returns the next message, or what is wrong with it, or an error when
// there is none.
func (in *input) next() (v qjson.Value, wrong, err error) {
	for {
		v, ok, wrong := in.parser.Next()
		if ok {
			return v, wrong, nil
		}
		if in.replies != nil {
			if err := in.replies.flush(); err != nil {
				return v, nil, err
			}
		}
		if in.end != nil {
			return v, nil, in.end
		}
		in.read()
	}
}

func (in *input) read() {
	if in.buf == nil {
		in.buf = make([]byte, smallBuffer)
	}
	n, err := in.conn.Read(in.buf)
	in.end = err
	if fds := in.conn.TakeFDs(); len(fds) > 0 {
		closeAll(in.fds)
		in.fds = fds
	}
	in.parser.Feed(in.buf[:n])
	if n == smallBuffer && len(in.buf) == smallBuffer {
		in.buf = make([]byte, largeBuffer)
	}
}

// takeFDs hands out the file descriptors that came with the message or before
// it.
func (in *input) takeFDs() []*os.File {
	fds := in.fds
	in.fds = nil
	return fds
}

// fds are the file descriptors that the next command may take.
type fds struct {
	mu    sync.Mutex
	files []*os.File
}

// replace puts newer ones in their place, if there are any.
func (f *fds) replace(files []*os.File) {
	if len(files) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	closeAll(f.files)
	f.files = files
}

// take returns the first and closes the others.
func (f *fds) take() *os.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.files) == 0 {
		return nil
	}
	first := f.files[0]
	closeAll(f.files[1:])
	f.files = nil
	return first
}

// close closes all.
func (f *fds) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	closeAll(f.files)
	f.files = nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
