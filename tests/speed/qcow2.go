package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const (
	// clusterSize is what qemu-img create takes by default.
	clusterSize = 64 << 10
	// emptySize is the length of an image that writes allocate in, of which
	// a turn fills allocations clusters.
	emptySize   = 16 << 30
	allocations = 8000

	// A chain has chainLength images. Each but the lowest, which is full, has
	// its share of a disk in pieces of 1 MiB.
	chainLength = 8
	chainSize   = 256 << 20

	hugeSize = 64 << 40
	openings = 100
)

// qcow2Works are about the data path through the format, to the same clients
// as that of raw images.
func qcow2Works(dir string) []work {
	var (
		full  = qcow2Image{filepath.Join(dir, "full.qcow2"), fullDisk}
		empty = qcow2Image{filepath.Join(dir, "empty.qcow2"), blankDisk(emptySize)}
		chain = qcow2Image{filepath.Join(dir, "chain.qcow2"), backingChain}
		huge  = qcow2Image{filepath.Join(dir, "huge.qcow2"), blankDisk(hugeSize)}
	)
	const block, large = 4 << 10, 1 << 20
	step := []string{"-w", "-S", strconv.Itoa(clusterSize)}
	return []work{
		{"qcow2, 4 KiB random reads at depth 1", full.exported(fio("randread", 1, 1, diskSize)), thousands, rate},
		{"qcow2, 4 KiB random writes at depth 1", full.exported(fio("randwrite", 1, 1, diskSize)), thousands, rate},
		{"qcow2, 4 KiB random reads at depth 16", full.exported(fio("randread", 1, 16, diskSize)), thousands, rate},
		{"qcow2, 4 KiB random writes at depth 16", full.exported(fio("randwrite", 1, 16, diskSize)), thousands, rate},
		{"qcow2, 1 MiB reads at depth 4", full.exported(imgBench(4, large, largeCount)), mebibytesPerSecond, rate},
		{"qcow2, 1 MiB writes at depth 4", full.exported(imgBench(4, large, largeCount, "-w")), mebibytesPerSecond, rate},
		{"qcow2, allocating writes of 4 KiB at depth 1", empty.copied(imgBench(1, block, allocations, step...)), thousands, rate},
		{"qcow2, allocating writes of 4 KiB at depth 16", empty.copied(imgBench(16, block, allocations, step...)), thousands, rate},
		{"qcow2, allocating writes of 64 KiB at depth 1", empty.copied(imgBench(1, clusterSize, allocations, step...)), thousands, rate},
		{"qcow2, allocating writes of 64 KiB at depth 16", empty.copied(imgBench(16, clusterSize, allocations, step...)), thousands, rate},
		{fmt.Sprintf("qcow2, 4 KiB random reads through %d images at depth 1", chainLength), chain.exported(fio("randread", 1, 1, chainSize)), thousands, rate},
		{fmt.Sprintf("qcow2, 4 KiB random reads through %d images at depth 16", chainLength), chain.exported(fio("randread", 1, 16, chainSize)), thousands, rate},
		{"blockdev-add + blockdev-del of a qcow2 image of 64 TiB", huge.made(with(opens(huge))), micros, faster},
	}
}

// qcow2Image is an image that the reference's tools make.
type qcow2Image struct {
	path string
	make func(path string) error
}

// blankDisk makes an image with nothing in it.
func blankDisk(size int64) func(string) error {
	return func(path string) error {
		_, err := runTool(qemuImg(), "create", "-q", "-f", "qcow2", path, strconv.FormatInt(size, 10))
		return err
	}
}

// fullDisk makes an image whose clusters are all allocated.
func fullDisk(path string) error { return filledDisk(path, diskSize, diskSize) }

// filledDisk makes an image that has as many bytes of content, spread evenly.
func filledDisk(path string, size, data int64) error {
	source := image{path + ".raw", size, data}
	defer os.Remove(source.path)
	if err := source.prepare(); err != nil {
		return err
	}
	_, err := runTool(qemuImg(), "convert", "-f", "raw", "-O", "qcow2", source.path, path)
	return err
}

// backingChain makes the images of a chain, the highest of which is at path.
func backingChain(path string) error {
	const piece = 1 << 20
	layer := func(k int) string { return fmt.Sprintf("%s.%d", path, k) }
	if err := filledDisk(layer(0), chainSize, chainSize); err != nil {
		return err
	}
	for k := 1; k < chainLength; k++ {
		if _, err := runTool(qemuImg(), "create", "-q", "-f", "qcow2", "-b", layer(k-1), "-F", "qcow2", layer(k)); err != nil {
			return err
		}
		args := []string{"-f", "qcow2"}
		for at := k * piece; at < chainSize; at += chainLength * piece {
			args = append(args, "-c", fmt.Sprintf("write -q -P %d %d %d", k, at, piece))
		}
		if _, err := runTool(qemuTool("qemu-io"), append(args, layer(k))...); err != nil {
			return err
		}
	}
	return os.Rename(layer(chainLength-1), path)
}

// made gives a work an image, which is made at the first time.
func (m qcow2Image) made(do func(string) (float64, error)) func(string) (float64, error) {
	return func(path string) (float64, error) {
		if _, err := os.Stat(m.path); err != nil {
			if err := m.make(m.path); err != nil {
				return 0, err
			}
		}
		if err := sync(m.path); err != nil {
			return 0, err
		}
		return do(path)
	}
}

// exported gives a work a daemon that exports the image.
func (m qcow2Image) exported(do func(*instance) (float64, error)) func(string) (float64, error) {
	return m.made(with(func(i *instance) (float64, error) {
		if err := i.export(m.path, "qcow2"); err != nil {
			return 0, err
		}
		return do(i)
	}))
}

// copied is exported with a copy of the image for each turn.
func (m qcow2Image) copied(do func(*instance) (float64, error)) func(string) (float64, error) {
	return m.made(with(func(i *instance) (float64, error) {
		content, err := os.ReadFile(m.path)
		if err != nil {
			return 0, err
		}
		fresh := filepath.Join(i.dir, filepath.Base(m.path))
		if err := os.WriteFile(fresh, content, 0o644); err != nil {
			return 0, err
		}
		if err := i.export(fresh, "qcow2"); err != nil {
			return 0, err
		}
		return do(i)
	}))
}

// sync waits until a file is on the disk, so that no turn pays for the one
// before.
func sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// opens returns the seconds that adding and deleting an image takes.
func opens(m qcow2Image) func(*instance) (float64, error) {
	add := fmt.Appendf(nil, `{"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":%q}}}`+"\n", m.path)
	remove := []byte(`{"execute":"blockdev-del","arguments":{"node-name":"n"}}` + "\n")
	return func(i *instance) (float64, error) {
		return each(openings, func(int) error {
			if _, err := i.do(add); err != nil {
				return err
			}
			_, err := i.do(remove)
			return err
		})
	}
}
