// Package snapshotaccess shows the data of a node as it was: what a
// copy-before-write filter keeps.
//
// # Options
//
//   - file: the node that keeps old data ([block.SnapshotAccesser]). Over any
//     other the node can be opened, and reading fails (ENOTSUP).
//
// The node cannot be reopened, and not be written to. What is discarded is kept
// no longer.
package snapshotaccess

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// Driver is the driver snapshot-access.
func Driver() *block.Driver {
	return &block.Driver{
		Name: "snapshot-access",
		Kind: block.Format, // no filter: it shows other data than its child
		Open: open,
	}
}

// view is one node.
type view struct{ file *block.Child }

func open(a *block.OpenArgs) (block.Instance, error) {
	v := &view{}
	a.Announce(v)
	var err error
	v.file, err = a.FileAs(block.RoleData | block.RolePrimary)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Close has nothing to do.
func (v *view) Close(*aio.Lock) {}

// ChildPerm: nothing is taken, since the child's users see other data.
func (v *view) ChildPerm(*block.Child, block.Role, *block.ReopenState, block.Perm, block.Perm) (block.Perm, block.Perm) {
	return 0, block.PermAll
}

// ExactFilename is the child's name.
func (v *view) ExactFilename(*block.Options) string { return v.file.Node().Filename() }

// CoGetLength is the child's length.
func (v *view) CoGetLength(co *aio.Co) (int64, error) { return v.file.Node().CoGetLength(co) }

// CoPreadv reads what was there.
func (v *view) CoPreadv(co *aio.Co, offset int64, vec block.Vec, _ block.ReqFlags) error {
	return v.file.CoPreadvSnapshot(co, offset, vec)
}

// CoBlockStatus tells what was there.
func (v *view) CoBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (block.Status, error) {
	return v.file.CoSnapshotBlockStatus(co, wantZero, offset, bytes)
}

// CoPdiscard says what is not needed any more.
func (v *view) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	return v.file.CoPdiscardSnapshot(co, offset, bytes)
}

// What the node can do.
var (
	_ block.Reader            = (*view)(nil)
	_ block.StatusGetter      = (*view)(nil)
	_ block.Discarder         = (*view)(nil)
	_ block.LengthGetter      = (*view)(nil)
	_ block.ChildPermer       = (*view)(nil)
	_ block.FilenameRefresher = (*view)(nil)
)
