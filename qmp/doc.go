// Package qmp speaks the QEMU Machine Protocol over byte streams. It knows
// neither what the commands do (package schema has a table of them) nor what
// carries the bytes.
//
// # Monitors and sessions
//
// A [Monitor] takes connections from a [Source], one at a time, and makes
// each a [Session]: greeting, negotiation, then requests until the client
// goes. What a client left behind unfinished is forgotten with it; what its
// commands did stays.
//
// # One at a time
//
// All monitors of an instance, and the JSON-RPC server, share a [Dispatcher],
// which runs one command at a time. A session reads a request, runs it and
// writes its reply on one goroutine; nothing is handed over on the way. Only
// after a client has enabled out-of-band execution a second goroutine works
// through the ordinary requests, while the first goes on reading, so that a
// command which may be executed out of band can overtake.
//
// A handler finds its session with [SessionFrom]: there it takes file
// descriptors that came with the request, settles the negotiation, or says
// that its reply is to be the last.
//
// # Events
//
// An [Emitter] sends events to every session that has finished negotiating
// and to other subscribers. Emitting only queues, so it waits for nobody;
// the order of events and replies on the wire is that in which they came
// about: what a handler emits before it returns comes before its reply.
//
// # Memory
//
// A session holds one request (nine with out-of-band execution), one reply,
// and no more than [MaxQueued] bytes of events that its client has not read.
// A client which does not read its replies is read no further; one which lets
// more events gather is cut off. Neither delays anybody else.
package qmp
