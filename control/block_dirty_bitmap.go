package control

import (
	"fmt"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/block/hbitmap"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerDirtyBitmaps registers the commands of block-core for dirty bitmaps.
func (i *Instance) registerDirtyBitmaps(t *schema.Table) {
	t.BlockDirtyBitmapAdd(actionWith(i, i.dirtyBitmapAdd))
	t.BlockDirtyBitmapRemove(actionWith(i, i.dirtyBitmapRemove))
	t.BlockDirtyBitmapClear(actionWith(i, i.dirtyBitmapClear))
	t.BlockDirtyBitmapEnable(actionWith(i, i.dirtyBitmapEnable))
	t.BlockDirtyBitmapDisable(actionWith(i, i.dirtyBitmapDisable))
	t.BlockDirtyBitmapMerge(actionWith(i, i.dirtyBitmapMerge))
	t.XDebugBlockDirtyBitmapSha256(queryWith(i, i.dirtyBitmapSHA256))
}

// dirtyBitmap finds a bitmap of a node.
func (i *Instance) dirtyBitmap(node, name string) (*block.DirtyBitmap, error) {
	n, err := i.graph.Lookup(node, node)
	if err != nil {
		return nil, qerr.New("Node '%s' not found", node)
	}
	return n.FindDirtyBitmap(name)
}

// usableBitmap is dirtyBitmap for one that an operation may use.
func (i *Instance) usableBitmap(a *schema.BlockDirtyBitmap, allow block.BitmapFlags) (*block.DirtyBitmap, error) {
	b, err := i.dirtyBitmap(a.Node, a.Name)
	if err != nil {
		return nil, err
	}
	return b, b.Check(allow)
}

func (i *Instance) dirtyBitmapAdd(l *aio.Lock, a *schema.BlockDirtyBitmapAdd) error {
	if a.Name == "" {
		return qerr.New("Bitmap name cannot be empty")
	}
	n, err := i.graph.Lookup(a.Node, a.Node)
	if err != nil {
		return err
	}
	granularity := n.DefaultGranularity(l)
	if a.Granularity != nil {
		granularity = int64(*a.Granularity)
		if err := block.CheckGranularity(granularity); err != nil {
			return err
		}
	}
	if deref(a.Persistent) {
		if err := n.CanStoreDirtyBitmap(l, a.Name, granularity); err != nil {
			return err
		}
	}
	b, err := n.CreateDirtyBitmap(l, a.Name, granularity)
	if err != nil {
		return err
	}
	b.SetEnabled(!deref(a.Disabled))
	b.SetPersistent(deref(a.Persistent))
	return nil
}

func (i *Instance) dirtyBitmapRemove(l *aio.Lock, a *schema.BlockDirtyBitmap) error {
	b, err := i.usableBitmap(a, block.BitmapAllowInconsistent)
	if err != nil {
		return err
	}
	if err := b.RemoveStored(l); err != nil {
		return err
	}
	b.Release()
	return nil
}

func (i *Instance) dirtyBitmapClear(_ *aio.Lock, a *schema.BlockDirtyBitmap) error {
	b, err := i.usableBitmap(a, 0)
	if err != nil {
		return err
	}
	b.Clear()
	return nil
}

func (i *Instance) dirtyBitmapEnable(_ *aio.Lock, a *schema.BlockDirtyBitmap) error {
	return i.enableDirtyBitmap(a, true)
}

func (i *Instance) dirtyBitmapDisable(_ *aio.Lock, a *schema.BlockDirtyBitmap) error {
	return i.enableDirtyBitmap(a, false)
}

func (i *Instance) enableDirtyBitmap(a *schema.BlockDirtyBitmap, on bool) error {
	b, err := i.usableBitmap(a, block.BitmapAllowReadOnly)
	if err != nil {
		return err
	}
	b.SetEnabled(on)
	return nil
}

// dirtyBitmapMerge puts everything together first, so that a mistake in the
// middle changes nothing.
func (i *Instance) dirtyBitmapMerge(_ *aio.Lock, a *schema.BlockDirtyBitmapMerge) error {
	target, err := i.dirtyBitmap(a.Node, a.Target)
	if err != nil {
		return err
	}
	if len(a.Bitmaps) == 0 {
		// The reference dies of it.
		return qerr.New("Parameter 'bitmaps' expects at least one bitmap")
	}
	var old *hbitmap.Bitmap
	for _, from := range a.Bitmaps {
		before, err := i.mergeOne(target, a.Node, from)
		if err != nil {
			if old != nil {
				target.Swap(old)
			}
			return err
		}
		if old == nil {
			old = before
		}
	}
	return nil
}

func (i *Instance) mergeOne(target *block.DirtyBitmap, node string, from *schema.BlockDirtyBitmapOrStr) (*hbitmap.Bitmap, error) {
	source := &schema.BlockDirtyBitmap{Node: node}
	if from.External != nil {
		source = from.External
	} else {
		source.Name = *from.Local
	}
	b, err := i.dirtyBitmap(source.Node, source.Name)
	if err != nil {
		return nil, err
	}
	return target.Merge(b)
}

func (i *Instance) dirtyBitmapSHA256(_ *aio.Lock, a *schema.BlockDirtyBitmap) (*schema.BlockDirtyBitmapSha256, error) {
	b, err := i.dirtyBitmap(a.Node, a.Name)
	if err != nil {
		return nil, err
	}
	var sum string
	b.Use(func(bits *hbitmap.Bitmap) { sum = fmt.Sprintf("%x", bits.SHA256()) })
	return &schema.BlockDirtyBitmapSha256{Sha256: sum}, nil
}

// dirtyBitmapInfos describes the bitmaps of a node.
func dirtyBitmapInfos(n *block.Node) []*schema.BlockDirtyInfo {
	var infos []*schema.BlockDirtyInfo
	for _, b := range n.DirtyBitmaps() {
		info := &schema.BlockDirtyInfo{
			Count:       b.Count(),
			Granularity: b.Granularity(),
			Recording:   b.Enabled(),
			Busy:        b.Busy(),
			Persistent:  b.Persistent(),
		}
		if name := b.Name(); name != "" {
			info.Name = &name
		}
		if inconsistent := b.Inconsistent(); inconsistent {
			info.Inconsistent = &inconsistent
		}
		infos = append(infos, info)
	}
	return infos
}
