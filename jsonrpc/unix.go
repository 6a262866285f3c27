package jsonrpc

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
)

// listenUnix serves a UNIX socket.
func (l *Listener) listenUnix(path string) error {
	if path == "" {
		return qerr.New("JSON-RPC address 'unix:' lacks a path")
	}
	removeStale(path)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return bindError(path, err)
	}
	l.url, l.stop = "unix:"+path, ln.Close
	l.accept = func() { l.acceptUnix(ln) }
	return nil
}

// removeStale removes a socket that nobody listens on any more.
func removeStale(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path) // if that fails, listening says why
	}
}

// acceptPause is how long to wait when the system has nothing left for a
// connection, such as a free descriptor: nobody tells when it has again.
const acceptPause = time.Second

func (l *Listener) acceptUnix(ln *net.UnixListener) {
	for {
		c, err := ln.Accept()
		if err == nil {
			l.owned.Go(func() { l.serve(newLines(c)) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		l.Log.Warn().Err(err).Str("address", l.url).Msg("JSON-RPC cannot accept a connection")
		select {
		case <-l.closing:
		case <-time.After(acceptPause):
		}
	}
}

// lines is the transport of a UNIX socket: a message is a line.
type lines struct {
	net.Conn
	in *bufio.Reader
}

// Buffers of this size serve nearly all messages; a longer one gets memory of
// its own.
const bufferSize = 4 << 10

func newLines(c net.Conn) *lines {
	return &lines{c, bufio.NewReaderSize(c, bufferSize)}
}

func (t *lines) socket() net.Conn { return t.Conn }

// read returns the next line. One that is too long is skipped.
func (t *lines) read() ([]byte, error) {
	line, err := t.in.ReadSlice('\n')
	if err == nil {
		return line, nil
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = t.in.ReadSlice('\n')
		if len(long)+len(line) > MaxMessage {
			return nil, t.skip(err)
		}
		long = append(long, line...)
	}
	if errors.Is(err, io.EOF) && len(long) > 0 {
		return long, nil // the last line may lack its end
	}
	return long, err
}

// skip passes over the rest of a line.
func (t *lines) skip(err error) error {
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = t.in.ReadSlice('\n')
	}
	if err != nil {
		return err
	}
	return errTooLong
}

func (t *lines) write(message []byte) error {
	_, err := t.Conn.Write(append(message, '\n'))
	return err
}
