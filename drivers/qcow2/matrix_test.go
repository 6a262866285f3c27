package qcow2_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

var matrixFlag = flag.Int("matrix", 8, "how many kinds of images of the matrix are tried (0: all)")

// cell is a kind of image: one of the matrix of all that the format can be.
type cell struct {
	old              bool // version 2
	cluster, refBits int
	extended, lazy   bool
	zstd             bool
	data, dataRaw    bool // in a file of its own; one that is a raw image
	encrypt          string
}

const matrixSize = 3<<20 + 512

// matrix is all of it.
func matrix() []cell {
	var all []cell
	flags := []bool{false, true}
	for _, cluster := range []int{512, 4096, 65536, 2 << 20} {
		for _, encrypt := range []string{"", "luks", "aes"} {
			all = append(all, cell{old: true, cluster: cluster, refBits: 16, encrypt: encrypt})
			for _, refBits := range []int{1, 2, 4, 8, 16, 32, 64} {
				for _, extended := range flags {
					for _, lazy := range flags {
						for _, zstd := range flags {
							for data := range 3 {
								c := cell{
									cluster: cluster, refBits: refBits, extended: extended, lazy: lazy, zstd: zstd,
									data: data > 0, dataRaw: data == 2, encrypt: encrypt,
								}
								if c.valid() {
									all = append(all, c)
								}
							}
						}
					}
				}
			}
		}
	}
	return all
}

// valid: subclusters have 512 bytes at least, and nobody encrypts what is to be
// a raw image.
func (c cell) valid() bool {
	return !(c.extended && c.cluster < 16384) && !(c.encrypt != "" && c.data)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (c cell) compression() string {
	if c.zstd {
		return "zstd"
	}
	return "zlib"
}

// variant is the kind as qemu-img create is told of it. The count of refcount
// bits comes last, where fewUses looks for it.
func (c cell) variant() variant {
	v := variant{size: matrixSize, encrypt: c.encrypt}
	v.create = fmt.Sprintf("cluster_size=%d", c.cluster)
	if c.old {
		v.create += ",compat=0.10"
	} else {
		v.create += fmt.Sprintf(",compat=1.1,extended_l2=%s,lazy_refcounts=%s,compression_type=%s", onOff(c.extended), onOff(c.lazy), c.compression())
	}
	if c.data {
		v.create += ",data_file=data,data_file_raw=" + onOff(c.dataRaw)
	}
	v.create += fmt.Sprintf(",refcount_bits=%d", c.refBits)
	v.name = strings.NewReplacer("=", "-", ",", " ").Replace(v.create) + " " + c.encrypt
	return v
}

// options are the same for blockdev-create.
func (c cell) options(dir string) string {
	o := fmt.Sprintf(`{"driver":"qcow2","file":{"driver":"file","filename":"%s/image"},"size":%d,"cluster-size":%d`, dir, matrixSize, c.cluster)
	if c.old {
		o += `,"version":"v2"`
	} else {
		o += fmt.Sprintf(`,"version":"v3","refcount-bits":%d,"extended-l2":%t,"lazy-refcounts":%t,"compression-type":%q`,
			c.refBits, c.extended, c.lazy, c.compression())
	}
	if c.data {
		o += fmt.Sprintf(`,"data-file":{"driver":"file","filename":"%s/data"},"data-file-raw":%t`, dir, c.dataRaw)
	}
	switch c.encrypt {
	case "luks":
		o += `,"encrypt":{"format":"luks","key-secret":"s0","iter-time":10}`
	case "aes":
		o += `,"encrypt":{"format":"qcow","key-secret":"s0"}`
	}
	return o + "}"
}

// varying is what differs between two images that are made alike.
var varying = regexp.MustCompile(`(?m)(disk size|uuid|iters|master key iters|date): .*$`)

// What images say of themselves is the same whether the reference has made them
// or we, for every kind of image; and what either has made, filled and changed
// the other reads, changes and finds nothing wrong with.
func TestMatrix(t *testing.T) {
	t.Parallel()
	all := matrix()
	rng := rand.New(rand.NewPCG(*seedFlag, 8))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if *matrixFlag > 0 {
		all = all[:min(*matrixFlag, len(all))]
	}
	for n, c := range all {
		t.Run(c.variant().name, func(t *testing.T) {
			t.Parallel()
			theirs := newStage(t, c.variant())
			ours := c.made(t)
			for _, words := range [][]string{{"info"}, {"info", "--output=json"}, {"check"}, {"map"}, {"measure", "-O", "qcow2"}, {"measure", "-O", "raw"}} {
				got, want := ours.say(words...), strings.ReplaceAll(theirs.say(words...), theirs.dir, ours.dir)
				if got != want {
					t.Errorf("qemu-img %s:\n%s, want\n%s", strings.Join(words, " "), got, want)
				}
			}
			if err := ours.changedByBoth(uint64(n)); err != nil {
				t.Errorf("made by us: %v", err)
			}
			if err := theirs.filled(c, uint64(n)); err != nil {
				t.Errorf("filled by the reference: %v", err)
			}
		})
	}
}

// made is an image that blockdev-create makes.
func (c cell) made(t *testing.T) *stage {
	s := &stage{t: t, v: c.variant(), dir: filepath.Join(t.TempDir(), "made"), cluster: int64(c.cluster)}
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"image", "data"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeImage(t, s.newPlayer().b, c.options(s.dir)); err != nil {
		t.Fatal(err)
	}
	return s
}

// say is what qemu-img says of the image.
func (s *stage) say(words ...string) string {
	args := append([]string{words[0], "--object", "secret,id=s0,data=hunter2"}, words[1:]...)
	if words[0] == "info" && s.v.encrypt == "" {
		args = append(args, "-U")
	}
	out := img(s.t, s.dir, append(args, "--image-opts", s.imageOpts())...)
	return varying.ReplaceAllString(jsonVarying.ReplaceAllString(out, ""), "")
}

var jsonVarying = regexp.MustCompile(`"(actual-size|uuid|iters|master-key-iters)": [^\n]*`)

// changedByBoth lets us and the reference take turns.
func (s *stage) changedByBoth(seed uint64) error {
	p := s.newPlayer()
	a := &author{rng: rand.New(rand.NewPCG(seed, 9)), v: s.v, cluster: s.cluster, size: s.v.size}
	for range 2 {
		if err := p.open(); err != nil {
			return err
		}
		for range 25 {
			if err := p.step(a.step()); err != nil {
				p.b.Drop(p.blk)
				return err
			}
		}
		// What was compressed by the other one is read, and written over.
		offset := a.rng.Int64N(int64(len(p.want))) / 512 * 512
		bytes := min(int64(len(p.want))-offset, 512*(1+a.rng.Int64N(300)))
		if err := p.close(); err != nil {
			return err
		}
		out, status := run(s.t, s.dir, tool(s.t, "qemu-io"), "--object", "secret,id=s0,data=hunter2", "--image-opts",
			"-c", fmt.Sprintf("write -P 77 %d %d", offset, bytes), s.imageOpts())
		if status != 0 {
			return errors.New(out)
		}
		for i := range p.want[offset : offset+bytes] {
			p.want[offset+int64(i)] = 77
		}
	}
	if err := p.open(); err != nil {
		return err
	}
	return p.finish()
}

// filled has the reference fill the image, take a snapshot and add a bitmap;
// then we read it, write to it, and resize it.
func (s *stage) filled(c cell, seed uint64) error {
	p := s.newPlayer()
	p.want = texture(seed, matrixSize)
	if err := os.WriteFile(filepath.Join(s.dir, "raw"), p.want, 0o600); err != nil {
		return err
	}
	args := []string{"convert", "--object", "secret,id=s0,data=hunter2", "-f", "raw", "-O", "qcow2", "-o", s.v.createOptions(s.dir)}
	if c.encrypt == "" && !c.data {
		args = append(args, "-c")
	}
	img(s.t, s.dir, append(args, "raw", "image")...)
	if !c.data && !s.v.fewUses() {
		if err := p.img("snapshot", "-c", "s0"); err != nil {
			return err
		}
		p.kept["s0"] = append([]byte(nil), p.want...)
	}
	if !c.old {
		if err := p.img("bitmap", "--add", "IMAGE", "b0"); err != nil {
			return err
		}
		p.bitmaps["b0"] = true
	}
	if err := p.open(); err != nil {
		return err
	}
	if k, ok := p.node.Instance().(block.Snapshotter); ok && p.kept["s0"] != nil {
		if err := in(p.node, func(co *aio.Co) error {
			if list := k.Snapshots(co); len(list) != 1 || list[0].Name != "s0" {
				return fmt.Errorf("snapshots %v", list)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if p.bitmaps["b0"] && p.node.DirtyBitmap("b0") == nil {
		return errors.New("the bitmap is not there")
	}
	for _, one := range []step{
		{kind: stepRead, bytes: matrixSize}, {kind: stepWrite, offset: 5000, bytes: 100_000, value: 5}, {kind: stepZero, offset: 1 << 20, bytes: 70_000},
		{kind: stepDiscard, offset: 2 << 20, bytes: 1 << 19}, {kind: stepResize, bytes: 4 << 20}, {kind: stepWrite, offset: 4<<20 - 1000, bytes: 1000, value: 6},
		{kind: stepReopen}, {kind: stepResize, bytes: 2<<20 + 512}, {kind: stepResize, bytes: matrixSize}, {kind: stepRead, bytes: matrixSize},
	} {
		if err := p.step(one); err != nil {
			p.b.Drop(p.blk)
			return fmt.Errorf("%s: %w", one, err)
		}
	}
	return p.finish()
}
