package nbd_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killedDisk is an image whose daemon is killed in the midst of commands.
type killedDisk struct {
	*killed
	// sizes are what the disk's length may be: the last that was answered, and
	// one that was asked for.
	sizes []int
	// content is what the disk holds; what was cut off reads as zeroes when it
	// grows again.
	content []byte
	// shortest is the shortest that was asked for since content was read.
	shortest int
}

const (
	killedDiskUnit = 64 << 10
	killedDiskMost = 48 // units
)

// TestKilledCommands kills the daemon while it resizes the disk, takes and
// deletes snapshots, adds and removes bitmaps, opens and closes the image.
func TestKilledCommands(t *testing.T) {
	t.Parallel()
	for _, v := range killedImages {
		if v.placed {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			need(t, "qemu-img")
			k := &killedDisk{killed: &killed{t: t, v: v, dir: shortDir(t), snapshots: make(map[string]*keptSnapshot)}}
			k.create()
			k.content, k.sizes = k.base, []int{v.size}
			r := rand.New(rand.NewPCG(*seed, uint64(v.size)))
			for round := range *kills {
				k.write(r)
				k.commands(r)
				k.look(r)
				if t.Failed() {
					t.Fatalf("in round %d of seed %d", round, *seed)
				}
			}
		})
	}
}

// write has the reference write to the disk.
func (k *killedDisk) write(r *rand.Rand) {
	args := []string{"--object", killedSecret, "--image-opts"}
	for range 1 + r.IntN(6) {
		offset := r.IntN(len(k.content)) / 512 * 512
		n := min(len(k.content)-offset, 512*(1+r.IntN(400)))
		value := byte(1 + r.IntN(255))
		args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", value, offset, n))
		copy(k.content[offset:], bytes.Repeat([]byte{value}, n))
	}
	must(k.t, k.dir, "qemu-io", append(args, k.options())...)
}

// commands runs commands and kills the daemon while it carries one out.
func (k *killedDisk) commands(r *rand.Rand) {
	d := k.start()
	m := k.monitor()
	defer m.Close()
	k.must(m, `{"execute":"block-export-del","arguments":{"id":"e","mode":"hard"}}`)
	k.shortest = len(k.content)
	for range 1 + r.IntN(12) {
		command, answered := k.command(r)
		desc, err := m.do(command)
		if err != nil {
			k.t.Fatalf("%s: %v\n%s", command, err, d.Output())
		}
		answered(desc)
	}
	command, _ := k.command(r)
	if _, err := m.Write([]byte(command)); err != nil {
		k.t.Fatal(err)
	}
	// Nothing is awaited: it is to be killed at any moment.
	time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
	signal(k.t, d, syscall.SIGKILL)
	if _, err := d.Wait(patience); err != nil {
		k.t.Fatal(err)
	}
}

func (k *killedDisk) must(m *monitor, command string) {
	if desc, err := m.do(command); err != nil || desc != "" {
		k.t.Fatalf("%s: %s, %v", command, desc, err)
	}
}

// command makes up a command, and what to do when it is answered.
func (k *killedDisk) command(r *rand.Rand) (text string, answered func(desc string)) {
	name := fmt.Sprint("s", r.IntN(3))
	switch kind := r.IntN(10); {
	case kind < 4 || k.v.external() && kind < 8:
		size := killedDiskUnit*(1+r.IntN(killedDiskMost)) + 512*r.IntN(3)
		k.sizes = append(k.sizes, size)
		k.shortest = min(k.shortest, size)
		return fmt.Sprintf(`{"execute":"block_resize","arguments":{"node-name":"q","size":%d}}`, size), func(desc string) {
			k.resized(size, desc)
		}
	case kind < 8 && k.snapshots[name] == nil:
		k.snapshots[name] = &keptSnapshot{start: 1, end: never}
		return `{"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"q","name":"` + name + `"}}`, func(desc string) {
			k.snapshots[name].end = 2
			if desc != "" {
				delete(k.snapshots, name)
				k.refused(desc, k.v.fewUses() && strings.HasSuffix(desc, "Invalid argument"))
			}
		}
	case kind < 8:
		k.snapshots[name].leaving = true
		return `{"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"q","name":"` + name + `"}}`, func(desc string) {
			delete(k.snapshots, name)
			k.refused(desc, false)
		}
	case kind < 9:
		return fmt.Sprintf(`{"execute":"block-dirty-bitmap-add","arguments":{"node":"q","name":"b%d","persistent":true}}`, r.IntN(3)), func(string) {}
	}
	return fmt.Sprintf(`{"execute":"block-dirty-bitmap-remove","arguments":{"node":"q","name":"b%d"}}`, r.IntN(3)), func(string) {}
}

// refused complains of an error, unless it is to be expected.
func (k *killedDisk) refused(desc string, expected bool) {
	if desc != "" && !expected {
		k.t.Errorf("refused: %s", desc)
	}
}

// resized: the disk has its new length, unless that was refused: bitmaps that
// are not consistent keep it, and snapshots of old images do.
func (k *killedDisk) resized(size int, desc string) {
	if desc != "" {
		k.sizes = slices.DeleteFunc(k.sizes, func(s int) bool { return s == size })
		if len(k.sizes) == 0 {
			k.sizes = []int{size}
		}
		return
	}
	k.sizes = []int{size}
}

// look compares what was left behind.
func (k *killedDisk) look(r *rand.Rand) {
	k.settle(r)
	_, corruptions := k.check()
	if corruptions > 0 && k.v.old() {
		_, corruptions = k.repairMarks()
	}
	if corruptions > 0 {
		out, _ := k.img("check")
		k.t.Fatalf("qemu-img check: %s", out)
	}
	k.lookForSnapshots()
	must(k.t, k.dir, "qemu-img", "convert", "--object", killedSecret, "--image-opts", "-O", "raw", k.options(), "read")
	got, err := os.ReadFile(k.dir + "/read")
	if err != nil {
		k.t.Fatal(err)
	}
	if !slices.Contains(k.sizes, len(got)) {
		k.t.Fatalf("the disk has %d bytes, may have %d", len(got), k.sizes)
	}
	for i, b := range got {
		switch {
		case i < k.shortest && i < len(k.content) && b != k.content[i]:
			k.t.Fatalf("byte %#x of %#x is %#x, want %#x", i, len(got), b, k.content[i])
		case i >= k.shortest && b != 0 && (i >= len(k.content) || b != k.content[i]):
			k.t.Fatalf("byte %#x of %#x is %#x, and was never written", i, len(got), b)
		}
	}
	k.content, k.sizes = got, []int{len(got)}
}

// lookForSnapshots wants those that must be there, and no others.
func (k *killedDisk) lookForSnapshots() {
	found := k.snapshotsFound()
	for name, s := range k.snapshots {
		if !found[name] && s.end < never && !s.leaving {
			k.t.Errorf("snapshot %s is lost", name)
		}
	}
	clear(k.snapshots)
	for name := range found {
		k.snapshots[name] = &keptSnapshot{start: 1, end: 2}
	}
}
