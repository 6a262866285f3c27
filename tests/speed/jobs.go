package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// vastSize is the length of a disk with next to nothing in it.
	vastSize = 1 << 40
	vastData = 16 << 20
)

// jobWorks are about jobs that copy a disk: how long they take from the command
// until the job is gone.
func jobWorks(dir string) []work {
	full := func(format string) disk { return disk{format, filepath.Join(dir, "full."+format), diskSize, diskSize} }
	vast := func(format string) disk { return disk{format, filepath.Join(dir, "vast."+format), vastSize, vastData} }
	var list []work
	for _, c := range []copying{mirrors, backups, streams, commits} {
		for _, f := range c.formats {
			name := fmt.Sprintf("%s of 1 GiB, %s to %s", c.name, f.from, f.to)
			list = append(list, work{name, c.from(full(f.from), f.to, disk.rate), mebibytesPerSecond, rate})
		}
		f := c.formats[len(c.formats)-1]
		name := fmt.Sprintf("%s of 16 MiB in sparse 1 TiB, %s to %s", c.name, f.from, f.to)
		list = append(list, work{name, c.from(vast(f.from), f.to, disk.seconds), millis, faster})
	}
	return list
}

// disk is an image that is copied: data bytes of content, spread evenly.
type disk struct {
	format, path string
	size, data   int64
}

func (d disk) rate(seconds float64) float64 { return float64(d.data) / (1 << 20) / seconds }

func (disk) seconds(s float64) float64 { return s }

// prepare makes the image if it is not there yet.
func (d disk) prepare() error {
	if d.format == "raw" {
		return image{d.path, d.size, d.data}.prepare()
	}
	if _, err := os.Stat(d.path); err != nil {
		if err := filledDisk(d.path, d.size, d.data); err != nil {
			return err
		}
	}
	return sync(d.path)
}

// blank makes an empty image of the same length.
func (d disk) blank(path, format string) error {
	if format == "raw" {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
		return os.Truncate(path, d.size)
	}
	return blankDisk(d.size)(path)
}

// conversion is from the format of one image to that of another.
type conversion struct{ from, to string }

// copying is a kind of job.
type copying struct {
	name    string
	formats []conversion
	// nodes adds the nodes for a job that copies d, as node "source", to the
	// image at path, as node "target".
	nodes func(i *instance, d disk, path, format string) error
	// command starts the job "j".
	command string
	// ready: the job is to be completed when it is ready.
	ready bool
}

var (
	mirrors = copying{
		name:    "blockdev-mirror",
		formats: []conversion{{"raw", "raw"}, {"raw", "qcow2"}, {"qcow2", "qcow2"}},
		nodes:   addPair,
		command: `{"execute":"blockdev-mirror","arguments":{"job-id":"j","device":"source","target":"target","sync":"full"}}`,
		ready:   true,
	}
	backups = copying{
		name:    "blockdev-backup",
		formats: []conversion{{"raw", "raw"}, {"raw", "qcow2"}, {"qcow2", "qcow2"}},
		nodes:   addPair,
		command: `{"execute":"blockdev-backup","arguments":{"job-id":"j","device":"source","target":"target","sync":"full"}}`,
	}
	streams = copying{
		name:    "block-stream",
		formats: []conversion{{"raw", "qcow2"}, {"qcow2", "qcow2"}},
		nodes:   addOverlay,
		command: `{"execute":"block-stream","arguments":{"job-id":"j","device":"target"}}`,
	}
	commits = copying{
		name:    "block-commit",
		formats: []conversion{{"qcow2", "raw"}, {"qcow2", "qcow2"}},
		nodes:   addChain,
		command: `{"execute":"block-commit","arguments":{"job-id":"j","device":"active","top-node":"source","base-node":"target"}}`,
	}
)

// from returns the work of copying a disk into a fresh image of a format.
func (c copying) from(d disk, format string, figure func(disk, float64) float64) func(string) (float64, error) {
	copies := with(func(i *instance) (float64, error) {
		path := filepath.Join(i.dir, "target")
		if err := d.blank(path, format); err != nil {
			return 0, err
		}
		if err := c.nodes(i, d, path, format); err != nil {
			return 0, err
		}
		took, err := timed(c.run)(i)
		return figure(d, took), err
	})
	return func(path string) (float64, error) {
		if err := d.prepare(); err != nil {
			return 0, err
		}
		return copies(path)
	}
}

// run starts the job and waits for its end.
func (c copying) run(i *instance) error {
	const gone = `"status": "null"`
	if !c.ready {
		return i.until(c.command, gone)
	}
	if err := i.until(c.command, `"BLOCK_JOB_READY"`); err != nil {
		return err
	}
	return i.until(`{"execute":"block-job-complete","arguments":{"device":"j"}}`, gone)
}

// until sends a request and reads messages until one has a text in it. That
// something failed is an error.
func (c *client) until(request, text string) error {
	messages, err := c.ask([]byte(request + "\n"))
	for err == nil {
		switch {
		case bytes.Contains(messages, []byte(`"error"`)):
			return fmt.Errorf("%s: %s", request, bytes.TrimSpace(messages))
		case bytes.Contains(messages, []byte(text)):
			return nil
		}
		messages, err = c.line()
	}
	return err
}

func addPair(i *instance, d disk, path, format string) error {
	if err := i.add("source", d.format, d.path, ""); err != nil {
		return err
	}
	return i.add("target", format, path, "")
}

func addOverlay(i *instance, d disk, path, format string) error {
	if err := i.add("source", d.format, d.path, ""); err != nil {
		return err
	}
	return i.add("target", format, path, `,"backing":"source"`)
}

// addChain puts source over target, and an empty image over both.
func addChain(i *instance, d disk, path, format string) error {
	active := filepath.Join(i.dir, "active")
	if err := d.blank(active, "qcow2"); err != nil {
		return err
	}
	if err := i.add("target", format, path, ""); err != nil {
		return err
	}
	if err := i.add("source", d.format, d.path, `,"backing":"target"`); err != nil {
		return err
	}
	return i.add("active", "qcow2", active, `,"backing":"source"`)
}

// add adds an image. More are further options.
func (i *instance) add(node, format, path, more string) error {
	_, err := i.do(fmt.Appendf(nil, `{"execute":"blockdev-add","arguments":{"driver":%q,"node-name":%q,"file":{"driver":"file","filename":%q}%s}}`+"\n", format, node, path, more))
	return err
}
