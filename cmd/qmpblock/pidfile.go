package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// pidFile holds the process ID, and a lock on itself as long as the process
// lives, so that two daemons cannot share it.
type pidFile struct {
	path string
	file *os.File
}

func createPidFile(path string) (*pidFile, error) {
	// A process in the background changes its folder.
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, cannotCreate(err)
	}
	f, err := openLocked(path)
	for err == nil && !names(path, f) {
		// Its last owner has just removed it, and with it our lock.
		f.Close()
		f, err = openLocked(path)
	}
	if err != nil {
		return nil, cannotCreate(err)
	}
	if err := writePid(f); err != nil {
		f.Close()
		return nil, cannotCreate(qerr.Prepend(err, "Failed to write pid file: "))
	}
	return &pidFile{absolute, f}, nil
}

func openLocked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, qerr.Prepend(err, "Could not create '%s': ", path)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 0, Len: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
		f.Close()
		return nil, qerr.Prepend(err, "Cannot lock pid file: ")
	}
	return f, nil
}

// names tells whether a path leads to an open file.
func names(path string, f *os.File) bool {
	there, err := os.Stat(path)
	if err != nil {
		return false
	}
	open, err := f.Stat()
	return err == nil && os.SameFile(there, open)
}

func cannotCreate(err error) error { return qerr.Prepend(err, "cannot create PID file: ") }

func writePid(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(f, "%d\n", os.Getpid())
	return err
}

func (p *pidFile) remove() {
	if p != nil {
		os.Remove(p.path)
		p.file.Close()
	}
}
