package jobs

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
)

// BackupSync says what a backup copies, as in the QAPI type MirrorSyncMode.
type BackupSync uint8

// The modes. SyncNone saves only what is overwritten, until it is cancelled.
const (
	SyncTop BackupSync = iota
	SyncFull
	SyncNone
	SyncIncremental
	SyncBitmap
)

func (s BackupSync) String() string {
	return [...]string{"top", "full", "none", "incremental", "bitmap"}[s]
}

// BitmapMode says what becomes of a backup's bitmap, as in the QAPI type
// BitmapSyncMode.
type BitmapMode uint8

// The modes: what was copied is clean afterwards, if the job succeeded; never;
// also if it failed.
const (
	OnSuccess BitmapMode = iota
	Never
	Always
)

// longestZeroes is the longest area of zeroes that a backup without a speed
// writes at once, in bytes.
const longestZeroes = 1 << 30

// BackupParams describe a backup.
type BackupParams struct {
	Params
	Graph          *block.Graph
	Source, Target *block.Node
	Speed          int64
	Sync           BackupSync
	// Bitmap says what is copied, or is told what was; nil if there is none.
	Bitmap     *block.DirtyBitmap
	BitmapMode BitmapMode
	// Compress writes compressed clusters, DiscardSource discards what was
	// copied.
	Compress, DiscardSource    bool
	SourceErrors, TargetErrors ErrorPolicy
	// FilterName is the name of the filter over the source, nil for a generated
	// one.
	FilterName *string
	// UseCopyRange lets the host copy where it can.
	UseCopyRange bool
	// MaxWorkers bounds the requests under way, MaxChunk the length of each in
	// bytes (0: as it is best), MinCluster is the least that is copied at once.
	MaxWorkers int64
	MaxChunk   int64
	MinCluster uint64
}

// CheckBitmap fails where what is said of a bitmap makes no sense: with the bitmap,
// where a mode is given, and without.
func (s BackupSync) CheckBitmap(bitmap *block.DirtyBitmap, mode *BitmapMode) error {
	switch {
	case bitmap == nil && mode != nil:
		return qerr.New("Cannot specify bitmap sync mode without a bitmap")
	case bitmap == nil:
		return nil
	case mode == nil:
		return qerr.New("Bitmap sync mode must be given when providing a bitmap")
	case s == SyncNone:
		return qerr.New("sync mode '%s' does not produce meaningful bitmap outputs", s)
	case *mode == Never && s != SyncBitmap && s != SyncIncremental:
		return qerr.New("Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '%s'", s)
	}
	return bitmap.Check(block.BitmapAllowReadOnly)
}

// backup copies a node as it was when the job was made: a filter over the
// source saves what is overwritten, and the job copies the rest, both by the
// same [block.BlockCopy].
type backup struct {
	p      BackupParams
	job    *BlockJob
	filter *block.Node
	copy   *block.BlockCopy
	// tracks: the bitmap has a successor.
	tracks bool

	// What follows changes in turns of the main context.

	working int64            // workers under way
	offset  int64            // how far it has come
	unpaid  int64            // bytes of the last task, which the speed does not know of
	failed  *block.CopyError // the first failure that was not dealt with
	idle    aio.Sleeper      // where it waits for workers
}

// CreateBackup makes a backup of what the source holds now. The caller keeps
// requests away from the source (a drained section) until the job is started
// or given up.
func (s *Set) CreateBackup(l *aio.Lock, p BackupParams) (*BlockJob, error) {
	if err := p.check(l); err != nil {
		return nil, err
	}
	k := &backup{p: p}
	k.idle.Init(s.cfg.Main)
	if err := k.create(l, s); err != nil {
		k.undo(l)
		return nil, err
	}
	return k.job, nil
}

// check refuses what cannot be.
func (p *BackupParams) check(l *aio.Lock) error {
	if p.Source == p.Target {
		return qerr.New("Source and target cannot be the same")
	}
	for _, n := range []*block.Node{p.Source, p.Target} {
		if !n.IsInserted(l) {
			return qerr.New("Device is not inserted: %s", n.Name())
		}
	}
	if p.Compress && p.Target.Limits().WriteFlags&block.ReqCompressed == 0 {
		// The reference prints a name that it does not have.
		return qerr.New("Compression is not supported for this drive ")
	}
	if err := p.Source.CheckBlocked(block.BlockOpBackupSource); err != nil {
		return err
	}
	if err := p.Target.CheckBlocked(block.BlockOpBackupTarget); err != nil {
		return err
	}
	switch {
	case p.MaxWorkers < 1 || p.MaxWorkers > math.MaxInt32:
		return qerr.New("max-workers must be between 1 and %d", math.MaxInt32)
	case p.MaxChunk < 0:
		return qerr.New("max-chunk must be zero (which means no limit) or positive")
	}
	return p.checkLengths(l)
}

func (p *BackupParams) checkLengths(l *aio.Lock) error {
	length, err := p.Source.GetLength(l)
	if err != nil {
		return qerr.Prepend(err, "Unable to get length for '%s': ", p.Source.Name())
	}
	target, err := p.Target.GetLength(l)
	if err != nil {
		return qerr.Prepend(err, "Unable to get length for '%s': ", p.Target.Name())
	}
	if length != target {
		return qerr.New("Source and target image have different sizes")
	}
	return nil
}

// create puts the filter over the source and makes the job. What it has done
// when it fails is undone by Clean.
func (k *backup) create(l *aio.Lock, s *Set) (err error) {
	if k.p.MinCluster > math.MaxInt64 {
		return qerr.New("min-cluster-size too large: %d > %d", k.p.MinCluster, int64(math.MaxInt64))
	}
	if k.p.Bitmap != nil {
		if err := k.p.Bitmap.CreateSuccessor(l); err != nil {
			return err
		}
		k.tracks = true
	}
	if k.filter, err = k.p.Graph.InsertFilter(l, k.filterOptions(), k.p.Source); err != nil {
		return err
	}
	k.copy = k.filter.BlockCopy()
	if k.p.MaxChunk > 0 && k.p.MaxChunk < k.copy.ClusterSize() {
		return qerr.New("Required max-chunk (%d) is less than backup cluster size (%d)", k.p.MaxChunk, k.copy.ClusterSize())
	}
	job, err := s.CreateBlock(l, k, BlockParams{
		Params: k.p.Params, Graph: k.p.Graph, Node: k.filter, Shared: block.PermAll, Speed: k.p.Speed,
	})
	if err != nil {
		return err
	}
	k.choose()
	k.copy.Configure(block.BlockCopyOptions{
		SkipUnallocated: k.p.Sync == SyncTop,
		DiscardSource:   k.p.DiscardSource,
		Compress:        k.p.Compress,
		UseCopyRange:    k.p.UseCopyRange,
		MaxChunk:        k.p.MaxChunk,
		Progress:        &job.Progress,
	})
	k.p.Graph.DrainAll(l)
	if err := job.AddNode(l, "target", k.p.Target, 0, block.PermAll); err != nil {
		job.GiveUp(l)
		return err
	}
	k.job = job
	return nil
}

func (k *backup) filterOptions() *block.Options {
	o := block.NewOptions()
	o.Set("driver", block.StringOpt("copy-before-write"))
	if k.p.FilterName != nil {
		o.Set("node-name", block.StringOpt(*k.p.FilterName))
	}
	o.Set("file", block.StringOpt(k.p.Source.Name()))
	o.Set("target", block.StringOpt(k.p.Target.Name()))
	if k.p.DiscardSource {
		o.Set("discard-source", block.BoolOpt(true))
	}
	o.Set("min-cluster-size", block.StringOpt(strconv.FormatUint(k.p.MinCluster, 10)))
	return o
}

// choose says what is to be copied: the filter began with everything.
func (k *backup) choose() {
	if k.p.Sync != SyncIncremental && k.p.Sync != SyncBitmap {
		return
	}
	k.copy.Bitmap().Use(func(all *hbitmap.Bitmap) {
		all.Clear()
		k.p.Bitmap.Use(all.Merge)
	})
}

func (k *backup) Type() Type { return Backup }

// Run copies what the filter has not saved yet, or waits until the job is
// cancelled.
func (k *backup) Run(co *aio.Co, j *Job) error {
	if k.p.Sync == SyncNone {
		for !j.Cancelled() {
			j.Yield(co)
		}
		return nil
	}
	if k.p.Sync == SyncTop {
		if err := k.forgetUnallocated(co, j); err != nil {
			return err
		}
	}
	for !j.Cancelled() {
		more := k.pass(co, j)
		j.PausePoint(co)
		if failure := k.failed; failure != nil {
			k.failed = nil
			if k.report(co, failure) == ReportError {
				return failure.Err
			}
			// Others have a turn, also if it fails again and again.
			j.Sleep(co, 0)
			if j.Cancelled() {
				// It begins anew before it sees that (observed: own/jobs/backup-rest),
				// and nobody hears of what fails then.
				co.Reschedule()
				k.pass(co, j)
			}
		} else if !more {
			return nil
		}
	}
	return nil
}

// forgetUnallocated takes out what the backing file has before anything is
// copied, so that users know how much there is.
func (k *backup) forgetUnallocated(co *aio.Co, j *Job) error {
	for offset := int64(0); offset >= 0 && !j.Cancelled(); {
		j.PausePoint(co)
		next, err := k.copy.ForgetUnallocated(co, offset)
		if err != nil {
			return err
		}
		offset = next
	}
	return nil
}

// pass copies everything once, as far as nothing fails. It tells whether there
// may be more: what was to be saved for a write and could not. One that begins
// when the job is cancelled already sees that once it has waited for a worker
// (observed: the table of states in tests/reference).
func (k *backup) pass(co *aio.Co, j *Job) (more bool) {
	length := k.copy.Length()
	blind := j.Cancelled()
	for k.offset = 0; k.copy.Pending(k.offset) && k.mayGoOn(co, j, blind); {
		most := int64(longestZeroes)
		if k.job.Speed() > 0 {
			most = 0
		}
		t := k.copy.Next(co, k.offset, length-k.offset, most)
		if t == nil {
			break
		}
		more = true
		blind = blind && k.working < k.p.MaxWorkers
		if k.await(co, k.p.MaxWorkers-1); k.failed != nil {
			k.copy.PutBack(t)
			break
		}
		k.offset, k.unpaid = t.Offset+t.Bytes, t.Bytes
		k.start(co, t)
	}
	k.await(co, 0)
	return k.copy.Wait(co, 0, length) || more
}

// mayGoOn pauses if there is a reason to and waits as long as the speed demands.
// It tells whether there is still a point in doing more, for one who is blind
// also if the job was cancelled without a wait.
func (k *backup) mayGoOn(co *aio.Co, j *Job, blind bool) bool {
	j.PausePoint(co)
	waited := k.throttle(co, j)
	return k.failed == nil && (!j.Cancelled() || blind && !waited)
}

// throttle waits as long as the speed demands after what was started last, if it
// does. A request that fails meanwhile makes it no shorter (observed:
// own/jobs/backup-speed), nor do others that save the rest before they write,
// until something happens to the job (observed: own/jobs/backup-overtaken).
func (k *backup) throttle(co *aio.Co, j *Job) (waited bool) {
	j.takeTurn(co)
	limiter := &k.job.limiter
	wait := limiter.Delay(k.unpaid, time.Now())
	waited = wait > 0
	for k.unpaid = 0; wait > 0 && !j.Cancelled() && k.copy.Pending(k.offset); wait = limiter.Delay(0, time.Now()) {
		j.Sleep(co, wait) // or less, if something happens to the job
	}
	return waited
}

// start lets a worker do a task.
func (k *backup) start(co *aio.Co, t *block.CopyTask) {
	var err error
	k.working++
	co.Fork(k.job.set.cfg.Main, "backup", func(co *aio.Co) { err = k.copy.Run(co, t) }, func(l *aio.Lock, p *aio.PanicError) {
		if p != nil {
			err = p
		}
		k.done(l, err)
	})
}

// done is told that a worker is done.
func (k *backup) done(l *aio.Lock, err error) {
	k.working--
	if err != nil && k.failed == nil {
		if !errors.As(err, &k.failed) {
			k.failed = &block.CopyError{Err: err}
		}
	}
	k.idle.Wake(l)
}

// await waits until at most so many workers are busy. Neither a pause nor a
// cancellation makes it shorter (observed: own/jobs/backup-pause-end).
func (k *backup) await(co *aio.Co, most int64) {
	k.job.takeTurn(co)
	for k.working > most {
		k.idle.Sleep(co, aio.Forever)
	}
}

// report tells users of a failed request, and what is done about it.
func (k *backup) report(co *aio.Co, failure *block.CopyError) ErrorAction {
	op, policy := Write, k.p.TargetErrors
	if failure.Read {
		op, policy = Read, k.p.SourceErrors
	}
	return k.job.handle(co, op, policy, failure.Err)
}

// Pause lets the workers finish: a job at rest has nothing under way. It begins
// anew afterwards, with what has failed meanwhile as well (observed:
// own/jobs/backup-speed).
func (k *backup) Pause(co *aio.Co, _ *Job) {
	k.await(co, 0)
	k.failed, k.offset = nil, 0
}

// Resume has nothing to do.
func (k *backup) Resume(*aio.Co, *Job) {}

// Commit and Abort decide what becomes of the bitmap.
func (k *backup) Commit(*aio.Lock, *Job) { k.settleBitmap(true) }

// Abort is the end of a job that failed or was cancelled.
func (k *backup) Abort(*aio.Lock, *Job) { k.settleBitmap(false) }

// settleBitmap leaves in the bitmap what was written since the beginning, and
// what the target does not have.
func (k *backup) settleBitmap(success bool) {
	if !k.tracks {
		return
	}
	k.tracks = false
	if k.p.BitmapMode == Never || k.p.BitmapMode == OnSuccess && !success {
		k.p.Bitmap.Reclaim()
		return
	}
	b := k.p.Bitmap.Abdicate()
	if !success {
		b.Add(k.copy.Bitmap())
	}
}

// Clean lets go of the nodes. If the job could not be created, undo follows.
func (k *backup) Clean(l *aio.Lock, j *Job) {
	if k.job != nil {
		j.block.ReleaseNodes(l)
		k.undo(l)
	}
}

// undo takes the filter away, and leaves the bitmap as if nothing had been.
func (k *backup) undo(l *aio.Lock) {
	if k.tracks {
		k.tracks = false
		k.p.Bitmap.Reclaim()
	}
	if k.filter == nil {
		return
	}
	filter := k.filter
	k.filter = nil
	// It takes nothing that its users do not take.
	_ = k.p.Graph.DropFilter(l, filter)
	k.p.Graph.Unref(l, filter)
}
