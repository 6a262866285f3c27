package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// kind is one of the drivers, seen from what they share.
type kind struct {
	name string
	// openFlags are added to the flags of open(2).
	openFlags int
	// accepts tells whether the driver works with files of the given type
	// (the S_IF constants); wanted says in words with which it does.
	accepts func(fileType uint32) bool
	wanted  string
}

var (
	regularFile = &kind{
		name:    "file",
		accepts: func(t uint32) bool { return t == unix.S_IFREG },
		wanted:  "a regular file",
	}
	hostDevice = &kind{
		name:    "host_device",
		accepts: isDevice,
		wanted:  "either a character or block device",
	}
	// A drive opens without a medium only if it need not wait for one.
	hostCdrom = &kind{
		name:      "host_cdrom",
		openFlags: unix.O_NONBLOCK,
		accepts:   isDevice,
		wanted:    "either a character or block device",
	}
)

func isDevice(fileType uint32) bool {
	return fileType == unix.S_IFCHR || fileType == unix.S_IFBLK
}

func (n *node) checkKind(d *descriptor) error {
	if n.kind.accepts(d.fileType) {
		return nil
	}
	return n.wrongKind()
}

func (n *node) wrongKind() error {
	return qerr.New("'%s' driver requires '%s' to be %s", n.kind.name, n.name, n.kind.wanted)
}
