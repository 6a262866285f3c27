// Package blkdebug is a filter that makes requests fail, at moments that rules
// name.
//
// # Options
//
//   - image: the disk. All requests go there that do not fail here.
//   - config: a file with rules, see below.
//   - align: the alignment of requests, in bytes, a power of two below 2 GiB, 0
//     for that of no filter.
//   - max-transfer, opt-write-zero, max-write-zero, opt-discard, max-discard: the
//     node's other limits, in bytes, multiples of each other where the names
//     suggest it, and of align; 0 for none. Zeroes are written as data where an
//     area is no multiple of opt-write-zero.
//   - inject-error, set-state: rules.
//   - take-child-perms, unshare-child-perms: permissions to take on the image,
//     or to deny to others, besides those that its users need.
//
// A node is also named by "blkdebug:CONFIG:IMAGE". On reopen all stays as it is.
//
// # Rules
//
// The node is told of events ([block.DebugEvent]): those on its own way of a
// request, and those of a format or protocol that has it as its file. The node
// has a state, at first 1. A rule belongs to an event, and to a state, 0 for
// all of them.
//
// set-state makes new_state the state; of several rules the first does. The
// rules of inject-error that an event finds take the place of those that another
// one found before: the first of them that fits a request makes it fail with
// errno, by default that of EIO, from then on, or once. It fits requests of a
// kind, iotype, by default all but questions for the block status, if they touch
// a sector, by default any. The event none is there when the node is made.
//
// A request that fails does so later, as one to a medium would, or with
// immediately at once.
//
// # The config file
//
// It has a section for each rule, [inject-error] or [set-state], which may have
// a name, and lines like
//
//	event = "pwritev"
//
// The spaces around the equals sign are needed. Comments begin with # at the
// beginning of a line.
//
// # The reference
//
// It can also stop requests, at breakpoints that are set through its I/O tester.
// It dies of a discard that does not keep to align; here nothing is discarded
// then. When the rest of a block cannot be read that a write covers in part, it
// writes what happens to be in its memory; here the write fails.
package blkdebug

import (
	"math"
	"strings"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	name   = "blkdebug"
	prefix = name + ":"

	optImage         = "image"
	optFilename      = "x-image"
	optConfig        = "config"
	optAlign         = "align"
	optMaxTransfer   = "max-transfer"
	optOptWriteZero  = "opt-write-zero"
	optMaxWriteZero  = "max-write-zero"
	optOptDiscard    = "opt-discard"
	optMaxDiscard    = "max-discard"
	optTakePerms     = "take-child-perms"
	optUnsharedPerms = "unshare-child-perms"
)

// Driver is the driver blkdebug.
func Driver() *block.Driver {
	return &block.Driver{
		Name:   name,
		Kind:   block.Filter,
		Prefix: name,
		StrongOptions: []string{
			optConfig, sectionInjectError + ".", sectionSetState + ".",
			optAlign, optMaxTransfer, optOptWriteZero, optMaxWriteZero, optOptDiscard, optMaxDiscard,
		},
		ParseFilename: parseFilename,
		Open:          open,
	}
}

// parseFilename parts "blkdebug:CONFIG:IMAGE"; any other name is the image's.
func parseFilename(filename string, o *block.Options) error {
	rest, ok := strings.CutPrefix(filename, prefix)
	if !ok {
		o.Set(optFilename, block.StringOpt(filename))
		return nil
	}
	config, image, ok := strings.Cut(rest, ":")
	if !ok {
		return qerr.New("blkdebug requires both config file and image path")
	}
	if config != "" {
		o.Set(optConfig, block.StringOpt(config))
	}
	o.Set(optFilename, block.StringOpt(image))
	return nil
}

// filter is one node.
type filter struct {
	rules
	image  *block.Child
	config string
	limits limits
	// take are permissions taken on the image, deny those not shared.
	take, deny block.Perm
}

// limits are the options that demand something of requests, in bytes, 0 where
// they demand nothing.
type limits struct {
	align, maxTransfer, optZero, maxZero, optDiscard, maxDiscard int64
}

func open(a *block.OpenArgs) (block.Instance, error) {
	f := &filter{}
	a.Announce(f)
	list, err := f.takeRules(a.Graph(), a.Options)
	if err != nil {
		return nil, err
	}
	f.rules.init(list)
	if f.take, err = takePerms(a.Options, optTakePerms); err != nil {
		return nil, err
	}
	if f.deny, err = takePerms(a.Options, optUnsharedPerms); err != nil {
		return nil, err
	}
	if f.image, err = a.ChildFile(a.Options.TakeString(optFilename, ""), optImage, block.RoleFilter); err != nil {
		return nil, err
	}
	if f.limits, err = takeLimits(a.Options, f.image.Node().Limits().RequestAlignment); err != nil {
		return nil, err
	}
	f.rules.event(block.DebugNone)
	return f, nil
}

// takePerms takes a list of permissions.
func takePerms(o *block.Options, key string) (perms block.Perm, err error) {
	list := o.Sub(key, true)
	for n := 0; list.Len() > 0; n++ {
		p, err := takePerm(list, n)
		if err != nil {
			return 0, err
		}
		perms |= p
	}
	return perms, nil
}

func takeLimits(o *block.Options, below int64) (l limits, err error) {
	powerOfTwo := func(n int64) bool { return n&(n-1) == 0 }
	if l.align, err = takeLimit(o, optAlign, powerOfTwo); err != nil {
		return l, err
	}
	align := max(l.align, below, 1)
	for _, limit := range []struct {
		key  string
		into *int64
		unit *int64
	}{
		{optMaxTransfer, &l.maxTransfer, &align},
		{optOptWriteZero, &l.optZero, &align},
		{optMaxWriteZero, &l.maxZero, &l.optZero},
		{optOptDiscard, &l.optDiscard, &align},
		{optMaxDiscard, &l.maxDiscard, &l.optDiscard},
	} {
		unit := max(*limit.unit, align)
		*limit.into, err = takeLimit(o, limit.key, func(n int64) bool { return n%unit == 0 })
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

func takeLimit(o *block.Options, key string, fits func(int64) bool) (int64, error) {
	n, err := o.TakeSize(key, 0)
	if err != nil {
		return 0, err
	}
	if n >= math.MaxInt32 || n > 0 && !fits(int64(n)) {
		return 0, qerr.New("Cannot meet constraints with %s %d", key, n)
	}
	return int64(n), nil
}

func (f *filter) Close(*aio.Lock) {}

// DebugEvent tells the rules.
func (f *filter) DebugEvent(e block.DebugEvent) { f.rules.event(e) }

// inject fails if a rule says so; done tells that nothing is to be done besides.
func (f *filter) inject(co *aio.Co, kind iotypes, offset, bytes int64) (done bool, err error) {
	errno, immediately := f.rules.fitting(kind, offset, bytes)
	if errno != 0 && !immediately {
		co.Reschedule()
	}
	if errno > 0 {
		return true, qerr.From(syscall.Errno(errno))
	}
	return errno < 0, nil
}

func (f *filter) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if done, err := f.inject(co, ioRead, offset, v.Len()); done {
		return err
	}
	return f.image.CoPreadv(co, offset, v, flags)
}

func (f *filter) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if done, err := f.inject(co, ioWrite, offset, v.Len()); done {
		return err
	}
	return f.image.CoPwritev(co, offset, v, flags)
}

// CoPwriteZeroes has areas smaller than the preferred alignment written as
// data.
func (f *filter) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	if unit := max(f.limits.optZero, f.limits.align); unit > 1 && (offset%unit != 0 || bytes < unit) {
		return qerr.From(syscall.ENOTSUP)
	}
	if done, err := f.inject(co, ioWriteZeroes, offset, bytes); done {
		return err
	}
	return f.image.CoPwriteZeroes(co, offset, bytes, flags)
}

func (f *filter) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	if unit := f.limits.align; unit > 1 && (offset%unit != 0 || bytes%unit != 0) {
		return qerr.From(syscall.ENOTSUP)
	}
	if done, err := f.inject(co, ioDiscard, offset, bytes); done {
		return err
	}
	return f.image.CoPdiscard(co, offset, bytes)
}

// CoFlush only fails, or not: the block layer flushes the image behind it.
func (f *filter) CoFlush(co *aio.Co) error {
	_, err := f.inject(co, ioFlush, 0, 0)
	return err
}

// CoBlockStatus is that of the image.
func (f *filter) CoBlockStatus(co *aio.Co, _ bool, offset, bytes int64) (block.Status, error) {
	if _, err := f.inject(co, ioBlockStatus, offset, bytes); err != nil {
		return block.Status{}, err
	}
	return block.Status{
		Flags: block.StatusOffsetValid | block.StatusRecurse,
		Bytes: bytes, Map: offset, File: f.image.Node(),
	}, nil
}

func (f *filter) CoGetLength(co *aio.Co) (int64, error) { return f.image.Node().CoGetLength(co) }

// RefreshLimits: a limit that is not given is the image's.
func (f *filter) RefreshLimits(l *block.Limits) error {
	set := func(into *int64, limit int64) {
		if limit != 0 {
			*into = limit
		}
	}
	set(&l.RequestAlignment, f.limits.align)
	set(&l.MaxTransfer, f.limits.maxTransfer)
	set(&l.PWriteZeroesAlignment, f.limits.optZero)
	set(&l.MaxPWriteZeroes, f.limits.maxZero)
	set(&l.PDiscardAlignment, f.limits.optDiscard)
	set(&l.MaxPDiscard, f.limits.maxDiscard)
	l.PassFlags(f.image.Node().Limits())
	return nil
}

// ChildPerm takes and denies what the options say besides.
func (f *filter) ChildPerm(_ *block.Child, _ block.Role, _ *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	return perm | f.take, shared &^ f.deny
}

// ExactFilename is the name if no option has a say in the data but config.
func (f *filter) ExactFilename(full *block.Options) string {
	for _, key := range full.Keys() {
		switch {
		case key == "driver", key == optImage, key == optFilename, key == optConfig, strings.HasPrefix(key, optImage+"."):
		default:
			return ""
		}
	}
	image := f.image.Node().Filename()
	if strings.HasPrefix(image, "json:") {
		return ""
	}
	return prefix + f.config + ":" + image
}

// The options stay as they are, and so does what they made.

func (f *filter) ReopenPrepare(*aio.Lock, *block.ReopenState) error { return nil }
func (f *filter) ReopenCommit(*block.ReopenState)                   {}
func (f *filter) ReopenAbort(*block.ReopenState)                    {}

// What the filter can do.
var (
	_ block.Reader            = (*filter)(nil)
	_ block.Writer            = (*filter)(nil)
	_ block.ZeroWriter        = (*filter)(nil)
	_ block.Discarder         = (*filter)(nil)
	_ block.Flusher           = (*filter)(nil)
	_ block.StatusGetter      = (*filter)(nil)
	_ block.LengthGetter      = (*filter)(nil)
	_ block.LimitsRefresher   = (*filter)(nil)
	_ block.ChildPermer       = (*filter)(nil)
	_ block.FilenameRefresher = (*filter)(nil)
	_ block.Reopener          = (*filter)(nil)
	_ block.Debugger          = (*filter)(nil)
)
