package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Going to the background means running the same command again in a session
// of its own, since a Go process cannot fork. The child says over a pipe when
// it is up; its error messages still come to our stderr until then.

// backgroundEnv marks the child and holds the number of its end of the pipe.
const backgroundEnv = "QMPBLOCK_READY_FD"

func inBackground() bool { return os.Getenv(backgroundEnv) != "" }

// forkBackground starts the child and waits until it is up or has failed; its
// fate is our exit status.
func (p *program) forkBackground() int {
	child, ready, err := startChild()
	if err != nil {
		p.complain("%s", err)
		return 1
	}
	defer ready.Close()
	if n, _ := io.ReadFull(ready, make([]byte, 1)); n == 1 {
		// It lives on without us.
		_ = child.Process.Release()
		return 0
	}
	if err := child.Wait(); err != nil {
		return max(child.ProcessState.ExitCode(), 1)
	}
	return 1
}

func startChild() (*exec.Cmd, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	child := exec.Command(self, os.Args[1:]...)
	child.Args[0] = os.Args[0]
	child.Stderr = os.Stderr
	child.ExtraFiles = append(inheritable(), w)
	child.Env = append(os.Environ(), backgroundEnv+"="+strconv.Itoa(firstExtraFD+len(child.ExtraFiles)-1))
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		r.Close()
		return nil, nil, err
	}
	return child, r, nil
}

// firstExtraFD is the number that a child's first extra file gets.
const firstExtraFD = 3

// inheritable lists the descriptors that our parent left us, each at the place
// where it keeps its number: options like fd=5 refer to it.
func inheritable() []*os.File {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var files []*os.File
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < firstExtraFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		for len(files) <= fd-firstExtraFD {
			files = append(files, nil)
		}
		files[fd-firstExtraFD] = os.NewFile(uintptr(fd), e.Name())
	}
	return files
}

// tellParentReady ends the time in which the parent waits, and with it the tie
// to its terminal and folder. In the foreground it does nothing.
func tellParentReady() error {
	fd, err := strconv.Atoi(os.Getenv(backgroundEnv))
	if err != nil {
		return nil
	}
	os.Unsetenv(backgroundEnv)
	if err := os.Chdir("/"); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for std := range firstExtraFD {
		if err := unix.Dup2(int(null.Fd()), std); err != nil {
			return err
		}
	}
	ready := os.NewFile(uintptr(fd), "ready")
	defer ready.Close()
	_, err = ready.Write([]byte{0})
	return err
}
