package chardev

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/sockets"
)

// connected returns both ends of a connection, ours as a frontend gets it.
func connected(t *testing.T) (ours *sockConn, theirs net.Conn) {
	t.Helper()
	path := shortDir(t) + "/s.sock"
	s := newSet(t, Config{})
	f := attach(t, add(t, s, "c", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}}))
	theirs = dial(t, path)
	t.Cleanup(func() { theirs.Close() })
	return accept(t, f).(*sockConn), theirs
}

// inCall waits until so many system calls are under way.
func inCall(t *testing.T, h *handle, calls int) {
	t.Helper()
	ctx := within(t)
	for ctx.Err() == nil {
		h.mu.Lock()
		n := h.calls
		h.mu.Unlock()
		if n == calls {
			return
		}
	}
	t.Fatal("the system call does not begin")
}

// TestCloseDuringCalls closes while one goroutine waits for input and another
// for a client that does not read.
func TestCloseDuringCalls(t *testing.T) {
	t.Parallel()
	conn, client := connected(t)
	results := make(chan error, 2)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		results <- err
	}()
	go func() {
		_, err := conn.Write(make([]byte, 16<<20))
		results <- err
	}()
	inCall(t, conn.handle, 2)
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	for range 2 {
		if err := <-results; err == nil {
			t.Error("a call on a closed connection succeeded")
		}
	}
	if _, err := io.Copy(io.Discard, client); err != nil {
		t.Error(err)
	}
	inCall(t, conn.handle, 0)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after the end: %v", err)
	}
}

// TestNonblockingSocket has the socket's flag changed behind our back, as a
// process can that shares it.
func TestNonblockingSocket(t *testing.T) {
	t.Parallel()
	conn, client := connected(t)
	if err := unix.SetNonblock(conn.handle.fd, true); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("text", 1<<20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		expectRead(t, conn, text)
		write(t, conn, text)
	}()
	inCall(t, conn.handle, 1)
	write(t, client, text)
	expectRead(t, client, text)
	<-done
}
