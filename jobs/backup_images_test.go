package jobs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/drivers/copybeforewrite"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// images is backups of an image over another one, into a file.
type images struct {
	*backups
	dir  string
	size int64 // of new images
}

// targetImage is what a backup goes to. Further options of a new qcow2 image
// are JSON members; "raw" is a plain file. One with a backing file has the
// source's.
type targetImage struct {
	options string
	backed  bool
	params  jobs.BackupParams
}

var targetImages = map[string]targetImage{
	"raw":          {options: "raw"},
	"qcow2":        {},
	"cluster 512":  {options: `,"cluster-size":512`},
	"cluster 2M":   {options: `,"cluster-size":2097152`},
	"extended":     {options: `,"extended-l2":true,"cluster-size":16384`},
	"overlay":      {backed: true},
	"compressed":   {options: `,"compression-type":"zstd"`, params: jobs.BackupParams{Compress: true}},
	"one by one":   {params: jobs.BackupParams{MaxWorkers: 1, MaxChunk: 65536}},
	"min cluster":  {options: "raw", params: jobs.BackupParams{MinCluster: 512 << 10}},
	"by the host":  {options: "raw", params: jobs.BackupParams{UseCopyRange: true}},
	"with a speed": {params: jobs.BackupParams{Speed: 16 << 20}},
}

// newImages has a source with random data in both images.
func newImages(t *testing.T, seed uint64, target targetImage) *images {
	t.Helper()
	b := &images{dir: t.TempDir(), size: backupSize}
	b.backups = newBench(t, seed, file.Driver(), raw.Driver(), qcow2.Driver(), copybeforewrite.Driver())
	b.newQcow2("base", "")
	b.newQcow2("top", `,"backing-file":"base","backing-fmt":"qcow2"`)
	base := b.Add(b.qcow2("base", `null`))
	first := b.Use(base)
	b.fill(first, 30)
	b.Drop(first)
	b.source = b.Add(b.qcow2("top", `"base"`))
	b.user = b.Use(b.source)
	b.fill(b.user, 20)
	switch {
	case target.options == "raw":
		b.newFile("target", backupSize)
		b.target = b.Add(fmt.Sprintf(`{"node-name":"target","driver":"raw","file":{"driver":"file","filename":%q}}`, b.path("target")))
	case target.backed:
		b.newQcow2("target", target.options+`,"backing-file":"base","backing-fmt":"qcow2"`)
		b.target = b.Add(b.qcow2("target", `"base"`))
	default:
		b.newQcow2("target", target.options)
		b.target = b.Add(b.qcow2("target", `null`))
	}
	return b
}

func (b *images) path(name string) string { return filepath.Join(b.dir, name) }

// qcow2 is a node over the image of its name.
func (b *images) qcow2(name, backing string) string {
	return fmt.Sprintf(`{"node-name":%q,"driver":"qcow2","backing":%s,"file":{"driver":"file","filename":%q}}`, name, backing, b.path(name))
}

func (b *images) newFile(name string, size int64) {
	b.t.Helper()
	b.create(file.Driver(), fmt.Sprintf(`{"filename":%q,"size":%d}`, b.path(name), size))
}

func (b *images) newQcow2(name, options string) {
	b.t.Helper()
	b.newFile(name, 0)
	b.Add(fmt.Sprintf(`{"driver":"file","node-name":"new","filename":%q}`, b.path(name)))
	b.create(qcow2.Driver(), fmt.Sprintf(`{"file":"new","size":%d%s}`, b.size, options))
	b.Delete("new")
}

func (b *images) create(driver *block.Driver, json string) {
	b.t.Helper()
	o := b.Options(json)
	b.Main(func(l *aio.Lock) {
		_, err := aio.Mixed(l, b.Graph.Main(), "create", func(co *aio.Co) (struct{}, error) {
			return struct{}{}, b.Graph.CoCreate(co, driver, o)
		})
		if err != nil {
			b.t.Fatalf("%s: %v", json, err)
		}
	})
}

// check has the reference look at the target: it is sound, and holds what it
// should.
func (b *images) check(format string, want []byte) {
	b.t.Helper()
	b.Drop(b.user)
	for _, name := range []string{"target", "top", "base"} {
		b.Delete(name)
	}
	path := b.path("want")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		b.t.Fatal(err)
	}
	img := filepath.Join(filepath.Dir(daemon.Reference(b.t).Storage[0]), "qemu-img")
	commands := [][]string{{"compare", "-f", "raw", "-F", format, path, b.path("target")}}
	if format == "qcow2" {
		commands = append(commands, []string{"check", "-f", format, b.path("target")})
	}
	for _, args := range commands {
		cmd := exec.Command(img, args...)
		cmd.Dir = b.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			b.t.Errorf("qemu-img %s: %v\n%s", args[0], err, out)
		}
	}
}

// bitmap makes a bitmap of the source in which everything is dirty, or what
// some writes change.
func (b *images) bitmap(all bool) *block.DirtyBitmap {
	b.t.Helper()
	var bitmap *block.DirtyBitmap
	b.Main(func(l *aio.Lock) {
		var err error
		if bitmap, err = b.source.CreateDirtyBitmap(l, "bm", backupCluster); err != nil {
			b.t.Fatal(err)
		}
	})
	if all {
		bitmap.Use(func(bits *hbitmap.Bitmap) { bits.Set(0, backupSize) })
	} else {
		b.fill(b.user, 10)
	}
	return bitmap
}

// dirty is what is dirty in the bitmap that the source has now.
func (b *images) dirty() (bits *hbitmap.Bitmap) {
	b.source.DirtyBitmap("bm").Use(func(all *hbitmap.Bitmap) { bits = all.Clone() })
	return bits
}

// A backup holds what the source held when it was started, whatever the images
// are and whoever writes meanwhile.
func TestBackupImages(t *testing.T) {
	t.Parallel()
	for name, target := range targetImages {
		for _, sync := range []jobs.BackupSync{jobs.SyncFull, jobs.SyncTop, jobs.SyncBitmap} {
			if (sync == jobs.SyncTop) != target.backed && sync != jobs.SyncFull {
				continue // the target would lack what is not copied
			}
			for seed := range uint64(3) {
				t.Run(fmt.Sprintf("%s/%s/%d", name, sync, seed), func(t *testing.T) {
					t.Parallel()
					b := newImages(t, seed, target)
					p := target.params
					p.Sync = sync
					if sync == jobs.SyncBitmap {
						p.Bitmap = b.bitmap(true)
					}
					want := b.readBy(b.user)
					job := b.start(p)
					stop := b.writing()
					err := b.finish(job)
					stop()
					if err != nil {
						t.Fatal(err)
					}
					b.sameAs(want)
					if sync == jobs.SyncBitmap {
						b.holds(b.changed)
					}
					b.check(b.target.Driver().Name, want)
				})
			}
		}
	}
}

// holds compares the bitmap with what should be dirty.
func (b *images) holds(want *hbitmap.Bitmap) {
	b.t.Helper()
	if got := b.dirty(); got.SHA256() != want.SHA256() {
		b.t.Errorf("%d bytes are dirty, not %d", got.Count(), want.Count())
	}
}

// What is in the bitmap when the job is over is what the target does not have:
// by each mode, if the job succeeds and if it is cancelled half-way.
func TestBackupBitmap(t *testing.T) {
	t.Parallel()
	modes := map[string]jobs.BitmapMode{"on-success": jobs.OnSuccess, "never": jobs.Never, "always": jobs.Always}
	for name, mode := range modes {
		for _, cancel := range []bool{false, true} {
			for seed := range uint64(3) {
				t.Run(fmt.Sprintf("%s/%v/%d", name, cancel, seed), func(t *testing.T) {
					t.Parallel()
					b := newImages(t, seed, targetImage{})
					testBackupBitmap(b, mode, cancel)
				})
			}
		}
	}
}

func testBackupBitmap(b *images, mode jobs.BitmapMode, cancel bool) {
	p := jobs.BackupParams{Sync: jobs.SyncBitmap, Bitmap: b.bitmap(false), BitmapMode: mode}
	if cancel {
		p.Speed = 1 // one chunk
	}
	before := b.dirty()
	want, untouched := b.readBy(b.user), b.read(b.target)
	job := b.start(p)
	stop := b.writing()
	if cancel {
		b.Main(func(l *aio.Lock) {
			if err := job.Cancel(l, true); err != nil {
				b.t.Error(err)
			}
		})
	}
	err := b.finish(job)
	stop()
	if (err != nil) != cancel {
		b.t.Fatalf("it ended with %v", err)
	}
	got := b.read(b.target)
	dirty := b.dirty()
	for at := int64(0); at < backupSize; at += backupCluster {
		end := min(at+backupCluster, backupSize)
		copied, left := string(got[at:end]) == string(want[at:end]), string(got[at:end]) == string(untouched[at:end])
		switch {
		case !before.Get(at) && !left:
			b.t.Fatalf("what lies at %d was not to be copied", at)
		case before.Get(at) && !copied && !(cancel && left):
			b.t.Fatalf("what lies at %d is neither old nor new", at)
		case dirty.Get(at):
		case b.changed.Get(at):
			b.t.Fatalf("a write at %d was forgotten", at)
		case before.Get(at) && (!copied || mode == jobs.Never || mode == jobs.OnSuccess && cancel):
			b.t.Fatalf("what lies at %d is clean", at)
		}
	}
	if cancel {
		return
	}
	if mode == jobs.Never {
		b.changed.Merge(before)
	}
	b.holds(b.changed)
}
