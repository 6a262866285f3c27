package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// How much a turn moves: a second or so, a few where the disk is slow.
const (
	diskSize   = 1 << 30
	smallCount = 20000 // requests of 4 KiB
	largeCount = 2000  // requests of 1 MiB
	fioSeconds = 2

	sparseSize = 100 << 30
	sparseData = 64 << 20

	idleClients    = 100
	maxConnections = 200
)

// nbdWorks are about the data path: a raw image in the page cache, exported
// over a UNIX socket to the same client. The images are made in dir.
func nbdWorks(dir string) []work {
	var (
		full   = image{filepath.Join(dir, "full.raw"), diskSize, diskSize}
		source = image{filepath.Join(dir, "source.raw"), diskSize, diskSize}
		sparse = image{filepath.Join(dir, "sparse.raw"), sparseSize, sparseData}
	)
	const block, large = 4 << 10, 1 << 20
	return []work{
		{"NBD, 4 KiB reads at depth 1", exported(full, imgBench(1, block, smallCount)), thousands, rate},
		{"NBD, 4 KiB writes at depth 1", exported(full, imgBench(1, block, smallCount, "-w")), thousands, rate},
		{"NBD, 4 KiB reads at depth 16", exported(full, imgBench(16, block, smallCount)), thousands, rate},
		{"NBD, 4 KiB writes at depth 16", exported(full, imgBench(16, block, smallCount, "-w")), thousands, rate},
		{"NBD, 4 KiB reads at depth 64", exported(full, imgBench(64, block, smallCount)), thousands, rate},
		{"NBD, 4 KiB writes at depth 64", exported(full, imgBench(64, block, smallCount, "-w")), thousands, rate},
		{"NBD, 1 MiB reads at depth 4", exported(full, imgBench(4, large, largeCount)), mebibytesPerSecond, rate},
		{"NBD, 1 MiB writes at depth 4", exported(full, imgBench(4, large, largeCount, "-w")), mebibytesPerSecond, rate},
		{"fio, 4 KiB reads at depth 64", exported(full, fio("randread", 1, 64, diskSize)), thousands, rate},
		{"fio, 4 KiB writes at depth 64", exported(full, fio("randwrite", 1, 64, diskSize)), thousands, rate},
		{"fio, 4 KiB reads of 8 connections at depth 16", exported(full, fio("randread", 8, 16, diskSize)), thousands, rate},
		{"fio, 4 KiB writes of 8 connections at depth 16", exported(full, fio("randwrite", 8, 16, diskSize)), thousands, rate},
		{"nbdcopy of 1 GiB to null:", exported(full, mebibytesOf(full, copyOut)), mebibytesPerSecond, rate},
		{"nbdcopy of 1 GiB from a file", prepared(source, exported(full, mebibytesOf(full, copyIn(source)))), mebibytesPerSecond, rate},
		{"nbdcopy of 64 MiB in sparse 100 GiB to null:", exported(sparse, timed(copyOut)), millis, faster},
		{fmt.Sprintf("memory of %d idle NBD connections", idleClients), exported(full, idle), mebibytes, share},
	}
}

// image is a raw file.
type image struct {
	path string
	size int64
	data int64 // bytes with content, spread evenly in pieces of 1 MiB
}

// prepare makes the image if it is not there yet, and waits until what was
// written to it is on the disk, so that no turn pays for the one before. It
// stays in the page cache.
func (m image) prepare() error {
	f, err := os.OpenFile(m.path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < m.size {
		if err := m.fill(f); err != nil {
			return err
		}
	}
	return f.Sync()
}

func (m image) fill(f *os.File) error {
	const piece = 1 << 20
	content := bytes.Repeat([]byte("qmpblock"), piece/8) // zeroes would be copied as holes
	pieces := m.data / piece
	for k := range pieces {
		if _, err := f.WriteAt(content, m.size/pieces*k); err != nil {
			return err
		}
	}
	return f.Truncate(m.size)
}

// prepared gives a work an image.
func prepared(m image, do func(string) (float64, error)) func(string) (float64, error) {
	return func(path string) (float64, error) {
		if err := m.prepare(); err != nil {
			return 0, err
		}
		return do(path)
	}
}

// exported gives a work a daemon that exports an image.
func exported(m image, do func(*instance) (float64, error)) func(string) (float64, error) {
	return prepared(m, with(func(i *instance) (float64, error) {
		if err := i.export(m.path, "raw"); err != nil {
			return 0, err
		}
		return do(i)
	}))
}

// export shows an image of a format to clients as "x".
func (i *instance) export(path, format string) error {
	for _, request := range []string{
		fmt.Sprintf(`{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"f","filename":%q}}`, path),
		fmt.Sprintf(`{"execute":"blockdev-add","arguments":{"driver":%q,"node-name":"n","file":"f"}}`, format),
		fmt.Sprintf(`{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":%q}},"max-connections":%d}}`, i.nbdSocket(), maxConnections),
		`{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"n","name":"x","writable":true}}`,
	} {
		if _, err := i.do([]byte(request + "\n")); err != nil {
			return err
		}
	}
	return nil
}

func (i *instance) nbdSocket() string { return filepath.Join(i.dir, "nbd.sock") }

func (i *instance) uri() string { return "nbd+unix:///x?socket=" + i.nbdSocket() }

// runTool runs a client program and returns what it printed. That it is not
// installed is an [exec.Error].
func runTool(program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, complaints.Bytes())
	}
	return out, nil
}

// qemuTool is one of the reference's programs, or else the one in PATH.
func qemuTool(name string) string {
	if p, err := daemon.FindReference(); err == nil {
		beside := filepath.Join(filepath.Dir(p.Storage[0]), name)
		if _, err := os.Stat(beside); err == nil {
			return beside
		}
	}
	return name
}

func qemuImg() string { return qemuTool("qemu-img") }

// imgBench returns the requests per second of qemu-img bench.
func imgBench(depth, size, count int, more ...string) func(*instance) (float64, error) {
	args := append([]string{"bench", "-f", "raw", "-d", strconv.Itoa(depth), "-s", strconv.Itoa(size), "-c", strconv.Itoa(count)}, more...)
	return func(i *instance) (float64, error) {
		out, err := runTool(qemuImg(), append(args[:len(args):len(args)], i.uri())...)
		if err != nil {
			return 0, err
		}
		const verdict = "Run completed in "
		_, rest, _ := strings.Cut(string(out), verdict)
		var took float64
		if _, err := fmt.Sscan(rest, &took); err != nil || took <= 0 {
			return 0, fmt.Errorf("qemu-img bench said no %q: %s", verdict, out)
		}
		return float64(count) / took, nil
	}
}

// fio returns the requests per second of random 4 KiB requests to a disk of
// the given size.
func fio(kind string, connections, depth, size int) func(*instance) (float64, error) {
	return func(i *instance) (float64, error) {
		report := filepath.Join(i.dir, "fio.json") // its other output has more than JSON
		_, err := runTool("fio", "--name=speed", "--ioengine=nbd", "--uri="+i.uri(), "--rw="+kind, "--bs=4k", "--size="+strconv.Itoa(size),
			"--numjobs="+strconv.Itoa(connections), "--iodepth="+strconv.Itoa(depth), "--norandommap", "--group_reporting",
			"--time_based", "--runtime="+strconv.Itoa(fioSeconds), "--output-format=json", "--output="+report)
		if err != nil {
			return 0, err
		}
		text, err := os.ReadFile(report)
		if err != nil {
			return 0, err
		}
		var all struct {
			Jobs []struct{ Read, Write struct{ IOPS float64 } }
		}
		if err := json.Unmarshal(text, &all); err != nil || len(all.Jobs) != 1 {
			return 0, fmt.Errorf("fio's report is of no use (%v): %s", err, text)
		}
		return all.Jobs[0].Read.IOPS + all.Jobs[0].Write.IOPS, nil
	}
}

// timed returns the seconds that something takes.
func timed(do func(*instance) error) func(*instance) (float64, error) {
	return func(i *instance) (float64, error) {
		began := time.Now()
		err := do(i)
		return time.Since(began).Seconds(), err
	}
}

// mebibytesOf returns how many MiB of an image's data go through something in
// a second.
func mebibytesOf(m image, do func(*instance) error) func(*instance) (float64, error) {
	return func(i *instance) (float64, error) {
		took, err := timed(do)(i)
		return float64(m.data) / (1 << 20) / took, err
	}
}

func copyOut(i *instance) error {
	_, err := runTool("nbdcopy", i.uri(), "null:")
	return err
}

func copyIn(source image) func(*instance) error {
	return func(i *instance) error {
		_, err := runTool("nbdcopy", source.path, i.uri())
		return err
	}
}

// idle returns the memory that connected clients take who have nothing to do
// after a first read.
func idle(i *instance) (float64, error) {
	before, err := i.resident()
	if err != nil {
		return 0, err
	}
	for range idleClients {
		c, err := enter(i.nbdSocket())
		if err != nil {
			return 0, err
		}
		defer c.Close()
	}
	after, err := i.resident()
	return after - before, err
}

// enter connects to the export and reads a block of it: then the daemon has
// made all that belongs to a client.
func enter(socket string) (net.Conn, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := greetNBD(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func greetNBD(c net.Conn) error {
	const (
		greeting  = 8 + 8 + 2
		described = 8 + 2
		block     = 4096
	)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var hello []byte
	hello = binary.BigEndian.AppendUint32(hello, uint32(nbd.HandshakeFixedNewstyle|nbd.HandshakeNoZeroes))
	hello = append(hello, "IHAVEOPT"...)
	hello = binary.BigEndian.AppendUint32(hello, uint32(nbd.OptExportName))
	hello = binary.BigEndian.AppendUint32(hello, 1)
	hello = append(hello, 'x')
	hello = nbd.Simple.AppendRequest(hello, nbd.Request{Command: nbd.CmdRead, Length: block})
	if _, err := c.Write(hello); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, greeting+described+nbd.SimpleReplySize+block))
	return err
}
