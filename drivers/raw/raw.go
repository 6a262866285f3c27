// Package raw is the format without a format: the disk's bytes are those of
// its file child, or of a window of it.
//
// # Options
//
//   - file: the child that holds the bytes.
//   - offset: where the disk begins in it, in bytes, by default 0. Any byte
//     will do.
//   - size: how long the disk is, in bytes, a multiple of 512; by default it
//     goes to the end of the file. The window must lie within the file.
//
// All can change on reopen; left out, they return to their defaults.
//
// # Limits
//
// A node without a window is as good as no node at all: what its users take
// and share is passed on to the file unchanged, and it can be resized. One
// with offset or size has its place in the file and so lets nobody resize the
// file; with size it cannot be resized itself.
package raw

import (
	"math"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	optOffset = "offset"
	optSize   = "size"
)

// Driver is the driver raw.
func Driver() *block.Driver {
	return &block.Driver{
		Name:           "raw",
		Kind:           block.Format,
		StrongOptions:  []string{optOffset, optSize},
		MutableOptions: []string{optOffset, optSize},
		Probe:          func([]byte, string) int { return 1 },
		Open:           open,
		PlainImages:    true,
	}
}

// window is the part of the file that is the disk.
type window struct {
	offset, size uint64
	// sized says that size is given; else the disk ends where the file does.
	sized bool
}

// everything tells whether the disk is the whole file.
func (w window) everything() bool { return w.offset == 0 && !w.sized }

// start is the offset of a window that has been checked, and so fits.
func (w window) start() int64 { return int64(w.offset) }

// role says what the file is for the node: it is shown as it is, or it holds
// the data of the window.
func (w window) role() block.Role {
	if w.everything() {
		return block.RoleFilter
	}
	return block.RoleData | block.RolePrimary
}

// disk is one raw node.
type disk struct {
	node *block.Node
	file *block.Child
	window
}

func open(a *block.OpenArgs) (block.Instance, error) {
	w, err := takeWindow(a.Options)
	if err != nil {
		return nil, err
	}
	file, err := a.FileAs(w.role())
	if err != nil {
		return nil, err
	}
	return &disk{a.Node, file, w}, w.check(a.Lock, file)
}

func takeWindow(o *block.Options) (window, error) {
	sized := o.Has(optSize)
	offset, err := o.TakeSize(optOffset, 0)
	if err != nil {
		return window{}, err
	}
	size, err := o.TakeSize(optSize, 0)
	if err != nil {
		return window{}, err
	}
	return window{offset, size, sized}, nil
}

// check compares the window with the file's length.
func (w window) check(l *aio.Lock, file *block.Child) error {
	n, err := file.Node().GetLength(l)
	if err != nil {
		return qerr.Prepend(err, "Could not get image size: ")
	}
	length := uint64(n)
	switch {
	case w.offset > length:
		return qerr.New("Offset (%d) cannot be greater than size of the containing file (%d)", w.offset, length)
	case w.size > length-w.offset:
		return qerr.New("The sum of offset (%d) and size (%d) has to be smaller or equal to the "+
			" actual size of the containing file (%d)", w.offset, w.size, length)
	case w.size%block.SectorSize != 0:
		return qerr.New("Specified size is not multiple of %d", block.SectorSize)
	}
	return nil
}

func (d *disk) Close(*aio.Lock) {}

// place turns the disk's offsets into the file's.
func (w window) place(offset, bytes int64, beyond syscall.Errno) (int64, error) {
	if w.sized && uint64(offset)+uint64(bytes) > w.size {
		return 0, qerr.From(beyond)
	}
	if offset > math.MaxInt64-w.start() {
		return 0, qerr.From(syscall.EINVAL)
	}
	return offset + w.start(), nil
}

func (d *disk) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	at, err := d.place(offset, v.Len(), syscall.EINVAL)
	if err != nil {
		return err
	}
	d.file.Debug(block.DebugReadAIO)
	return d.file.CoPreadv(co, at, v, flags)
}

func (d *disk) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	at, err := d.place(offset, v.Len(), syscall.ENOSPC)
	if err != nil {
		return err
	}
	if offset == 0 && d.node.Probed() && !d.staysRaw(v) {
		return qerr.WithErrnoOnly(syscall.EPERM, "Cannot write a header of another format to an image whose format was guessed")
	}
	d.file.Debug(block.DebugWriteAIO)
	return d.file.CoPwritev(co, at, v, flags)
}

// CoCopyRange: what comes to the beginning of a guessed disk has to be looked at.
func (d *disk) CoCopyRange(co *aio.Co, src *block.Node, srcOffset, offset, bytes int64) error {
	if offset == 0 && d.node.Probed() {
		return qerr.From(syscall.ENOTSUP)
	}
	at, err := d.place(offset, bytes, syscall.ENOSPC)
	if err != nil {
		return err
	}
	return d.file.CoCopyRange(co, src, srcOffset, at, bytes, 0)
}

// staysRaw tells whether the disk would be taken for raw again with v at its
// beginning. Requests to guessed disks are whole sectors.
func (d *disk) staysRaw(v block.Vec) bool {
	var head [block.SectorSize]byte
	return d.node.CheckProbed(head[:v.CopyTo(head[:])])
}

func (d *disk) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	at, err := d.place(offset, bytes, syscall.ENOSPC)
	if err != nil {
		return err
	}
	return d.file.CoPwriteZeroes(co, at, bytes, flags)
}

func (d *disk) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	at, err := d.place(offset, bytes, syscall.EINVAL)
	if err != nil {
		return err
	}
	return d.file.CoPdiscard(co, at, bytes)
}

// CoGetLength: the file may be shorter than the window after a reopen that
// put another one in its place.
func (d *disk) CoGetLength(co *aio.Co) (int64, error) {
	length, err := d.file.Node().CoGetLength(co)
	if err != nil {
		return 0, err
	}
	length = max(length-d.start(), 0)
	if d.sized {
		length = min(length, int64(d.size))
	}
	return length, nil
}

func (d *disk) CoTruncate(co *aio.Co, offset int64, exact bool, prealloc block.PreallocMode, flags block.ReqFlags) error {
	if d.sized {
		return qerr.WithErrnoOnly(syscall.ENOTSUP, "Cannot resize fixed-size raw disks")
	}
	if offset > math.MaxInt64-d.start() {
		return qerr.WithErrnoOnly(syscall.EINVAL, "Disk size too large for the chosen offset")
	}
	return d.file.CoTruncate(co, offset+d.start(), exact, prealloc, flags)
}

// CoBlockStatus only says where the file has the area: the block layer asks
// there.
func (d *disk) CoBlockStatus(_ *aio.Co, _ bool, offset, bytes int64) (block.Status, error) {
	return block.Status{
		Flags: block.StatusOffsetValid | block.StatusRecurse,
		Bytes: bytes,
		Map:   offset + d.start(),
		File:  d.file.Node(),
	}, nil
}

func (d *disk) CoGetInfo(co *aio.Co) (block.DriverInfo, error) {
	return d.file.Node().CoGetInfo(co)
}

// RefreshLimits: requests are passed on as they are, so the file does what the
// flags ask for, or the block layer does it there.
func (d *disk) RefreshLimits(l *block.Limits) error {
	if d.node.Probed() {
		l.RequestAlignment = block.SectorSize
	}
	below := d.file.Node().Limits()
	l.ReadFlags |= below.ReadFlags & block.ReqImmediate
	l.WriteFlags |= block.ReqWriteUnchanged | below.WriteFlags&(block.ReqFUA|block.ReqImmediate)
	l.ZeroFlags |= block.ReqWriteUnchanged | block.ReqNoFallback |
		below.ZeroFlags&(block.ReqFUA|block.ReqMayUnmap)
	l.TruncateFlags |= below.TruncateFlags & block.ReqZeroWrite
	return nil
}

// ChildPerm: a node that was opened with a window minds when the file is
// resized, but does not take that for itself unless its users do.
func (d *disk) ChildPerm(_ *block.Child, role block.Role, reopen *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	taken, left := block.DefaultPerms(d.node, role, reopen, perm, shared)
	return taken &^ (block.PermResize &^ perm), left
}

// ReopenPrepare compares the new window with the file as it is now, even if
// the same reopen puts another one in its place, as the reference does.
func (d *disk) ReopenPrepare(l *aio.Lock, st *block.ReopenState) error {
	w, err := takeWindow(st.Options)
	if err != nil {
		return err
	}
	st.Driver = w
	return w.check(l, d.file)
}

func (d *disk) ReopenCommit(st *block.ReopenState) { d.window = st.Driver.(window) }

func (d *disk) ReopenAbort(*block.ReopenState) {}

// What a raw disk can do.
var (
	_ block.Reader          = (*disk)(nil)
	_ block.Writer          = (*disk)(nil)
	_ block.CopyRanger      = (*disk)(nil)
	_ block.ZeroWriter      = (*disk)(nil)
	_ block.Discarder       = (*disk)(nil)
	_ block.LengthGetter    = (*disk)(nil)
	_ block.Truncater       = (*disk)(nil)
	_ block.StatusGetter    = (*disk)(nil)
	_ block.InfoGetter      = (*disk)(nil)
	_ block.LimitsRefresher = (*disk)(nil)
	_ block.ChildPermer     = (*disk)(nil)
	_ block.Reopener        = (*disk)(nil)
)
