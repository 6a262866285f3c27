// Package sockets is the addresses of sockets as QAPI's SocketAddress knows
// them, and how to listen on one and connect to one with the reference's words
// for what goes wrong.
//
// An [Address] is an Internet host and port, the path of a UNIX socket, a
// virtual machine's port (vsock) or a descriptor that is open already. What a
// descriptor's text means differs: an [FDSource] finds it.
//
// A name of a host can stand for several addresses. A listener listens on all
// of them that it can get, each with its own search for a free port, and
// reports the first.
//
// What is waited for ends with the context.
package sockets
