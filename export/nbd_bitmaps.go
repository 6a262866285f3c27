package export

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qerr"
)

// takeBitmaps finds the bitmaps that clients shall see and keeps others from
// changing them.
func (e *nbdExport) takeBitmaps(wanted []Bitmap) error {
	for _, w := range wanted {
		b, err := e.findBitmap(w)
		if err != nil {
			return err
		}
		if err := b.Check(block.BitmapAllowReadOnly); err != nil {
			return err
		}
		// A node that the user named is taken for one that does not change (observed:
		// own/flows/export-bitmaps).
		if n := b.Node(); w.Node == nil && !e.writable && b.Enabled() && !n.ReadOnly() && n.Active() {
			return qerr.New("Enabled bitmap '%s' incompatible with readonly export", w.Name)
		}
		e.bitmaps = append(e.bitmaps, b)
	}
	for i, b := range e.bitmaps {
		b.SetBusy(true)
		e.contexts = append(e.contexts, nbd.MetaContext{ID: idBitmap + uint32(i), Name: nbd.ContextDirtyBitmap + b.Name()})
	}
	return nil
}

// findBitmap finds a bitmap of a node, or of the first node of the exported
// chain that has one of the name.
func (e *nbdExport) findBitmap(w Bitmap) (*block.DirtyBitmap, error) {
	if w.Node != nil {
		n, err := e.set.cfg.Graph.Lookup(*w.Node, *w.Node)
		if err != nil {
			return nil, qerr.New("Node '%s' not found", *w.Node)
		}
		return n.FindDirtyBitmap(w.Name)
	}
	for n := e.backend.Node(); n != nil; n = n.FilterOrCow() {
		if b := n.DirtyBitmap(w.Name); b != nil {
			return b, nil
		}
	}
	return nil, qerr.New("Bitmap '%s' is not found", w.Name)
}

// giveBitmapsBack lets others change the bitmaps again.
func (e *nbdExport) giveBitmapsBack() {
	for _, b := range e.bitmaps {
		b.SetBusy(false)
	}
	e.bitmaps = nil
}
