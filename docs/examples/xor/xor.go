// Package xor is a small complete driver, for docs/adding-a-driver.md: a
// format whose bytes are those of its file child, each combined with a key by
// exclusive or.
//
// # Options
//
//   - file: the child that holds the bytes.
//   - key: 0 … 255, by default 0x5a. It can change on reopen; left out, it
//     returns to its default.
//
// # Limits
//
// It hides nothing from anybody. Zeroes are written as data, since what reads
// as zero here is no zero in the file; discards are dropped for the same
// reason.
package xor

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

const (
	optKey     = "key"
	defaultKey = 0x5a
)

// Driver is the driver xor.
func Driver() *block.Driver {
	return &block.Driver{
		Name:           "xor",
		Kind:           block.Format, // no filter: it shows other data than its child
		StrongOptions:  []string{optKey},
		MutableOptions: []string{optKey},
		Open:           open,
	}
}

// disk is one xor node.
type disk struct {
	file *block.Child
	key  byte
}

func open(a *block.OpenArgs) (block.Instance, error) {
	key, err := takeKey(a.Options)
	if err != nil {
		return nil, err
	}
	file, err := a.FileAs(block.RoleData | block.RolePrimary)
	if err != nil {
		return nil, err
	}
	return &disk{file, key}, nil
}

func takeKey(o *block.Options) (byte, error) {
	key, err := o.TakeNumber(optKey, defaultKey)
	if err != nil {
		return 0, err
	}
	if key > 0xff {
		return 0, qerr.New("key must be at most 255")
	}
	return byte(key), nil
}

func (d *disk) Close(*aio.Lock) {}

// combine is its own inverse. out may be in.
func (d *disk) combine(out, in []byte) {
	for i, b := range in {
		out[i] = b ^ d.key
	}
}

func (d *disk) CoPreadv(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	if err := d.file.CoPreadv(co, offset, v, flags); err != nil {
		return err
	}
	for _, buf := range v {
		d.combine(buf, buf)
	}
	return nil
}

// CoPwritev works on a copy: the buffers of a write belong to the caller.
func (d *disk) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	out := make([]byte, 0, v.Len())
	for _, buf := range v {
		out = append(out, buf...)
	}
	d.combine(out, out)
	return d.file.CoPwritev(co, offset, block.Vec{out}, flags)
}

func (d *disk) CoGetLength(co *aio.Co) (int64, error) { return d.file.Node().CoGetLength(co) }

func (d *disk) CoTruncate(co *aio.Co, offset int64, exact bool, prealloc block.PreallocMode, flags block.ReqFlags) error {
	return d.file.CoTruncate(co, offset, exact, prealloc, flags)
}

// RefreshLimits: what makes the child's writes durable makes ours durable.
func (d *disk) RefreshLimits(l *block.Limits) error {
	l.WriteFlags |= d.file.Node().Limits().WriteFlags & block.ReqFUA
	return nil
}

func (d *disk) ReopenPrepare(_ *aio.Lock, st *block.ReopenState) error {
	key, err := takeKey(st.Options)
	st.Driver = key
	return err
}

// ReopenCommit runs in a drained section: no request is under way.
func (d *disk) ReopenCommit(st *block.ReopenState) { d.key = st.Driver.(byte) }

func (d *disk) ReopenAbort(*block.ReopenState) {}

// What an xor disk can do.
var (
	_ block.Reader          = (*disk)(nil)
	_ block.Writer          = (*disk)(nil)
	_ block.LengthGetter    = (*disk)(nil)
	_ block.Truncater       = (*disk)(nil)
	_ block.LimitsRefresher = (*disk)(nil)
	_ block.Reopener        = (*disk)(nil)
)
