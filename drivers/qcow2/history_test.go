package qcow2_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
)

// variant is an image to run histories on: options of qemu-img create and of
// the node.
type variant struct {
	name, create, node string
	size               int64
	backing            bool
	// encrypt is the format of the encryption, if there is one.
	encrypt string
}

var variants = []variant{
	{name: "default", size: 4 << 20},
	{name: "backing", size: 2 << 20, backing: true},
	{name: "v2", create: "compat=0.10", size: 2 << 20},
	{name: "v2-backing", create: "compat=0.10,cluster_size=4k", size: 1 << 20, backing: true},
	{name: "512", create: "cluster_size=512", size: 1 << 20},
	{name: "512-backing", create: "cluster_size=512", size: 1 << 19, backing: true},
	{name: "512-refcount64", create: "cluster_size=512,refcount_bits=64", size: 1 << 20},
	{name: "4k-refcount1", create: "cluster_size=4k,refcount_bits=1", size: 1 << 20},
	{name: "refcount2", create: "cluster_size=1k,refcount_bits=2", size: 1 << 20},
	{name: "refcount4", create: "cluster_size=8k,refcount_bits=4", size: 1 << 20},
	{name: "refcount8", create: "cluster_size=2k,refcount_bits=8", size: 1 << 20},
	{name: "refcount32", create: "cluster_size=16k,refcount_bits=32", size: 1 << 20},
	{name: "2M", create: "cluster_size=2M", size: 8 << 20},
	{name: "extended", create: "extended_l2=on,cluster_size=16k", size: 1 << 20},
	{name: "extended-backing", create: "extended_l2=on,cluster_size=32k", size: 1 << 20, backing: true},
	{name: "extended-128k", create: "extended_l2=on,cluster_size=128k", size: 2 << 20},
	{name: "zstd", create: "compression_type=zstd,cluster_size=8k", size: 1 << 20},
	{name: "lazy", create: "lazy_refcounts=on,cluster_size=4k", size: 1 << 20},
	{name: "data-file", create: "data_file=data", size: 1 << 20},
	{name: "data-file-raw", create: "data_file=data,data_file_raw=on,cluster_size=4k", size: 1 << 20},
	{name: "data-file-extended", create: "data_file=data,extended_l2=on,cluster_size=16k", size: 1 << 20},
	{name: "tiny-caches", create: "cluster_size=4k", node: `,"l2-cache-entry-size":512,"l2-cache-size":1024,"refcount-cache-size":4096`, size: 4 << 20},
	{name: "no-unref", create: "cluster_size=4k", node: `,"discard-no-unref":true`, size: 1 << 20},
	{name: "overlap-all", create: "cluster_size=4k", node: `,"overlap-check":"all"`, size: 1 << 20},
	{name: "preallocated", create: "preallocation=metadata,cluster_size=4k", size: 1 << 20},
	{name: "luks", create: "cluster_size=4k", size: 1 << 20, encrypt: "luks"},
	{name: "luks-extended", create: "extended_l2=on,cluster_size=16k", size: 1 << 20, encrypt: "luks", backing: true},
	{name: "aes", create: "cluster_size=8k", size: 1 << 20, encrypt: "aes"},
}

func (v variant) external() bool { return strings.Contains(v.create, "data_file") }
func (v variant) old() bool      { return strings.Contains(v.create, "compat=0.10") }

// fewUses tells whether a cluster can be counted so few times only that
// snapshots fail sooner or later.
func (v variant) fewUses() bool {
	_, bits, _ := strings.Cut(v.create, "refcount_bits=")
	return slices.Contains([]string{"1", "2", "4"}, bits)
}

// createOptions are the options for an image in a folder.
func (v variant) createOptions(dir string) string {
	all := []string{v.create}
	if v.backing {
		all = append(all, "backing_file="+dir+"/base", "backing_fmt=raw")
	}
	if v.encrypt != "" {
		all = append(all, "encrypt.format="+v.encrypt, "encrypt.key-secret=s0")
	}
	if v.encrypt == "luks" {
		all = append(all, "encrypt.iter-time=10")
	}
	options := strings.TrimPrefix(strings.Join(all, ","), ",")
	return strings.ReplaceAll(options, "data_file=data", "data_file="+dir+"/data")
}

// baseContent is what a backing file holds: less than the disk.
func (v variant) baseContent() []byte {
	b := make([]byte, v.size/4*3)
	for i := range b {
		b[i] = byte(i/4096 + 1)
	}
	return b
}

// step is one step of a history. Steps do not depend on each other: any of
// them can be left out.
type step struct {
	kind          stepKind
	offset, bytes int64
	// value is what is written, or for bitmaps and snapshots which of them.
	value byte
	flags block.ReqFlags
	mode  block.PreallocMode
	// random is how much of each cluster that is compressed is noise, in bytes;
	// the rest is zeroes.
	random, cluster int64
	// all run side by side, and a flush among them if flush is set.
	all   []step
	flush bool
}

type stepKind int

const (
	stepWrite stepKind = iota
	stepZero
	stepDiscard
	stepCompress
	stepParallel
	stepRead
	stepFlush
	stepReopen
	stepResize
	stepSnapshot
	stepForget
	stepBitmap
)

// String is the step in the form of a transcript.
func (s step) String() string {
	where := fmt.Sprintf("%d %d", s.offset, s.bytes)
	unmap := ""
	if s.flags&block.ReqMayUnmap != 0 {
		unmap = " -u"
	}
	switch s.kind {
	case stepWrite:
		return fmt.Sprintf("io q write -P %d %s", s.value, where)
	case stepZero:
		return "io q write -z" + unmap + " " + where
	case stepDiscard:
		return "io q discard " + where
	case stepCompress:
		return fmt.Sprintf("!(head -c %d /dev/zero | openssl enc -aes-128-ctr -K %032x -iv %032x; head -c %d /dev/zero) >noise\nio q write -c -s noise %s",
			s.random, s.value, 0, s.cluster-s.random, where)
	case stepRead:
		return "io q read " + where
	case stepFlush:
		return "io q flush"
	case stepReopen:
		return "-> {\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"q\"}}\n" + addNode
	case stepResize:
		return fmt.Sprintf("io q truncate -m %s %d", s.mode, s.bytes)
	case stepSnapshot:
		return fmt.Sprintf(`-> {"execute":"blockdev-snapshot-internal-sync","arguments":{"device":"q","name":"s%d"}}`, s.value)
	case stepForget:
		return fmt.Sprintf(`-> {"execute":"blockdev-snapshot-delete-internal-sync","arguments":{"device":"q","name":"s%d"}}`, s.value)
	case stepBitmap:
		return fmt.Sprintf("# the persistent bitmap b%d, of granularity %d, is added or removed", s.value, s.bytes)
	}
	var all []string
	for _, one := range s.all {
		text := strings.TrimPrefix(one.String(), "io q ")
		if one.kind != stepDiscard {
			text = "aio_" + text
		}
		all = append(all, text)
	}
	text := "io q " + strings.Join(all, " ; ")
	if s.flush {
		text += " ; flush"
	}
	return text + " ; aio_flush"
}

const addNode = `-> {"execute":"blockdev-add","arguments":NODE}`

// data is what is compressed: noise, and zeroes behind it, in every cluster.
func (s step) data() []byte {
	key := make([]byte, 16)
	key[15] = s.value
	c, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key is as long as it has to be
	}
	one := make([]byte, s.cluster)
	cipher.NewCTR(c, make([]byte, 16)).XORKeyStream(one[:s.random], one[:s.random])
	return bytes.Repeat(one, int((s.bytes+s.cluster-1)/s.cluster))[:s.bytes]
}

// author makes up histories.
type author struct {
	rng     *rand.Rand
	v       variant
	cluster int64
	size    int64 // of the disk, as far as the author knows
}

// area is a random part of the disk, aligned by chance.
func (a *author) area() (offset, bytes int64) {
	unit := []int64{1, 512, 4096, a.cluster, a.cluster}[a.rng.IntN(5)]
	most := []int64{1, 3, 16}[a.rng.IntN(3)]
	offset = a.rng.Int64N(a.size) / unit * unit
	return offset, min(a.size-offset, (1+a.rng.Int64N(most))*unit)
}

// change is a request that changes what the disk holds.
func (a *author) change(offset, bytes int64) step {
	s := step{offset: offset, bytes: bytes, value: byte(1 + a.rng.IntN(255))}
	switch k := a.rng.IntN(10); {
	case k < 6:
		s.kind = stepWrite
	case k < 8:
		s.kind, s.value = stepZero, 0
		s.flags = []block.ReqFlags{0, block.ReqMayUnmap}[a.rng.IntN(2)]
	default:
		s.kind, s.value = stepDiscard, 0
	}
	return s
}

func (a *author) step() step {
	switch k := a.rng.IntN(52); {
	case k < 20:
		return a.change(a.area())
	case k < 28:
		return a.parallel()
	case k < 34:
		offset, bytes := a.area()
		return step{kind: stepRead, offset: offset, bytes: bytes}
	case k < 38:
		return step{kind: stepFlush}
	case k < 40:
		return step{kind: stepReopen}
	case k < 44:
		return a.resize()
	case k < 48:
		return a.compress()
	case k < 50:
		return step{kind: stepSnapshot, value: byte(a.rng.IntN(3))}
	case k < 51:
		return step{kind: stepForget, value: byte(a.rng.IntN(3))}
	}
	return step{kind: stepBitmap, value: byte(a.rng.IntN(3)), bytes: []int64{512, 4096, 1 << 16}[a.rng.IntN(3)]}
}

// parallel are requests side by side that touch different bytes, often of the
// same clusters.
func (a *author) parallel() step {
	s := step{kind: stepParallel, flush: a.rng.IntN(3) == 0}
	at := a.rng.Int64N(a.size)
	for range 2 + a.rng.IntN(6) {
		bytes := 1 + a.rng.Int64N(a.cluster*2)
		if a.rng.IntN(2) == 0 {
			at, bytes = at/a.cluster*a.cluster+a.cluster, a.cluster
		}
		if at+bytes > a.size {
			break
		}
		s.all = append(s.all, a.change(at, bytes))
		at += bytes + []int64{0, 0, 1, a.cluster}[a.rng.IntN(4)]
	}
	return s
}

const maxHistorySize = 16 << 20

func (a *author) resize() step {
	s := step{kind: stepResize}
	s.bytes = min(maxHistorySize, max(512, (a.size/2+a.rng.Int64N(a.size))/512*512))
	if s.bytes > a.size {
		s.mode = block.PreallocMode(a.rng.IntN(4))
	}
	a.size = s.bytes
	return s
}

func (a *author) compress() step {
	s := step{kind: stepCompress, value: byte(a.rng.IntN(256)), cluster: a.cluster}
	s.random = a.rng.Int64N(1 + a.cluster/[]int64{1, 3, 100}[a.rng.IntN(3)])
	s.offset = a.rng.Int64N(a.size) / a.cluster * a.cluster
	s.bytes = min(a.cluster*(1+a.rng.Int64N(3)), a.size-s.offset)
	return s
}

// An image holds what was written to it, whatever is done, and so do its
// snapshots; the reference finds nothing wrong with it.
//
// A history that fails is reduced to the steps that it takes, and printed as a
// transcript.
func TestHistory(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		for _, seed := range seeds(2) {
			t.Run(fmt.Sprintf("%s/%d", v.name, seed), func(t *testing.T) {
				t.Parallel()
				s := newStage(t, v)
				a := &author{rng: rand.New(rand.NewPCG(seed, 1)), v: v, cluster: s.cluster, size: v.size}
				var steps []step
				for range *stepsFlag {
					steps = append(steps, a.step())
				}
				at, err := s.play(steps)
				if err == nil {
					return
				}
				steps, why := s.reduce(steps[:min(at+1, len(steps))], err)
				t.Errorf("seed %d: %v\n\n%s", seed, err, s.transcript(steps, why))
			})
		}
	}
}

// reduce removes what the failure does not need: halves, quarters … single
// steps, then single requests of those side by side, as long as something
// fails.
func (s *stage) reduce(steps []step, err error) ([]step, error) {
	if _, again := s.play(steps); again == nil {
		return steps, fmt.Errorf("%w (not every time: nothing was left out)", err)
	}
	for size := len(steps) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(steps); {
			rest := slices.Concat(steps[:from], steps[from+size:])
			at, why := s.play(rest)
			if why == nil {
				from += size
				continue
			}
			steps, err = rest[:min(at+1, len(rest))], why
		}
	}
	for n := range steps {
		for k := 0; k < len(steps[n].all); {
			rest := slices.Clone(steps)
			rest[n].all = slices.Concat(steps[n].all[:k], steps[n].all[k+1:])
			if _, why := s.play(rest); why == nil {
				k++
			} else {
				steps, err = rest, why
			}
		}
	}
	return steps, err
}

// transcript is a history in the format of tests/qmp.
func (s *stage) transcript(steps []step, why error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %v\n", s.v.name, why)
	if s.v.backing {
		fmt.Fprintf(&b, "!for i in $(seq %d); do printf \"\\\\x$(printf %%x $((i%%256)))%%.0s\" $(seq 4096); done >base\n", s.v.size/4*3/4096)
	}
	object, more := "", s.more()
	if s.v.encrypt != "" {
		object = " --object secret,id=s0,data=hunter2"
	}
	options := s.v.createOptions("${DIR}")
	if options != "" {
		options = " -o " + options
	}
	fmt.Fprintf(&b, "!qemu-img create -q%s -f qcow2%s image %d\nsystem -object secret,id=s0,data=hunter2\n", object, options, s.v.size)
	lines := []string{`-> {"execute":"qmp_capabilities"}`, addNode}
	for _, one := range steps {
		lines = append(lines, one.String())
	}
	lines = append(lines, `-> {"execute":"blockdev-del","arguments":{"node-name":"q"}}`, "!qemu-img check image")
	b.WriteString(strings.ReplaceAll(strings.Join(lines, "\n"), "NODE", node("image", more)))
	return b.String()
}

// stage is where the histories of one image are played, each from the
// beginning.
type stage struct {
	t       *testing.T
	v       variant
	dir     string
	cluster int64
	// initial are the image's files before anything has happened.
	initial map[string][]byte
}

func newStage(t *testing.T, v variant) *stage {
	s := &stage{t: t, v: v, dir: filepath.Join(t.TempDir(), v.name), initial: make(map[string][]byte)}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if v.backing {
		if err := os.WriteFile(s.dir+"/base", v.baseContent(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"create", "-q", "-f", "qcow2", "--object", "secret,id=s0,data=hunter2"}
	if options := v.createOptions(s.dir); options != "" {
		args = append(args, "-o", options)
	}
	img(t, s.dir, append(args, "image", fmt.Sprint(v.size))...)
	for _, name := range []string{"image", "data"} {
		b, err := os.ReadFile(filepath.Join(s.dir, name))
		if err == nil {
			s.initial[name] = b
		} else if !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	// The version, magic and the binary logarithm of the cluster size.
	s.cluster = 1 << s.initial["image"][23]
	return s
}

func (s *stage) path() string { return filepath.Join(s.dir, "image") }

// more are options of the node.
func (s *stage) more() string {
	if s.v.encrypt == "" {
		return s.v.node
	}
	return fmt.Sprintf(`%s,"encrypt":{"format":%q,"key-secret":"s0"}`, s.v.node, s.v.encrypt)
}

// imageOpts is the image, as the reference's tools open it.
func (s *stage) imageOpts() string {
	options := "driver=qcow2,file.driver=file,file.filename=" + s.path()
	if s.v.encrypt != "" {
		options += ",encrypt.key-secret=s0"
	}
	return options
}
