// Command qmpblock answers QMP as QEMU does, for everything that concerns block
// devices, over real files and without QEMU.
//
//	qmpblock                      serve QMP on ./qmp.sock with one disk to play with
//	qmpblock storage-daemon …     take qemu-storage-daemon's options and answer as it does
//	qmpblock system …             take qemu-system-x86_64's, as far as they concern disks
//	qmpblock io …                 read and write on a node of a running server
//	qmpblock jobs …               show the jobs of a running server
//	qmpblock log-writes …         list and replay a log of the blklogwrites driver
//
// Called under the name qemu-storage-daemon or qemu-system-x86_64 it behaves
// as that program.
package main
