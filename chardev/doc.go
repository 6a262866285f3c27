// Package chardev is character devices: what monitors talk through.
//
// # Backends and frontends
//
// A [Chardev] is made from the options of a [Backend] and has a label, which
// is its name in the object tree below /chardevs. It moves bytes from and to
// somewhere: a socket, a terminal, a file, memory. Who uses the bytes is its
// frontend, one at most: [Chardev.Attach] gives a [Frontend].
//
// Bytes come in connections. A listening socket has one after the other, a
// client waits in the backlog (of one) until the one before has gone; a file
// or a terminal has a single one. [Frontend.Accept] waits for the next
// connection, a [Conn]. The file descriptors which a client passes over a UNIX
// socket are with its Conn, see [Conn.TakeFDs].
//
// A socket accepts a client even while it has no frontend; what the client
// sends waits in the kernel. Reading from and writing to a socket occupies a
// thread while it waits, which makes short answers quicker than sharing one
// thread among all sockets would; there is one reader to a frontend.
//
// # Options
//
// Backends come as Go structs, one for each kind. [ParseLegacy] makes them from
// the text of --chardev.
//
// # What is not here
//
// Sockets speak no telnet, tn3270, WebSocket or TLS and know no vsock addresses:
// such options are refused. A mux has one frontend and passes everything on,
// without the keys by which people switch between several; a hub can be made,
// but cannot carry a frontend. A pseudo-terminal does not notice when the
// program at its other end is replaced by another.
package chardev
