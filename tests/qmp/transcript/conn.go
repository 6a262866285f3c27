package transcript

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection to the daemon. A goroutine reads all that comes, so
// that the daemon never waits for us while we write to it; close waits for it.
type conn struct {
	name string
	net.Conn
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	arrived chan struct{} // holds one token when something is new
	lines   []string      // complete and unread, without CR LF
	rest    []byte        // an incomplete line
	ended   bool
	eofTold bool // the end was expected or recorded
}

var errEnd = errors.New("the connection has ended")

func newConn(name string, c net.Conn) *conn {
	k := &conn{name: name, Conn: c, done: make(chan struct{}), arrived: make(chan struct{}, 1)}
	go k.read()
	return k
}

func (k *conn) read() {
	defer close(k.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := k.Conn.Read(buf)
		k.take(buf[:n], err != nil)
		if err != nil {
			return
		}
	}
}

func (k *conn) take(text []byte, end bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rest = append(k.rest, text...)
	for {
		line, after, found := bytes.Cut(k.rest, []byte("\n"))
		if !found {
			break
		}
		k.lines = append(k.lines, markEnd(string(line)))
		k.rest = after
	}
	if end && len(k.rest) > 0 {
		k.lines = append(k.lines, string(k.rest)+"<no line end>")
		k.rest = nil
	}
	k.ended = k.ended || end
	select {
	case k.arrived <- struct{}{}:
	default:
	}
}

// markEnd takes off the CR that ends a line as it should, and shows one that
// is missing.
func markEnd(line string) string {
	if text, ok := strings.CutSuffix(line, "\r"); ok {
		return text
	}
	return line + "<no CR>"
}

// next returns the next line, errEnd at the end, or an error that tells what
// there is when nothing has come within the limit.
func (k *conn) next(limit time.Duration) (string, error) {
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		line, ok, ended := k.poll()
		if ok {
			return line, nil
		}
		if ended {
			return "", errEnd
		}
		select {
		case <-k.arrived:
		case <-end.C:
			return "", fmt.Errorf("nothing for %v%s", limit, k.partial())
		}
	}
}

// poll returns a line that is there, and whether the end has come behind it.
func (k *conn) poll() (line string, ok, ended bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.lines) == 0 {
		return "", false, k.ended
	}
	line, k.lines = k.lines[0], k.lines[1:]
	return line, true, k.ended
}

// putBack makes lines unread again.
func (k *conn) putBack(lines []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lines = append(lines, k.lines...)
}

func (k *conn) partial() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.rest) == 0 {
		return ""
	}
	return fmt.Sprintf(", but an unfinished line: %q", k.rest)
}

// send writes text, the descriptors with its first byte. A daemon that is
// gone is noticed by what does not come, so the error is no concern here.
func (k *conn) send(text []byte, files []*os.File) {
	_ = k.SetWriteDeadline(time.Now().Add(replyLimit))
	if len(files) == 0 {
		_, _ = k.Conn.Write(text)
		return
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if u, ok := k.Conn.(*net.UnixConn); ok {
		_, _, _ = u.WriteMsgUnix(text, unix.UnixRights(fds...), nil)
	}
}

// shutWrite closes the sending side.
func (k *conn) shutWrite() {
	if c, ok := k.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}

// close ends the connection and its reader.
func (k *conn) close() {
	_ = k.Conn.Close()
	<-k.done
}
