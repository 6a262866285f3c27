package export

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block/aio"
)

// settleLimit is how long clients that have hung up may take until they have been
// read to their end. It takes that long only if requests that they left behind
// cannot go on.
const settleLimit = time.Second

// settle lets clients go that have hung up already: what a client did before a
// command was sent counts before the command, and so does a request whose reply
// it has seen. The reference has one loop for both and sees it so; here the
// client's goroutines may not have come to it.
func (e *nbdExport) settle(l *aio.Lock) {
	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
	for _, c := range e.server.usersOf(e) {
		if !hungUp(c.sock) {
			continue
		}
		l.Unlocked(func() {
			select {
			case <-c.read:
			case <-limit.C:
				return
			}
			select {
			case <-c.out.atRest():
			case <-limit.C:
			}
		})
	}
}

// hungUp tells whether the other side sends nothing any more.
func hungUp(conn net.Conn) bool {
	sock, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		gone = err == nil && n > 0
	})
	return gone || err != nil
}
