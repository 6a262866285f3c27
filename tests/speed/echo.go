package main

import (
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// echoArgument makes this program the echo server, which has to be a process
// of its own to be comparable.
const echoArgument = "echo-server"

// echo serves one client at a UNIX socket: what it reads, it writes.
func echo(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func startEcho() (*instance, error) {
	dir, err := os.MkdirTemp("", "speed")
	if err != nil {
		return nil, err
	}
	i := &instance{dir: dir}
	self, err := os.Executable()
	if err != nil {
		i.stop()
		return nil, err
	}
	socket := filepath.Join(dir, "echo.sock")
	if i.process, err = daemon.Start([]string{self, echoArgument, socket}, dir, os.Environ()); err == nil {
		i.client, err = dial(socket, i.process.Done())
	}
	if err != nil {
		i.stop()
		return nil, err
	}
	return i, nil
}
