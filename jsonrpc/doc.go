// Package jsonrpc serves the control plane over JSON-RPC 2.0, for clients
// that have a library for that and none for QMP.
//
// # Requests
//
// The method is the command's name, the params its arguments (an object, or
// absent for none), the result what QMP sends as "return". There is no
// greeting and nothing to negotiate. The requests of one connection are
// answered in order; a client may send many without waiting. A notification,
// a request without id, is executed and not answered.
//
// Text is read in QMP's dialect of JSON with its rules for numbers (package
// qjson), so an argument means the same here and there. An id is a string or
// an integer from 0 to 2^63-1. Batches are refused: as requests may be sent
// without waiting, a batch would bring nothing.
//
// # Errors
//
//	-32700  the text is no JSON; the id is null
//	-32600  it is no request: no "jsonrpc": "2.0", a batch, a bad id, too long
//	-32601  no such command
//	-32602  the params are no object
//	-32000  every other error of a command
//
// The message is QMP's text; with errors of commands, data is {"class": …}
// with QMP's error class. The connection stays usable after each of them.
//
// # Events
//
// An event arrives as a notification with the method "event", its params are
// the event as QMP prints it: {"timestamp": …, "event": …, "data": …}. A
// connection gets events from its first moment. An event that a command
// emitted before it was done comes before the command's answer.
//
// # Transports
//
// On a UNIX socket each message is one line. On a WebSocket each is one text
// message. A browser lets every page open WebSockets to this machine, so a
// request with the Origin of another site is refused, and so is one whose
// Host is a name that is not ours (a page's own name can be made to point
// here).
//
// # Memory
//
// A connection holds one request, one answer, and at most [MaxQueued] bytes of
// events that its client has not read. A client that lets more gather is cut
// off; everyone else goes on undisturbed.
package jsonrpc
