package nbd_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var kills = flag.Int("kills", 2, "how often each image is killed")

// killedImage is an image whose daemon is killed: options of qemu-img create
// and of the node.
type killedImage struct {
	name, create, node string
	size               int
	backing, luks      bool
	// placed: every cluster has its place from the beginning, and is only
	// written to. No metadata changes, so that what was answered is there,
	// flushed or not.
	placed bool
}

var killedImages = []killedImage{
	{name: "default", size: 2 << 20},
	{name: "v2", create: "compat=0.10,cluster_size=4k", size: 1 << 20},
	{name: "512", create: "cluster_size=512", size: 1 << 19},
	{name: "512-refcounts-64", create: "cluster_size=512,refcount_bits=64", size: 1 << 20},
	{name: "2M", create: "cluster_size=2M", size: 8 << 20},
	{name: "refcounts-1", create: "cluster_size=4k,refcount_bits=1", size: 1 << 20},
	{name: "refcounts-4", create: "cluster_size=4k,refcount_bits=4", size: 1 << 20},
	{name: "extended", create: "extended_l2=on,cluster_size=16k", size: 1 << 20},
	{name: "extended-backing", create: "extended_l2=on,cluster_size=32k", size: 1 << 20, backing: true},
	{name: "backing", create: "cluster_size=4k", size: 1 << 20, backing: true},
	{name: "lazy", create: "lazy_refcounts=on,cluster_size=4k", size: 1 << 20},
	{name: "data-file", create: "data_file=DIR/data,cluster_size=4k", size: 1 << 20},
	{name: "data-file-raw", create: "data_file=DIR/data,data_file_raw=on,cluster_size=4k", size: 1 << 20},
	{name: "luks", create: "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10,cluster_size=4k", size: 1 << 20, luks: true},
	{name: "small-caches", create: "cluster_size=512", node: `,"l2-cache-size":4096,"l2-cache-entry-size":512,"refcount-cache-size":2048`, size: 1 << 20},
	{name: "zstd", create: "compression_type=zstd,cluster_size=8k", size: 1 << 20},
	{name: "placed", create: "preallocation=metadata,cluster_size=4k", size: 1 << 20, placed: true},
	{name: "placed-64k", create: "preallocation=full", size: 1 << 20, placed: true},
}

func (v killedImage) external() bool { return strings.Contains(v.create, "data_file") }
func (v killedImage) old() bool      { return strings.Contains(v.create, "compat=0.10") }

// fewUses: clusters cannot be counted often enough for all snapshots.
func (v killedImage) fewUses() bool {
	return strings.HasSuffix(v.create, "refcount_bits=1") || strings.HasSuffix(v.create, "refcount_bits=4")
}

// deed is a request on a sector: what it writes, and when. A discard writes
// zeroes or nothing.
type deed struct {
	value        byte
	discard, fua bool
	start, end   int // end is never if there was no answer
}

const never = 1 << 62

// values adds a deed to what a sector may hold; sure: it has happened.
func (d deed) values(before []byte, sure bool) []byte {
	if sure && !d.discard {
		return []byte{d.value}
	}
	return append(slices.Clone(before), d.value)
}

// keptSnapshot is an internal snapshot: when it was taken, and what it holds
// once somebody has looked.
type keptSnapshot struct {
	start, end int
	content    []byte
	// leaving: it is being deleted.
	leaving bool
}

// killed is an image under writers, whose daemon is killed.
type killed struct {
	t   *testing.T
	v   killedImage
	dir string

	mu  sync.Mutex
	now int
	// base is what the image held when the daemon was started, deeds what
	// each sector has seen since.
	base  []byte
	deeds [][]deed
	// durable is when the last flush began that was answered.
	durable   int
	snapshots map[string]*keptSnapshot
	// leaks are the clusters that have leaked so far.
	leaks int
	// left are the answers until the daemon is killed; enough is closed then.
	left   int
	enough chan struct{}
}

func (k *killed) tick() int {
	k.now++
	return k.now
}

// answered counts an answer. The mutex is held.
func (k *killed) answered() {
	if k.left--; k.left == 0 {
		close(k.enough)
	}
}

// begin picks a request on sectors that no other is under way on; nil if it
// found none.
func (k *killed) begin(r *rand.Rand) (req nbd.Request, value byte, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	size := len(k.deeds)
	unit := []int{1, 8, 32, 128}[r.IntN(4)]
	first := r.IntN(size) / unit * unit
	n := min(size-first, unit*(1+r.IntN(4)))
	for _, sector := range k.deeds[first : first+n] {
		if len(sector) > 0 && sector[len(sector)-1].end == never {
			return req, 0, false
		}
	}
	req = nbd.Request{Command: nbd.CmdWrite, Offset: uint64(first) * 512, Length: uint64(n) * 512}
	d := deed{value: byte(1 + r.IntN(255)), start: k.tick(), end: never}
	kind := r.IntN(10)
	switch {
	case k.v.placed || kind < 6:
	case kind < 8:
		req.Command, d.value = nbd.CmdWriteZeroes, 0
		req.Flags = []nbd.CommandFlags{0, nbd.CmdFlagNoHole}[r.IntN(2)]
	default:
		req.Command, d.value, d.discard = nbd.CmdTrim, 0, true
	}
	if r.IntN(12) == 0 {
		req.Flags |= nbd.CmdFlagFUA
		d.fua = true
	}
	req.Cookie = uint64(d.start)
	for s := first; s < first+n; s++ {
		k.deeds[s] = append(k.deeds[s], d)
	}
	return req, d.value, true
}

func (k *killed) end(req nbd.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered()
	at := k.tick()
	for s := req.Offset / 512; s < (req.Offset+req.Length)/512; s++ {
		k.deeds[s][len(k.deeds[s])-1].end = at
	}
}

// writer changes the disk until its connection ends.
func (k *killed) writer(w *wire, r *rand.Rand) {
	for {
		if r.IntN(10) == 0 {
			if !k.flush(w) {
				return
			}
			continue
		}
		req, value, ok := k.begin(r)
		if !ok {
			continue
		}
		var data []byte
		if req.Command == nbd.CmdWrite {
			data = bytes.Repeat([]byte{value}, int(req.Length))
		}
		if _, err := w.do(req, data); !goesOn(k.t, err) {
			return
		}
		k.end(req)
	}
}

func (k *killed) flush(w *wire) bool {
	k.mu.Lock()
	start := k.tick()
	k.mu.Unlock()
	if !goesOn(k.t, w.flush()) {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered()
	k.durable = max(k.durable, start)
	return true
}

// allowed is what a sector may hold now that the daemon is gone. What was
// answered before a flush began that was answered is there. SIGKILL leaves the
// page cache alone, but what was answered and not flushed may be gone all the
// same: the table that says where a new cluster is was in the daemon's memory.
func (k *killed) allowed(sector, durable int) []byte {
	values := []byte{k.base[sector*512]}
	for _, d := range k.deeds[sector] {
		values = d.values(values, d.end <= durable || d.fua && d.end < never)
	}
	return values
}

// keptBy is what a snapshot may hold that nobody has looked at yet.
func (k *killed) keptBy(s *keptSnapshot, sector int) []byte {
	values := []byte{k.base[sector*512]}
	for _, d := range k.deeds[sector] {
		if d.start < s.end {
			values = d.values(values, d.end <= s.start)
		}
	}
	return values
}

// monitor talks to the daemon's monitor.
type monitor struct {
	net.Conn
	in *bufio.Reader
}

func (k *killed) monitor() *monitor {
	conn, err := net.Dial("unix", filepath.Join(k.dir, "m.sock"))
	if err != nil {
		k.t.Fatal(err)
	}
	m := &monitor{conn, bufio.NewReader(conn)}
	if _, err := m.in.ReadString('\n'); err != nil {
		k.t.Fatal(err)
	}
	if desc, err := m.do(`{"execute":"qmp_capabilities"}`); err != nil || desc != "" {
		k.t.Fatal(desc, err)
	}
	return m
}

// do runs a command. It returns the text of the error that the daemon
// answers with, and an error if it is gone.
func (m *monitor) do(command string) (string, error) {
	if err := m.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := m.Write([]byte(command)); err != nil {
		return "", err
	}
	for {
		line, err := m.in.ReadBytes('\n')
		if err != nil {
			return "", err
		}
		var reply struct {
			Event string
			Error *struct{ Desc string }
		}
		if err := json.Unmarshal(line, &reply); err != nil {
			return "", err
		}
		switch {
		case reply.Event != "":
		case reply.Error != nil:
			return reply.Error.Desc, nil
		default:
			return "", nil
		}
	}
}

// control takes and deletes snapshots, adds and removes bitmaps, runs jobs, until
// the daemon is gone.
func (k *killed) control(m *monitor, r *rand.Rand) {
	for goesOn := true; goesOn; {
		name := fmt.Sprint("s", r.IntN(3))
		switch {
		case r.IntN(6) == 0:
			goesOn = k.job(m, r)
		case k.v.placed || k.v.external() || r.IntN(3) == 0:
			goesOn = k.bitmap(m, r)
		default:
			goesOn = k.snapshot(m, name)
		}
	}
}

// bitmap adds or removes a bitmap. What is there depends on how the daemon
// ended before, so that both may be refused.
func (k *killed) bitmap(m *monitor, r *rand.Rand) bool {
	command := fmt.Sprintf(`{"execute":"block-dirty-bitmap-remove","arguments":{"node":"q","name":"b%d"}}`, r.IntN(3))
	if r.IntN(2) == 0 {
		command = fmt.Sprintf(`{"execute":"block-dirty-bitmap-add","arguments":{"node":"q","name":"b%d","persistent":true,"granularity":%d}}`,
			r.IntN(3), 512<<r.IntN(8))
	}
	desc, err := m.do(command)
	expected := []string{"already exists", "not found", "Cannot store dirty bitmaps in qcow2 v2 files"}
	if desc != "" && !slices.ContainsFunc(expected, func(part string) bool { return strings.Contains(desc, part) }) {
		k.t.Errorf("%s: %s", command, desc)
	}
	return err == nil
}

// job has writes go through the filter of a job, until that has ended or is
// cancelled.
func (k *killed) job(m *monitor, r *rand.Rand) bool {
	commands := []string{
		`{"execute":"blockdev-backup","arguments":{"job-id":"j","device":"q","target":"z","sync":"full"}}`,
		`{"execute":"blockdev-mirror","arguments":{"job-id":"j","device":"q","target":"z","sync":"full"}}`,
		`{"execute":"blockdev-mirror","arguments":{"job-id":"j","device":"q","target":"z","sync":"full","copy-mode":"write-blocking"}}`,
	}
	if k.v.backing {
		commands = append(commands, `{"execute":"block-stream","arguments":{"job-id":"j","device":"q"}}`)
	}
	command := commands[r.IntN(len(commands))]
	desc, err := m.do(command)
	if desc != "" {
		k.t.Errorf("%s: %s", command, desc)
	}
	for n := r.IntN(30); err == nil && desc != "Job not found"; n-- {
		// A mirror goes on until it is told to end.
		verb := `{"execute":"job-pause","arguments":{"id":"j"}}`
		switch {
		case n <= 0:
			verb = `{"execute":"job-cancel","arguments":{"id":"j"}}`
		case n%2 == 1:
			verb = `{"execute":"job-resume","arguments":{"id":"j"}}`
		}
		desc, err = m.do(verb)
	}
	return err == nil
}

func (k *killed) snapshot(m *monitor, name string) bool {
	k.mu.Lock()
	s := k.snapshots[name]
	command := `{"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"q","name":"` + name + `"}}`
	if s != nil {
		s.leaving = true
		command = `{"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"q","name":"` + name + `"}}`
	} else {
		s = &keptSnapshot{start: k.tick(), end: never}
		k.snapshots[name] = s
	}
	k.mu.Unlock()
	desc, err := m.do(command)
	if err != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered()
	if desc != "" && !(k.v.fewUses() && strings.HasSuffix(desc, "Invalid argument")) {
		k.t.Errorf("%s: %s", command, desc)
	}
	if desc != "" || s.leaving {
		delete(k.snapshots, name)
	} else {
		s.end = k.tick()
	}
	return true
}

const (
	killedWriters = 4
	killedSecret  = "secret,id=s0,data=hunter2"
)

// options are those of the image for the reference's tools.
func (k *killed) options() string {
	options := "driver=qcow2,file.driver=file,file.filename=" + k.dir + "/image"
	if k.v.luks {
		options += ",encrypt.key-secret=s0"
	}
	return options
}

// img runs qemu-img on the image.
func (k *killed) img(command string, args ...string) (string, error) {
	args = append([]string{command, "--object", killedSecret, "--image-opts"}, append(args, k.options())...)
	return tool(k.t, k.dir, "qemu-img", args...)
}

// start starts a daemon over the image.
func (k *killed) start() *daemon.Process {
	node := fmt.Sprintf(`{"driver":"qcow2","node-name":"q","discard":"unmap","file":{"driver":"file","filename":"%s/image"}%s`, k.dir, k.v.node)
	if k.v.luks {
		node += `,"encrypt":{"format":"luks","key-secret":"s0"}`
	}
	copies := fmt.Sprintf(`{"driver":"null-co","node-name":"z","read-zeroes":true,"size":%d}`, k.v.size)
	return storage(k.t, ours(k.t), k.dir, "--object", killedSecret, "--blockdev", node+"}", "--blockdev", copies,
		"--nbd-server", "addr.type=unix,addr.path="+k.dir+"/n.sock", "--export", "nbd,id=e,node-name=q,name=x,writable=on")
}

// create makes the image.
func (k *killed) create() {
	options := strings.ReplaceAll(k.v.create, "DIR", k.dir)
	k.base = make([]byte, k.v.size)
	if k.v.backing {
		for i := range k.base[:k.v.size/4*3] {
			k.base[i] = byte(i/4096 + 1)
		}
		if err := os.WriteFile(k.dir+"/base", k.base[:k.v.size/4*3], 0o600); err != nil {
			k.t.Fatal(err)
		}
		options += ",backing_fmt=raw,backing_file=" + k.dir + "/base"
	}
	args := []string{"create", "-q", "--object", killedSecret, "-f", "qcow2"}
	if options != "" {
		args = append(args, "-o", options)
	}
	must(k.t, k.dir, "qemu-img", append(args, "image", fmt.Sprint(k.v.size))...)
}

// TestKilled kills the daemon under writers, and under a monitor that takes
// snapshots and adds bitmaps. The image is whole, holds what was promised, and
// is used further; every third time the daemon ends in due form.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, v := range killedImages {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			need(t, "qemu-img")
			k := &killed{t: t, v: v, dir: shortDir(t), snapshots: make(map[string]*keptSnapshot)}
			k.create()
			r := rand.New(rand.NewPCG(*seed, uint64(v.size)))
			for round := range *kills {
				k.round(r, round%3 == 2)
				if t.Failed() {
					t.Fatalf("in round %d of seed %d", round, *seed)
				}
			}
		})
	}
}

// round lets the writers write and ends the daemon. Where it ends in due form
// no more clusters leak than before.
func (k *killed) round(r *rand.Rand, gracefully bool) {
	d := k.start()
	k.deeds, k.durable = make([][]deed, k.v.size/512), 0
	k.left, k.enough = 1+r.IntN(400), make(chan struct{})
	k.sameForUs()
	var all sync.WaitGroup
	for n := range killedWriters {
		w, own := client(k.t, "unix", k.dir+"/n.sock", modes[n%3], "x"), rand.New(rand.NewPCG(r.Uint64(), 0))
		all.Go(func() { k.writer(w, own) })
	}
	m, own := k.monitor(), rand.New(rand.NewPCG(r.Uint64(), 0))
	all.Go(func() { k.control(m, own) })
	select {
	case <-k.enough:
	case <-time.After(patience):
		k.t.Errorf("the writers do not come on\n%s", stacks())
	}
	end := syscall.SIGKILL
	if gracefully {
		end = syscall.SIGTERM
	}
	signal(k.t, d, end)
	if status, err := d.Wait(patience); err != nil || gracefully && status != 0 {
		k.t.Fatalf("status %d, %v\n%s", status, err, d.Output())
	}
	all.Wait()
	m.Close()
	if gracefully || k.v.placed {
		k.durable = never - 1
	}
	k.inspect(r, gracefully)
}

// sameForUs: the daemon reads what the reference has read.
func (k *killed) sameForUs() {
	w := client(k.t, "unix", k.dir+"/n.sock", nbd.Simple, "x")
	got, err := w.read(0, uint64(k.v.size))
	if err != nil || !bytes.Equal(got, k.base) {
		k.t.Fatalf("we read something else than the reference, %v", err)
	}
	w.Close()
}

// inspect has the reference look at the image that was left behind.
func (k *killed) inspect(r *rand.Rand, gracefully bool) {
	k.settle(r)
	leaks, errors := k.check()
	if errors > 0 && !gracefully && k.v.old() {
		leaks, errors = k.repairMarks()
	}
	if errors > 0 {
		out, _ := k.img("check")
		k.t.Fatalf("qemu-img check: %s", out)
	}
	if gracefully && leaks > k.leaks {
		out, _ := k.img("check")
		k.t.Fatalf("%d clusters have leaked, %d before: %s", leaks, k.leaks, out)
	}
	k.leaks = leaks
	k.inspectSnapshots()
	got := k.read()
	for s := range k.deeds {
		k.sector("the disk", got, s, k.allowed(s, k.durable))
	}
	k.base = got
}

// check counts what the reference finds wrong.
func (k *killed) check() (leaks, corruptions int) {
	out, _ := k.img("check", "--output=json") // its status says what the report says
	var report struct {
		Leaks, Corruptions int
		CheckErrors        int `json:"check-errors"`
	}
	// In front of the report are lines on each cluster.
	err := json.Unmarshal([]byte(out[max(0, strings.Index(out, "{")):]), &report)
	if err != nil || report.CheckErrors > 0 {
		k.t.Fatalf("qemu-img check: %v\n%s", err, out)
	}
	return report.Leaks, report.Corruptions
}

// repairMarks: who takes a snapshot has marks of sole use and refcounts
// disagree for a while, and old images cannot say so. No data depends on it.
func (k *killed) repairMarks() (leaks, corruptions int) {
	out, _ := k.img("check")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "ERROR") && !strings.HasPrefix(line, "ERROR OFLAG_COPIED") {
			k.t.Fatalf("qemu-img check: %s", out)
		}
	}
	if out, err := k.img("check", "-r", "all"); err != nil {
		k.t.Fatalf("qemu-img check -r all: %v\n%s", err, out)
	}
	return k.check()
}

// settle has somebody open the image to write, if it says that refcounts have
// to be counted anew: us or the reference.
func (k *killed) settle(r *rand.Rand) {
	f, err := os.Open(k.dir + "/image")
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 80)
	if _, err := f.ReadAt(head, 0); err != nil {
		k.t.Fatal(err)
	}
	const incompatible, dirty = 79, 1
	switch {
	case k.v.old() || head[incompatible]&dirty == 0:
	case r.IntN(2) == 0:
		if err := k.start().Stop(); err != nil {
			k.t.Error(err)
		}
	default:
		must(k.t, k.dir, "qemu-io", "--object", killedSecret, "--image-opts", "-c", "read 0 512", k.options())
	}
}

// sector compares a sector with what it may hold.
func (k *killed) sector(what string, got []byte, s int, allowed []byte) {
	for _, b := range got[s*512 : (s+1)*512] {
		if !slices.Contains(allowed, b) {
			k.t.Fatalf("%s: sector %d holds %#x, may hold %#x: %+v, durable before %d", what, s, b, allowed, k.deeds[s], k.durable)
		}
	}
}

// read reads the disk, or a snapshot, by way of the reference.
func (k *killed) read(more ...string) []byte {
	args := slices.Concat(more, []string{"-O", "raw"})
	args = slices.Concat([]string{"convert", "--object", killedSecret, "--image-opts"}, args, []string{k.options(), "read"})
	must(k.t, k.dir, "qemu-img", args...)
	got, err := os.ReadFile(k.dir + "/read")
	if err != nil || len(got) != k.v.size {
		k.t.Fatalf("%d bytes read, %v", len(got), err)
	}
	return got
}

// snapshotsFound are the names of the snapshots in the image.
func (k *killed) snapshotsFound() map[string]bool {
	var info struct{ Snapshots []struct{ Name string } }
	out, err := k.img("info", "--output=json")
	if err = errors.Join(err, json.Unmarshal([]byte(out), &info)); err != nil {
		k.t.Fatalf("%v\n%s", err, out)
	}
	found := make(map[string]bool)
	for _, s := range info.Snapshots {
		found[s.Name] = true
	}
	return found
}

// inspectSnapshots compares what snapshots hold. One that was being taken or
// deleted is there, or is not.
func (k *killed) inspectSnapshots() {
	found := k.snapshotsFound()
	for name := range found {
		if k.snapshots[name] == nil {
			k.t.Errorf("snapshot %s should not be there", name)
		}
	}
	for name, s := range k.snapshots {
		if !found[name] {
			if s.end < never && !s.leaving {
				k.t.Errorf("snapshot %s is lost", name)
			}
			delete(k.snapshots, name)
			continue
		}
		s.leaving = false
		k.inspectSnapshot(name, s)
	}
}

func (k *killed) inspectSnapshot(name string, s *keptSnapshot) {
	got := k.read("-l", "snapshot.name="+name)
	if s.content != nil {
		if !bytes.Equal(got, s.content) {
			k.t.Errorf("snapshot %s has changed", name)
		}
		return
	}
	for sector := range k.deeds {
		k.sector("snapshot "+name, got, sector, k.keptBy(s, sector))
	}
	s.content, s.end = got, 0
}
