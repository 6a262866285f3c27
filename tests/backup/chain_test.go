// Package backup_test makes backups as a tool does that drives the program for
// weeks: a chain of increments by a bitmap that the image keeps, with the
// program stopped and started in between.
package backup_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/nbd"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// patience bounds what should take milliseconds.
const patience = time.Minute

const (
	steps    = 20
	diskSize = 8<<20 + 512
)

// ours builds the program.
func ours(t *testing.T) *daemon.Program {
	t.Helper()
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	p, err := daemon.Ours(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Twenty increments, each made by a program that was started for it, restore
// the disk as it was at each of them. Writes never stop while a backup is made,
// and some of the backups are given up half-way.
func TestChain(t *testing.T) {
	t.Parallel()
	p := ours(t)
	testChain(t, func(int) *daemon.Program { return p })
}

// The same if every other step is done by the reference: what one of the two
// stores is good for the other.
func TestChainByTurns(t *testing.T) {
	t.Parallel()
	programs := []*daemon.Program{ours(t), daemon.Reference(t)}
	testChain(t, func(step int) *daemon.Program { return programs[step%2] })
}

func testChain(t *testing.T, program func(step int) *daemon.Program) {
	c := newChain(t)
	for step := range steps + 1 {
		s := c.start(program(step))
		if step == 0 {
			s.create("disk", 0, "")
		}
		s.open()
		if step > 0 {
			c.write(30)
		}
		if step%5 == 3 {
			s.giveUp(step)
			c.write(3)
		}
		s.backUp(step)
		s.quit()
	}
	for step := range c.copies {
		c.restore(step)
	}
	t.Run("reference", func(t *testing.T) {
		img := filepath.Join(filepath.Dir(daemon.Reference(t).Storage[0]), "qemu-img")
		for step := range c.copies {
			c.compare(t, img, step)
		}
	})
}

// chain is a disk and its backups, images in a folder.
type chain struct {
	t      *testing.T
	dir    string
	bench  *drivertest.Bench
	random *rand.Rand
	// model is what the disk should hold, copies what it held at each backup.
	model  []byte
	copies [][]byte
}

func newChain(t *testing.T) *chain {
	dir, err := os.MkdirTemp("", "q") // short enough for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &chain{
		t: t, dir: dir, bench: drivertest.New(t, file.Driver(), nbd.Driver(), qcow2.Driver()),
		random: rand.New(rand.NewPCG(1, 2)), model: make([]byte, diskSize),
	}
}

func (c *chain) path(name string) string { return filepath.Join(c.dir, name) }

func increment(step int) string { return fmt.Sprintf("backup-%d", step) }

// write changes the disk as a guest does, through an export.
func (c *chain) write(times int) {
	c.t.Helper()
	n := c.bench.Add(fmt.Sprintf(`{"driver":"nbd","node-name":"guest","export":"disk","server":{"type":"unix","path":%q}}`, c.path("nbd.sock")))
	user := c.bench.Use(n)
	for range times {
		if err := c.change(user); err != nil {
			c.t.Fatal(err)
		}
	}
	c.bench.Drop(user)
	c.bench.Delete("guest")
}

func (c *chain) change(user *block.Backend) error {
	offset := c.random.Int64N(diskSize / 512)
	count := min(1+c.random.Int64N(200), diskSize/512-offset)
	area := c.model[offset*512:][:count*512]
	clear(area)
	if c.random.IntN(4) == 0 {
		return user.PwriteZeroes(aio.Outside, offset*512, count*512, 0)
	}
	for i := range area {
		area[i] = byte(c.random.Uint32())
	}
	return user.Pwritev(aio.Outside, offset*512, block.Vec{bytes.Clone(area)}, 0)
}

// restore reads the disk as it was backed up in a step.
func (c *chain) restore(step int) {
	c.t.Helper()
	n := c.bench.Add(fmt.Sprintf(`{"driver":"qcow2","node-name":"restored","read-only":true,"file":{"driver":"file","filename":%q}}`,
		c.path(increment(step))))
	user, err := c.bench.TryUse(n, block.PermConsistentRead, block.PermAll)
	if err != nil {
		c.t.Fatal(err)
	}
	got := make([]byte, diskSize)
	if err := user.Preadv(aio.Outside, 0, block.Vec{got}); err != nil {
		c.t.Fatal(err)
	}
	for at := range got {
		if got[at] != c.copies[step][at] {
			c.t.Fatalf("the backup of step %d differs from offset %d on", step, at)
		}
	}
	c.bench.Drop(user)
	c.bench.Delete("restored")
}

// compare has the reference check a backup and compare it with the copy.
func (c *chain) compare(t *testing.T, img string, step int) {
	t.Helper()
	path := c.path("copy")
	if err := os.WriteFile(path, c.copies[step], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "-f", "qcow2", c.path(increment(step))},
		{"compare", "-f", "raw", "-F", "qcow2", path, c.path(increment(step))},
	} {
		if out, err := exec.Command(img, args...).CombinedOutput(); err != nil {
			t.Errorf("step %d: qemu-img %s: %v\n%s", step, args[0], err, out)
		}
	}
}

// server is a program that runs for one step.
type server struct {
	*chain
	process *daemon.Process
	conn    net.Conn
	in      *bufio.Reader
}

func (c *chain) start(p *daemon.Program) *server {
	c.t.Helper()
	command := append(p.Storage[:len(p.Storage):len(p.Storage)],
		"--chardev", "socket,id=c0,path=qmp.sock,server=on,wait=off", "--monitor", "c0")
	process, err := daemon.Start(command, c.dir, os.Environ())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(process.Kill)
	if err := process.AwaitSocket(c.path("qmp.sock"), patience); err != nil {
		c.t.Fatal(err)
	}
	conn, err := net.Dial("unix", c.path("qmp.sock"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	s := &server{chain: c, process: process, conn: conn, in: bufio.NewReader(conn)}
	s.read()
	s.run("qmp_capabilities", `{}`)
	return s
}

// message is what the program says.
type message struct {
	Return json.RawMessage
	Error  *struct{ Desc string }
	Event  string
	Data   struct{ ID, Device, Status, Error string }
}

func (s *server) read() (m message) {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	line, err := s.in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &m)
	}
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.process.Output())
	}
	return m
}

// run runs a command, which must succeed, and returns the events that came
// before its reply.
func (s *server) run(command, arguments string) (events []message) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.conn, `{"execute": %q, "arguments": %s}`, command, arguments); err != nil {
		s.t.Fatal(err)
	}
	for {
		m := s.read()
		switch {
		case m.Error != nil:
			s.t.Fatalf("%s %s: %s", command, arguments, m.Error.Desc)
		case m.Event == "":
			return events
		}
		events = append(events, m)
	}
}

// finish waits until a job is concluded and dismisses it.
func (s *server) finish(events []message) {
	s.t.Helper()
	for {
		for _, m := range events {
			if m.Event == "BLOCK_JOB_COMPLETED" && m.Data.Error != "" {
				s.t.Fatalf("job %s: %s", m.Data.Device, m.Data.Error)
			}
			if m.Event == "JOB_STATUS_CHANGE" && m.Data.Status == "concluded" {
				s.run("job-dismiss", fmt.Sprintf(`{"id": %q}`, m.Data.ID))
				return
			}
		}
		events = []message{s.read()}
	}
}

// create makes an image, over a backing file if there is one.
func (s *server) create(name string, step int, backing string) {
	s.t.Helper()
	s.finish(s.run("blockdev-create", fmt.Sprintf(`{"job-id": "create", "options": {"driver": "file", "filename": %q, "size": 0}}`, name)))
	s.run("blockdev-add", fmt.Sprintf(`{"driver": "file", "node-name": "new", "filename": %q}`, name))
	options := fmt.Sprintf(`"driver": "qcow2", "file": "new", "size": %d, "cluster-size": %d`, diskSize, 65536>>(step%3))
	if backing != "" {
		options += fmt.Sprintf(`, "backing-file": %q, "backing-fmt": "qcow2"`, backing)
	}
	s.finish(s.run("blockdev-create", fmt.Sprintf(`{"job-id": "create", "options": {%s}}`, options)))
	s.run("blockdev-del", `{"node-name": "new"}`)
}

// open opens the disk and shows it to the guest.
func (s *server) open() {
	s.t.Helper()
	s.run("blockdev-add", `{"driver": "qcow2", "node-name": "disk", "file": {"driver": "file", "filename": "disk"}}`)
	s.run("nbd-server-start", `{"addr": {"type": "unix", "data": {"path": "nbd.sock"}}}`)
	s.run("block-export-add", `{"type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": true}`)
}

// target makes the image of a step's backup, over that of the step before, and
// opens it.
func (s *server) target(step int) {
	s.t.Helper()
	backing := ""
	if step > 0 {
		backing = increment(step - 1)
	}
	s.create(increment(step), step, backing)
	s.run("blockdev-add", fmt.Sprintf(`{"driver": "qcow2", "node-name": "target", "file": {"driver": "file", "filename": %q}}`, increment(step)))
}

// backUp makes the backup of a step: the first is whole and begins the bitmap,
// the others have what the bitmap says.
func (s *server) backUp(step int) {
	s.t.Helper()
	s.target(step)
	s.copies = append(s.copies, bytes.Clone(s.model))
	var events []message
	if step == 0 {
		events = s.run("transaction", `{"actions": [
			{"type": "block-dirty-bitmap-add", "data": {"node": "disk", "name": "bm", "persistent": true}},
			{"type": "blockdev-backup", "data": {"job-id": "backup", "device": "disk", "target": "target", "sync": "full", "auto-dismiss": false}}]}`)
	} else {
		events = s.run("blockdev-backup", `{"job-id": "backup", "device": "disk", "target": "target", "sync": "incremental", "bitmap": "bm", "auto-dismiss": false}`)
	}
	s.write(10)
	s.finish(events)
	s.run("blockdev-del", `{"node-name": "target"}`)
}

// giveUp starts the backup of a step and cancels it while the guest writes.
func (s *server) giveUp(step int) {
	s.t.Helper()
	s.target(step)
	s.run("blockdev-backup", `{"job-id": "backup", "device": "disk", "target": "target", "sync": "incremental", "bitmap": "bm", "speed": 1, "auto-dismiss": false}`)
	s.write(10)
	s.finish(s.run("job-cancel", `{"id": "backup"}`))
	s.run("blockdev-del", `{"node-name": "target"}`)
}

// quit stops the program, which stores the bitmap.
func (s *server) quit() {
	s.t.Helper()
	s.run("quit", `{}`)
	if status, err := s.process.Wait(patience); err != nil || status != 0 {
		s.t.Fatalf("it ended with status %d, %v\n%s", status, err, s.process.Output())
	}
}
