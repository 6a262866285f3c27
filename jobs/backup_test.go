package jobs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/drivers/copybeforewrite"
	"github.com/qmpblock/qmpblock/drivers/copyonread"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	backupSize    = 40*backupCluster - 512
	backupCluster = 65536
)

// backups is a graph with a source and a target, and jobs.
type backups struct {
	*drivertest.Bench
	t              testing.TB
	set            *jobs.Set
	source, target *block.Node
	user           *block.Backend // of the source
	random         *rand.Rand

	mu      sync.Mutex
	changed *hbitmap.Bitmap // by change, since the last job began
}

// newBench is a graph without nodes.
func newBench(t testing.TB, seed uint64, drivers ...*block.Driver) *backups {
	t.Helper()
	b := &backups{
		Bench:   drivertest.New(t, drivers...),
		t:       t,
		random:  rand.New(rand.NewPCG(seed, 0)),
		changed: hbitmap.New(backupSize, backupCluster),
	}
	b.set = jobs.NewSet(jobs.Config{
		Main:     b.Graph.Main(),
		Changed:  func(string, jobs.Status) {},
		Events:   silent{},
		Panicked: func(p *aio.PanicError) { t.Errorf("panic: %v\n%s", p, p.Stack) },
	})
	t.Cleanup(func() { b.Main(b.set.Close) })
	return b
}

// newBackups has disks in memory.
func newBackups(t *testing.T, seed uint64, overlay bool) *backups {
	t.Helper()
	b := newBench(t, seed, drivertest.OverlayDriver(), copybeforewrite.Driver(), copyonread.Driver())
	mem := fmt.Sprintf(`"driver":"mem","size":%d,"sparse":true,"zero":true`, backupSize)
	b.source = b.Add(`{"node-name":"source",` + mem + `}`)
	first := b.Use(b.source)
	b.fill(first, 60)
	b.Drop(first)
	yieldAlways(b.source)
	if overlay {
		b.source = b.Add(fmt.Sprintf(`{"node-name":"top","driver":"overlay","size":%d,"unit":512,"backing":"source"}`, backupSize))
	}
	b.target = b.Add(`{"node-name":"target",` + mem + `}`)
	yieldAlways(b.target)
	b.user = b.Use(b.source)
	if overlay {
		b.fill(b.user, 20)
	}
	return b
}

// yieldAlways makes every request wait for others, and leave its turn.
func yieldAlways(n *block.Node) {
	drivertest.DiskOf(n).SetHook(func(co *aio.Co, _ drivertest.Call) error {
		co.Yield(runtime.Gosched)
		return nil
	})
}

// silent hears of jobs and says nothing.
type silent struct{}

func (silent) JobReady(*jobs.BlockJob)                                   {}
func (silent) JobPending(*jobs.BlockJob)                                 {}
func (silent) JobCompleted(*jobs.BlockJob, error)                        {}
func (silent) JobCancelled(*jobs.BlockJob)                               {}
func (silent) JobError(*jobs.BlockJob, jobs.Operation, jobs.ErrorAction) {}

// change writes or zeroes somewhere.
func (b *backups) change(user *block.Backend, r *rand.Rand) error {
	offset := r.Int64N(backupSize / 512)
	count := min(1+r.Int64N(300), backupSize/512-offset)
	b.mu.Lock()
	b.changed.Set(offset*512, count*512)
	b.mu.Unlock()
	if r.IntN(4) == 0 {
		return user.PwriteZeroes(aio.Outside, offset*512, count*512, 0)
	}
	return user.Pwritev(aio.Outside, offset*512, drivertest.Fill(byte(1+r.IntN(255)), int(count*512)), 0)
}

func (b *backups) fill(user *block.Backend, times int) {
	b.t.Helper()
	for range times {
		if err := b.change(user, b.random); err != nil {
			b.t.Fatal(err)
		}
	}
}

// read is everything that a user of a node sees.
func (b *backups) read(n *block.Node) []byte {
	b.t.Helper()
	user := b.Use(n)
	defer b.Drop(user)
	return b.readBy(user)
}

func (b *backups) readBy(user *block.Backend) []byte {
	b.t.Helper()
	all := make([]byte, backupSize)
	if err := user.Preadv(aio.Outside, 0, block.Vec{all}); err != nil {
		b.t.Fatal(err)
	}
	return all
}

// start starts a backup of the source.
func (b *backups) start(p jobs.BackupParams) *jobs.BlockJob {
	b.t.Helper()
	p.ID, p.ManualDismiss = "j", true
	p.Graph, p.Source, p.Target = b.Graph, b.source, b.target
	if p.MaxWorkers == 0 {
		p.MaxWorkers = 8
	}
	b.changed.Clear()
	var (
		job *jobs.BlockJob
		err error
	)
	b.Main(func(l *aio.Lock) {
		b.source.DrainedBegin(l)
		defer b.source.DrainedEnd()
		if job, err = b.set.CreateBackup(l, p); err == nil {
			job.Start(l)
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

// finish waits until the job is concluded, and dismisses it.
func (b *backups) finish(job *jobs.BlockJob) (failure error) {
	b.t.Helper()
	b.Main(func(l *aio.Lock) {
		aio.WaitWhile(l, func() bool { return job.Status(l) != jobs.Concluded })
		failure = job.Err(l)
		if err := job.Dismiss(l); err != nil {
			b.t.Error(err)
		}
	})
	return failure
}

// writing changes the source from several goroutines until stop is called.
func (b *backups) writing() (stop func()) {
	var (
		writers sync.WaitGroup
		done    = make(chan struct{})
	)
	for range 3 {
		r := rand.New(rand.NewPCG(b.random.Uint64(), 1))
		writers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := b.change(b.user, r); err != nil {
					b.t.Errorf("writing: %v", err)
					return
				}
			}
		})
	}
	return func() {
		close(done)
		writers.Wait()
	}
}

// sameAs compares the target with what it should be.
func (b *backups) sameAs(want []byte) {
	b.t.Helper()
	got := b.read(b.target)
	for at := 0; at < len(want); at += 512 {
		if !bytes.Equal(got[at:at+512], want[at:at+512]) {
			b.t.Fatalf("the target differs from offset %d on: %#x, not %#x", at, got[at], want[at])
		}
	}
}

// eachSeed runs a test with several seeds.
func eachSeed(t *testing.T, f func(t *testing.T, seed uint64)) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			f(t, seed)
		})
	}
}

// A full backup is what the source was at the start, whatever is written
// meanwhile.
func TestBackupFull(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		b := newBackups(t, seed, false)
		want := b.readBy(b.user)
		job := b.start(jobs.BackupParams{Sync: jobs.SyncFull})
		stop := b.writing()
		if err := b.finish(job); err != nil {
			t.Fatal(err)
		}
		stop()
		b.sameAs(want)
	})
}

// The host copies where it can, but not past a filter; where it fails others do.
func TestBackupByHost(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"works", "fails", "filter"} {
		t.Run(name, func(t *testing.T) {
			eachSeed(t, func(t *testing.T, seed uint64) {
				b := newBackups(t, seed, false)
				switch name {
				case "fails":
					failAt(b.target, drivertest.Copy, qerr.From(syscall.EIO), func() bool { return true })
				case "filter":
					b.source = b.Add(`{"node-name":"filter","driver":"copy-on-read","file":"source"}`)
					b.Drop(b.user)
					b.user = b.Use(b.source)
				}
				want := b.readBy(b.user)
				job := b.start(jobs.BackupParams{Sync: jobs.SyncFull, UseCopyRange: true})
				stop := b.writing()
				if err := b.finish(job); err != nil {
					t.Fatal(err)
				}
				stop()
				asked := slices.ContainsFunc(drivertest.DiskOf(b.target).TakeCalls(), func(call string) bool {
					return strings.HasPrefix(call, drivertest.Copy)
				})
				if asked != (name != "filter") {
					t.Errorf("the host was asked to copy: %v", asked)
				}
				b.sameAs(want)
			})
		})
	}
}

// A backup of the top copies the clusters of which a part is allocated there,
// and nothing else.
func TestBackupTop(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		b := newBackups(t, seed, true)
		want, source := b.read(b.target), b.readBy(b.user)
		for at := int64(0); at < backupSize; at += backupCluster {
			end := min(at+backupCluster, backupSize)
			if b.allocated(at, end) {
				copy(want[at:end], source[at:end])
			}
		}
		job := b.start(jobs.BackupParams{Sync: jobs.SyncTop})
		stop := b.writing()
		if err := b.finish(job); err != nil {
			t.Fatal(err)
		}
		stop()
		b.sameAs(want)
	})
}

// allocated tells whether a part of an area is allocated in the source.
func (b *backups) allocated(at, end int64) bool {
	for at < end {
		allocated, count, err := b.source.IsAllocated(aio.Outside, at, end-at)
		if err != nil {
			b.t.Fatal(err)
		}
		if allocated {
			return true
		}
		at += count
	}
	return false
}

// Without copying, the target has what was overwritten until the job is
// cancelled.
func TestBackupNone(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		b := newBackups(t, seed, false)
		before := b.readBy(b.user)
		want := b.read(b.target)
		job := b.start(jobs.BackupParams{Sync: jobs.SyncNone})
		b.fill(b.user, 15)
		after := b.readBy(b.user)
		for at := 0; at < backupSize; at += backupCluster {
			end := min(at+backupCluster, backupSize)
			if !bytes.Equal(before[at:end], after[at:end]) {
				copy(want[at:end], before[at:end])
			}
		}
		b.Main(func(l *aio.Lock) {
			if err := job.Cancel(l, true); err != nil {
				t.Error(err)
			}
		})
		if err := b.finish(job); qerr.From(err).Error() != "Operation canceled" {
			t.Errorf("it ended with %v", err)
		}
		got := b.read(b.target)
		for at := 0; at < backupSize; at += backupCluster {
			end := min(at+backupCluster, backupSize)
			if changed := !bytes.Equal(before[at:end], after[at:end]); changed && !bytes.Equal(got[at:end], want[at:end]) {
				t.Fatalf("what was at %d is lost", at)
			}
		}
	})
}

// A full backup and incremental ones on top of it bring the target to each
// state of the source, though writes never stop and one of the backups fails.
func TestBackupIncremental(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		b := newBackups(t, seed, false)
		var bitmap *block.DirtyBitmap
		b.Main(func(l *aio.Lock) {
			var err error
			if bitmap, err = b.source.CreateDirtyBitmap(l, "bm", 0); err != nil {
				t.Fatal(err)
			}
			bitmap.Use(func(bits *hbitmap.Bitmap) { bits.Set(0, bits.Size()) })
		})
		for step := range 5 {
			want := b.readBy(b.user)
			if step == 2 {
				b.failing(b.source.DirtyBitmap("bm"))
				want = b.readBy(b.user)
			}
			job := b.start(jobs.BackupParams{Sync: jobs.SyncIncremental, Bitmap: b.source.DirtyBitmap("bm")})
			stop := b.writing()
			err := b.finish(job)
			stop()
			if err != nil {
				t.Fatal(err)
			}
			b.sameAs(want)
		}
	})
}

// failing is a backup whose target fails.
func (b *backups) failing(bitmap *block.DirtyBitmap) {
	b.t.Helper()
	b.fill(b.user, 20)
	var writes atomic.Int32
	drivertest.DiskOf(b.target).SetHook(func(co *aio.Co, c drivertest.Call) error {
		co.Yield(runtime.Gosched)
		if c.Op != drivertest.Read {
			if writes.Add(1) > 3 {
				return syscall.EIO
			}
		}
		return nil
	})
	job := b.start(jobs.BackupParams{Sync: jobs.SyncIncremental, Bitmap: bitmap, MaxChunk: backupCluster})
	if err := b.finish(job); err == nil {
		b.t.Fatal("it did not fail")
	}
	yieldAlways(b.target)
}

// A paused job has nothing under way, and goes on where it was.
func TestBackupPause(t *testing.T) {
	eachSeed(t, func(t *testing.T, seed uint64) {
		b := newBackups(t, seed, false)
		want := b.readBy(b.user)
		job := b.start(jobs.BackupParams{Sync: jobs.SyncFull, Speed: 32 << 20})
		stop := b.writing()
		b.Main(func(l *aio.Lock) {
			if job.Status(l) != jobs.Running {
				return
			}
			if err := job.Pause(l); err != nil {
				t.Error(err)
				return
			}
			aio.WaitWhile(l, func() bool { return job.Status(l) == jobs.Running })
			if job.Busy(l) {
				t.Error("it is at work")
			}
			if job.Status(l) == jobs.Paused {
				if err := job.Resume(l); err != nil {
					t.Error(err)
				}
			}
		})
		if err := b.finish(job); err != nil {
			t.Fatal(err)
		}
		stop()
		b.sameAs(want)
	})
}
