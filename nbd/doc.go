// Package nbd speaks the NBD protocol: what server and client share. It knows
// sockets and bytes, and nothing of block nodes.
//
// # A connection
//
// A connection has two phases. In the handshake the client haggles: it sends
// options ("list your exports", "let us use TLS", "I want export x") and the
// server answers each. [ServerHandshake] and [ClientHandshake] are the two
// sides; both end with an [Export] chosen and a [Mode] agreed. Then comes the
// transmission phase, in which the client sends requests and the server
// answers in any order; the headers of both are encoded and decoded here. A
// [Client] sends requests and sorts the answers; who serves them lives
// elsewhere.
//
// # Modes of transmission
//
// [Simple] replies are a header and, for a read, its data. [Structured] replies
// come in chunks, so that a read can tell holes and errors in the middle, and
// block status can be asked. [Extended] headers carry 64-bit lengths on top.
//
// # Meta contexts
//
// Block status is asked by context: "base:allocation" says what is a hole and
// what reads as zeroes, "qemu:allocation-depth" which image of a chain holds
// the data, "qemu:dirty-bitmap:NAME" what a bitmap has set.
//
// The rules are those of the NBD protocol document (doc/proto.md of the NBD
// project); comments name its sections.
package nbd
