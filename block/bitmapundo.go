package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
)

// BitmapUndo is what a bitmap was before a change that may have to be undone,
// and what has been written since: writes do not wait for the decision.
type BitmapUndo struct {
	bitmap  *DirtyBitmap
	bits    *hbitmap.Bitmap
	enabled bool
	since   *DirtyBitmap // nil if the bitmap did not record
}

// BeginUndo notes what the bitmap is; [BitmapUndo.End] or [BitmapUndo.Undo]
// follows.
func (b *DirtyBitmap) BeginUndo(l *aio.Lock) (*BitmapUndo, error) {
	u := &BitmapUndo{bitmap: b, enabled: b.Enabled()}
	if u.enabled {
		since, err := b.node.CreateDirtyBitmap(l, "", b.Granularity())
		if err != nil {
			return nil, err
		}
		u.since = since
	}
	u.bits = b.clone()
	return u, nil
}

// End forgets what was noted.
func (u *BitmapUndo) End() {
	if u.since != nil {
		u.since.Release()
	}
}

// Undo makes the bitmap what it was, with what was written since.
func (u *BitmapUndo) Undo() {
	defer u.End()
	b := u.bitmap
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bits, b.disabled = u.bits, !u.enabled
	if u.since != nil {
		u.since.Use(b.bits.Merge)
	}
}
