// Package fdset keeps file descriptors that clients passed over a monitor
// socket (SCM_RIGHTS).
//
// # Sets
//
// A file descriptor set is one file, opened by somebody who may, in several
// access modes. It has a number, and a file name that starts with /dev/fdset/
// stands for it: opening /dev/fdset/3 read-only yields a duplicate of the
// descriptor in set 3 that is open read-only. [Sets] holds all of an instance;
// what opens files asks [Sets.Open] first.
//
// A descriptor which is removed is closed at once; duplicates go on working.
// A set exists as long as it has a descriptor or a duplicate is open.
//
// # Names
//
// A monitor also keeps descriptors under names until a command takes one:
// [Named], one for each monitor.
package fdset
