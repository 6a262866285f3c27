package block

import (
	"syscall"

	"github.com/qmpblock/qmpblock/qerr"
)

// A server that has many requests to answer tries each one with ReqImmediate
// on the goroutine that received it, and hands it to another only if that
// fails: most are answered from memory, for which a change of goroutines would
// take longer than the request. Such a request fails before the driver is
// asked if the block layer would have to do more than pass it on.

// errWouldWait is how immediate requests fail.
var errWouldWait = qerr.From(syscall.EAGAIN)

// readsAtOnce tells whether an immediate read can be passed to the driver.
func (n *Node) readsAtOnce(offset, bytes int64) bool {
	return n.limits.ReadFlags&ReqImmediate != 0 && n.aligned(offset, bytes)
}

// writesAtOnce is the same for writes. Zeroes, found or told, may take system
// calls of any length; a flush takes its time, and so does compression.
func (n *Node) writesAtOnce(offset, bytes int64, flags ReqFlags) bool {
	must := ReqImmediate | flags&ReqFUA
	return n.limits.WriteFlags&must == must && n.aligned(offset, bytes) &&
		flags&(reqZeroes|ReqCompressed) == 0 && n.detectZeroes == DetectZeroesOff
}

func (n *Node) aligned(offset, bytes int64) bool {
	return (offset|bytes)&(n.limits.RequestAlignment-1) == 0
}
