// Package qemuio understands the commands of QEMU's I/O tester: reads and
// writes with patterns, zeroes, discards, flushes and questions about what is
// allocated, on whatever a backend holds. Tests and people reach it through the
// human monitor's command qemu-io ([HMP]); a program can open a [Session].
//
// # Commands
//
// A line is a command and its arguments, separated by spaces; there are no
// quotes. Options come first or last or in between. Numbers are bytes, with a
// fraction and a unit if one likes (4k, 1.5M, 0x200). help lists the commands,
// help COMMAND explains one.
//
// What a command prints is byte for byte what the reference prints, save for
// the times. Commands that begin with aio_ return at once; their outcome is
// printed when it is known, and aio_flush waits for all of them.
//
// # Left out
//
// abort and sigraise would end the program that serves all others, and
// wait_break would wait for ever without a driver that has breakpoints: they
// are refused. Nothing here opens files: a session works on the backend it
// was given.
package qemuio
