// Package jobs_test kills the program in the midst of jobs and looks at what they
// leave behind.
package jobs_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var (
	kills = flag.Int("kills", 8, "how often each job is killed")
	seed  = flag.Uint64("seed", 1, "what the random content and the moments begin with")
)

// diskSize is the length of the disks, in bytes; not a whole number of clusters.
const diskSize = 6<<20 + 512

// jobs are those that are killed, in a chain base, mid, top: how they are started,
// and what they may change.
var killedJobs = []struct {
	name, command string
	// ready: the job waits to be completed.
	ready bool
}{
	{name: "stream", command: `{"execute":"block-stream","arguments":{"job-id":"j","device":"top"}}`},
	{name: "stream-base", command: `{"execute":"block-stream","arguments":{"job-id":"j","device":"top","base-node":"base"}}`},
	{name: "commit", command: `{"execute":"block-commit","arguments":{"job-id":"j","device":"top","top-node":"mid","base-node":"base"}}`},
	{name: "commit-active", ready: true, command: `{"execute":"block-commit","arguments":{"job-id":"j","device":"top","base-node":"mid"}}`},
	{name: "mirror", ready: true, command: `{"execute":"blockdev-mirror","arguments":{"job-id":"j","device":"top","target":"copy","sync":"full"}}`},
	{name: "mirror-blocking", ready: true, command: `{"execute":"blockdev-mirror","arguments":{"job-id":"j","device":"top","target":"copy","sync":"full","copy-mode":"write-blocking"}}`},
	{name: "backup", command: `{"execute":"blockdev-backup","arguments":{"job-id":"j","device":"top","target":"copy","sync":"full"}}`},
	{name: "backup-discard", command: `{"execute":"blockdev-backup","arguments":{"job-id":"j","device":"other","target":"copy","sync":"full","discard-source":true}}`},
}

// program builds ours, once.
var program = sync.OnceValues(func() (*daemon.Program, error) {
	root, err := daemon.Root()
	if err != nil {
		return nil, err
	}
	return daemon.Ours(root, folder)
})

// folder is where it is built.
var folder string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if folder, err = os.MkdirTemp("", "qmpblock"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	return m.Run()
}

// A disk reads the same whenever a job on it is killed, or told to end, and no
// image has more than leaks.
func TestKilled(t *testing.T) {
	t.Parallel()
	img := filepath.Join(filepath.Dir(daemon.Reference(t).Storage[0]), "qemu-img")
	p, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for i, j := range killedJobs {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(*seed, uint64(i)))
			for round := range *kills {
				c := &chain{t: t, dir: t.TempDir(), img: img}
				c.create(r)
				c.kill(p, j.command, j.ready, r)
				c.look()
				if t.Failed() {
					t.Fatalf("in round %d of seed %d", round, *seed)
				}
			}
		})
	}
}

// chain is base, mid and top, images one over the other; other and copy are two
// more.
type chain struct {
	t        *testing.T
	dir, img string
	content  []byte // of the disk that is top
}

var images = []string{"base", "mid", "top", "other", "copy"}

// create makes the images with random content.
func (c *chain) create(r *rand.Rand) {
	for i, name := range images {
		args := []string{"create", "-q", "-f", "qcow2", "-o", "cluster_size=" + []string{"4k", "64k"}[r.IntN(2)]}
		if i == 1 || i == 2 {
			args = append(args, "-b", images[i-1], "-F", "qcow2")
		}
		c.run(c.img, append(args, name, fmt.Sprint(diskSize))...)
		if name == "copy" {
			continue
		}
		var writes []string
		for range 5 + r.IntN(20) {
			offset := r.IntN(diskSize/512) * 512
			length := min(diskSize-offset, 512*(1+r.IntN(1000)))
			command := fmt.Sprintf("write -P %d %d %d", 1+r.IntN(255), offset, length)
			if r.IntN(5) == 0 {
				command = fmt.Sprintf("write -z %d %d", offset, length)
			}
			writes = append(writes, "-c", command)
		}
		c.run(filepath.Join(filepath.Dir(c.img), "qemu-io"), append(writes, name)...)
	}
	c.content = c.read()
}

func (c *chain) run(name string, args ...string) []byte {
	c.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// read is what the disk holds.
func (c *chain) read() []byte {
	c.t.Helper()
	c.run(c.img, "convert", "-O", "raw", "top", "read")
	content, err := os.ReadFile(filepath.Join(c.dir, "read"))
	if err != nil {
		c.t.Fatal(err)
	}
	return content
}

// kill starts a job and ends the program at any moment from then on.
func (c *chain) kill(p *daemon.Program, command string, ready bool, r *rand.Rand) {
	c.t.Helper()
	var options []string
	for i, name := range images {
		node := fmt.Sprintf(`{"driver":"qcow2","node-name":%q,"discard":"unmap","file":{"driver":"file","filename":%q}`, name, name)
		if i == 1 || i == 2 {
			node += fmt.Sprintf(`,"backing":%q`, images[i-1])
		}
		options = append(options, "--blockdev", node+"}")
	}
	m := p.StorageMonitor(c.t, c.dir, options...)
	m.Send([]byte(command))
	if ready && r.IntN(2) == 0 {
		c.await(m, "BLOCK_JOB_READY")
		m.Send([]byte(`{"execute":"job-complete","arguments":{"id":"j"}}`))
	}
	// Nothing is awaited: it is to be killed at any moment.
	time.Sleep(time.Duration(r.IntN(30000)) * time.Microsecond)
	if r.IntN(4) == 0 {
		if err := m.Process.Stop(); err != nil {
			c.t.Error(err)
		}
		return
	}
	m.Process.Kill()
}

func (c *chain) await(m *daemon.Monitor, event string) {
	c.t.Helper()
	for {
		var message struct {
			Event string
			Error *struct{ Desc string }
		}
		if err := json.Unmarshal(m.Read(), &message); err != nil {
			c.t.Fatal(err)
		}
		switch {
		case message.Error != nil:
			c.t.Fatal(message.Error.Desc)
		case message.Event == event:
			return
		}
	}
}

// look compares what was left behind.
func (c *chain) look() {
	c.t.Helper()
	for _, name := range images {
		cmd := exec.Command(c.img, "check", name)
		cmd.Dir = c.dir
		const leaksOnly = 3
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState.ExitCode() != leaksOnly {
			c.t.Errorf("qemu-img check %s: %v\n%s", name, err, out)
		}
	}
	got := c.read()
	for i := range got {
		if got[i] != c.content[i] {
			c.t.Fatalf("byte %#x is %#x, and was %#x", i, got[i], c.content[i])
		}
	}
	if !bytes.Equal(got, c.content) {
		c.t.Errorf("the disk has %d bytes, and had %d", len(got), len(c.content))
	}
}
