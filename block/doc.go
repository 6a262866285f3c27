// Package block is the block layer: a graph of nodes through which every byte
// of a disk passes.
//
// # Nodes, children, backends
//
// A [Node] is one step on the way from a user to a disk: a file, an image
// format over a file, a filter. Its [Driver] says what it does; a driver's
// instance implements as many of the small interfaces of driver.go as it has
// abilities, and the block layer does the rest: alignment, zeroes, limits,
// permissions.
//
// A [Child] is an edge of the graph. Its owner is a node or a [Backend], which
// is how users from outside (devices, exports, jobs) hold a node.
//
// # Permissions
//
// Each edge says which permissions its owner takes on the node below and which
// it lets others have ([Perm]). A node asks of its children what its driver
// needs to serve what its own users take. A change that would leave two users
// in conflict is refused, and the graph stays as it was.
//
// # Locks
//
// The graph changes only under its write lock, proven by a [*Write], which
// [Graph.Write] hands out in the main context once every coroutine is out of
// the way. Coroutines hold the read lock; their token is [*aio.Co]. Code that
// runs in the main context outside of a coroutine ([*aio.Lock]) may read the
// graph freely: only the main context changes it.
//
// Operations that need a coroutine take an [aio.Caller] and are built with the
// mixed wrapper; see package aio.
//
// # Drain
//
// A drained section ([Node.DrainedBegin]) keeps requests away from a node:
// those under way are waited for, new ones wait at the backends. Graph changes
// drain first and take the write lock then, so that a writer never waits for
// a reader that waits for the writer.
package block
