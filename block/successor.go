package block

import "github.com/qmpblock/qmpblock/block/aio"

// CreateSuccessor lets another bitmap record in place of this one, whose bits
// stay as they are while a job uses them. It makes the bitmap busy until
// [DirtyBitmap.Abdicate] or [DirtyBitmap.Reclaim].
func (b *DirtyBitmap) CreateSuccessor(l *aio.Lock) error {
	if err := b.Check(0); err != nil {
		return err
	}
	s, err := b.node.CreateDirtyBitmap(l, "", b.Granularity())
	if err != nil {
		return err
	}
	s.SetEnabled(b.Enabled())
	b.mu.Lock()
	b.disabled, b.successor = true, s
	b.mu.Unlock()
	b.busy = true
	return nil
}

// Abdicate puts the successor in the bitmap's place: the old bits are done
// with. It returns the bitmap that users know by the name from then on.
func (b *DirtyBitmap) Abdicate() *DirtyBitmap {
	s := b.successor
	s.name, s.persistent = b.name, b.persistent
	b.name, b.persistent, b.busy = "", false, false
	b.Release()
	return s
}

// Reclaim adds to the bitmap what its successor recorded, and the successor is
// gone. Writes that come meanwhile are marked in one of the two: those who mark
// them come to the successor first.
func (b *DirtyBitmap) Reclaim() {
	s := b.successor
	enabled := s.Enabled()
	b.mu.Lock()
	b.disabled, b.successor = !enabled, nil
	b.mu.Unlock()
	s.Release()
	b.Add(s)
	b.busy = false
}
