package luks

import (
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	optKeySecret = "key-secret"
	optHeader    = "header"
)

// Driver is the driver luks.
func Driver() *block.Driver {
	return &block.Driver{
		Name:          "luks",
		Kind:          block.Format,
		StrongOptions: []string{optKeySecret},
		Probe:         probe,
		Open:          open,
		Create:        create,
	}
}

func probe(head []byte, _ string) int {
	if crypto.ProbeLUKS(head) {
		return 100
	}
	return 0
}

// volume is one luks node.
type volume struct {
	node   *block.Node
	file   *block.Child
	header *block.Child // nil if the header is in the file
	secret string       // id of the secret it was opened with
	*crypto.Volume
	payload int64 // where the disk begins in the file, in bytes
	// luks is the header. It changes as a whole, by one amendment at a time.
	luks  atomic.Pointer[crypto.LUKS]
	amend sync.Mutex
	// amending counts the amendments under way, in the main context.
	amending int
}

func open(a *block.OpenArgs) (_ block.Instance, err error) {
	v := &volume{node: a.Node, secret: a.Options.TakeString(optKeySecret, "")}
	a.Announce(v)
	if v.file, err = a.File(); err != nil {
		return nil, err
	}
	if v.header, err = a.Child(optHeader, block.RoleMetadata, true); err != nil {
		return nil, err
	}
	_, err = aio.Mixed(a.Lock, a.Node.Context(), "luks_open", func(co *aio.Co) (struct{}, error) {
		return struct{}{}, v.unlock(co)
	})
	return v, err
}

// unlock opens the volume with the passphrase.
func (v *volume) unlock(co *aio.Co) error {
	l, opened, err := crypto.OpenLUKS(v.storage(co), v.header != nil, v.secret, "", v.node.Graph().Secret)
	if err != nil {
		return err
	}
	v.luks.Store(l)
	v.Volume, v.payload = opened, l.PayloadOffset()
	return nil
}

func (v *volume) Close(*aio.Lock) {}

// storage is where the header is.
func (v *volume) storage(co *aio.Co) crypto.Storage {
	if v.header != nil {
		return storage{co, v.header}
	}
	return storage{co, v.file}
}

// storage makes a child, or a backend, known to package crypto. Behind its end
// there are zeroes. What package crypto does in between takes time, so the
// turn is left to others.
type storage struct {
	co *aio.Co
	on interface {
		CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error
		CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error
	}
}

func (s storage) ReadAt(b []byte, offset int64) (int, error) {
	s.co.LeaveTurn()
	if err := s.on.CoPreadv(s.co, offset, block.Vec{b}, 0); err != nil {
		return 0, qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "Could not read encryption header")
	}
	return len(b), nil
}

func (s storage) WriteAt(b []byte, offset int64) (int, error) {
	s.co.LeaveTurn()
	if err := s.on.CoPwritev(s.co, offset, block.Vec{b}, 0); err != nil {
		return 0, qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "Could not write encryption header")
	}
	return len(b), nil
}

// CoGetLength: a file that ends before the disk begins holds no volume.
func (v *volume) CoGetLength(co *aio.Co) (int64, error) {
	length, err := v.file.Node().CoGetLength(co)
	if err != nil {
		return 0, err
	}
	if length < v.payload {
		return 0, qerr.From(syscall.EIO)
	}
	return length - v.payload, nil
}

func (v *volume) CoTruncate(co *aio.Co, offset int64, exact bool, prealloc block.PreallocMode, flags block.ReqFlags) error {
	if offset > math.MaxInt64-v.payload {
		return errTooLarge
	}
	return v.file.CoTruncate(co, offset+v.payload, exact, prealloc, flags)
}

var errTooLarge = qerr.WithErrnoOnly(syscall.EFBIG, "The requested file size is too large")

// CoGetInfo: the geometry is the file's.
func (v *volume) CoGetInfo(co *aio.Co) (block.DriverInfo, error) {
	return v.file.Node().CoGetInfo(co)
}

// Encrypted tells that the disk is encrypted.
func (v *volume) Encrypted() bool { return true }

// SpecificInfo describes the header.
func (v *volume) SpecificInfo(*aio.Co) (*block.SpecificInfo, error) {
	return &block.SpecificInfo{Type: "luks", Data: v.luks.Load().Info()}, nil
}

// RefreshLimits: a sector is encrypted as a whole.
func (v *volume) RefreshLimits(l *block.Limits) error {
	l.RequestAlignment = crypto.SectorSize
	l.WriteFlags |= v.file.Node().Limits().WriteFlags & block.ReqFUA
	return nil
}

// ChildPerm: the header is looked at whatever the users do. Who has it looked at
// too must not do so while it changes.
func (v *volume) ChildPerm(_ *block.Child, _ block.Role, reopen *block.ReopenState, perm, shared block.Perm) (block.Perm, block.Perm) {
	perm |= block.PermConsistentRead
	if v.amending > 0 {
		perm |= block.PermWrite
		shared &^= block.PermConsistentRead
	}
	return block.DefaultPerms(v.node, block.RoleFilter, reopen, perm, shared)
}

// ReopenPrepare takes no option: none may change.
func (v *volume) ReopenPrepare(*aio.Lock, *block.ReopenState) error { return nil }

func (v *volume) ReopenCommit(*block.ReopenState) {}

func (v *volume) ReopenAbort(*block.ReopenState) {}

// What a volume can do.
var (
	_ block.Reader             = (*volume)(nil)
	_ block.Writer             = (*volume)(nil)
	_ block.LengthGetter       = (*volume)(nil)
	_ block.Truncater          = (*volume)(nil)
	_ block.InfoGetter         = (*volume)(nil)
	_ block.Encrypter          = (*volume)(nil)
	_ block.SpecificInfoGetter = (*volume)(nil)
	_ block.LimitsRefresher    = (*volume)(nil)
	_ block.ChildPermer        = (*volume)(nil)
	_ block.Reopener           = (*volume)(nil)
	_ block.Amender            = (*volume)(nil)
	_ block.AmendPreparer      = (*volume)(nil)
)
