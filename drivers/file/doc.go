// Package file holds the drivers at the bottom of most graphs: they keep a
// node's bytes in a file of the host.
//
//   - file: a regular file;
//   - host_device: a block or character device;
//   - host_cdrom: a CD-ROM drive, which may be empty.
//
// # Descriptors
//
// A node has one open descriptor. It is replaced by another one when options
// change (blockdev-reopen) and, with auto-read-only, whenever the first writer
// comes or the last one goes: until then the file is open for reading only.
// A replacement is opened and locked while a change of the graph is being
// checked, and takes its place when the change is certain. That happens under
// the graph's write lock, so no request ever meets a closed descriptor.
//
// # Locks
//
// What the users of a node do is written into the file's lock table, where
// other processes see it: byte 100+p is locked while permission p is in use,
// byte 200+p while others may not have it; p is 0 for consistent-read, 1
// write, 2 write-unchanged, 3 resize. All locks are read locks, which do not
// exclude one another; whoever wants p looks whether somebody has locked
// 200+p, and whoever wants to keep p to himself looks at 100+p. Since both
// lock first and look afterwards, at least one of two contenders notices. The
// locks belong to the open file description, so two nodes of one process
// over one file are as strange to each other as two processes.
//
// # Requests that block
//
// A request makes its system calls on the goroutine it came on, between
// BeginBlocking and EndBlocking of its coroutine: an event loop has a bound of
// them (thread-pool-max). What the kernel answers from memory is not counted:
// the length, and immediate requests.
//
// # Options
//
//	filename               path; /dev/fdset/N where the graph knows such names
//	locking                on, off, auto (the default: on where the system can)
//	aio                    threads, native, io_uring: requests run in parallel
//	                       whichever is chosen; native demands cache.direct
//	aio-max-batch          accepted, without meaning here
//	drop-cache             forget the page cache when the node becomes active
//	                       again (default on)
//	x-check-cache-dropped  and verify it, slowly
//	pr-manager             refused: there are no persistent reservations
//	cache.direct           O_DIRECT, with the alignments probed
//
// # Limits
//
// Immediate requests are served by regular files without cache.direct, up to
// 256 KiB and, for reads, 16 buffers. SCSI generic devices are treated as
// plain character devices. Vectors of more than eight buffers cost an
// allocation.
package file
