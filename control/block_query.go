package control

import (
	"slices"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/schema"
)

// registerBlockQuery registers the commands that describe nodes.
func (i *Instance) registerBlockQuery(t *schema.Table) {
	t.QueryBlock(query(i, i.queryBlock))
	t.QueryBlockstats(queryWith(i, i.queryBlockstats))
	t.QueryNamedBlockNodes(queryWith(i, i.queryNamedBlockNodes))
	t.XDebugQueryBlockGraph(query(i, i.queryBlockGraph))
}

// inCoroutine runs a whole query in one coroutine, so that what it asks each
// node runs directly instead of in a coroutine for each question.
func inCoroutine[R any](i *Instance, l *aio.Lock, op string, f func(*aio.Co) (R, error)) (R, error) {
	return aio.Mixed(l, i.graph.Main(), op, f)
}

func (i *Instance) queryNamedBlockNodes(l *aio.Lock, a *schema.QueryNamedBlockNodesArguments) ([]*schema.BlockDeviceInfo, error) {
	flat := deref(a.Flat)
	return inCoroutine(i, l, "query_named_block_nodes", func(co *aio.Co) ([]*schema.BlockDeviceInfo, error) {
		infos := make([]*schema.BlockDeviceInfo, 0, i.graph.Len())
		var err error
		i.graph.Nodes(func(n *block.Node) bool {
			var info *schema.BlockDeviceInfo
			if info, err = blockDeviceInfo(co, n, nil, flat); err != nil {
				return false
			}
			infos = append(infos, info)
			return true
		})
		return infos, err
	})
}

// blockDeviceInfo describes a node; b is the backend through which it is
// looked at, nil if there is none. Through one, filters that users do not know
// of are not seen.
func blockDeviceInfo(co *aio.Co, n *block.Node, b *block.Backend, flat bool) (*schema.BlockDeviceInfo, error) {
	if b != nil {
		n = n.SkipImplicit()
	}
	if n.Ejected() {
		return nil, qerr.New("Block device %s is ejected", n.Name())
	}
	filename := n.ShowFilename()
	name := n.Name()
	flags := n.Flags()
	info := &schema.BlockDeviceInfo{
		File:           filename,
		NodeName:       &name,
		Ro:             n.ReadOnly(),
		Drv:            n.Driver().Name,
		Active:         n.Active(),
		Encrypted:      n.Encrypted(),
		DetectZeroes:   schema.BlockdevDetectZeroesOptions(n.DetectZeroes()),
		WriteThreshold: int64(n.WriteThreshold()),
		DirtyBitmaps:   dirtyBitmapInfos(n),
		Cache: schema.BlockdevCacheInfo{
			Writeback: b == nil || b.WriteCache(),
			Direct:    flags&block.FlagNoCache != 0,
			NoFlush:   flags&block.FlagNoFlush != 0,
		},
	}
	if backing := n.BackingFilename(); backing != "" {
		info.BackingFile = &backing
	}
	if b != nil {
		var err error
		info.BackingFileDepth, err = fillChainInfo(co, &info.Image, n)
		return info, err
	}
	if !flat {
		info.BackingFileDepth = int64(n.BackingDepth())
	}
	return info, fillImageInfo(co, &info.Image, n, filename, flat)
}

// fillImageInfo describes the image in a node and, unless flat, the chain of
// images that shows through it.
func fillImageInfo(co *aio.Co, info *schema.ImageInfo, n *block.Node, filename string, flat bool) error {
	if err := fillNodeInfo(co, info, n, filename); err != nil {
		return err
	}
	below := n.FilterOrCow()
	if flat || below == nil {
		return nil
	}
	info.BackingImage = new(schema.ImageInfo)
	return fillImageInfo(co, info.BackingImage, below, below.ShowFilename(), false)
}

// fillChainInfo is fillImageInfo for a device's disk: without the filters that
// users do not know of. It returns how many images come behind the first.
func fillChainInfo(co *aio.Co, info *schema.ImageInfo, n *block.Node) (depth int64, err error) {
	for ; ; depth++ {
		n = n.SkipImplicit()
		if err := fillNodeInfo(co, info, n, n.ShowFilename()); err != nil {
			return 0, err
		}
		if n = n.FilterOrCow(); n == nil {
			return depth, nil
		}
		info.BackingImage = new(schema.ImageInfo)
		info = info.BackingImage
	}
}

func fillNodeInfo(co *aio.Co, info *schema.ImageInfo, n *block.Node, filename string) error {
	size, err := n.CoGetLength(co)
	if err != nil {
		return qerr.Prepend(err, "Can't get image size '%s': ", filename)
	}
	info.Filename = filename
	info.Format = n.Driver().Name
	info.VirtualSize = size
	if allocated, err := n.CoGetAllocatedFileSize(co); err == nil {
		info.ActualSize = &allocated
	}
	if di, err := n.CoGetInfo(co); err == nil {
		dirty := di.Dirty
		info.DirtyFlag = &dirty
		if di.ClusterSize != 0 {
			info.ClusterSize = &di.ClusterSize
		}
	}
	if n.Encrypted() {
		info.Encrypted = new(true)
	}
	fillBackingInfo(info, n)
	info.Snapshots = snapshots(co, n)
	info.FormatSpecific, err = formatSpecific(co, n)
	return err
}

// fillBackingInfo tells what the image says of its backing file.
func fillBackingInfo(info *schema.ImageInfo, n *block.Node) {
	b := n.ImageBacking()
	if b.Filename == "" {
		return
	}
	info.BackingFilename = &b.Filename
	if full, err := n.FullBackingFilename(); err == nil {
		info.FullBackingFilename = &full
	}
	if b.Format != "" {
		info.BackingFilenameFormat = &b.Format
	}
}

// snapshots are those of the image, or of what the node stands for
// (observed: own/snapshots/filters).
func snapshots(co *aio.Co, n *block.Node) []*schema.SnapshotInfo {
	lister, ok := n.Instance().(block.SnapshotLister)
	for !ok {
		c := n.PrimaryChild()
		if c == nil {
			return nil
		}
		n = c.Node()
		lister, ok = n.Instance().(block.SnapshotLister)
	}
	var list []*schema.SnapshotInfo
	for _, s := range lister.Snapshots(co) {
		list = append(list, snapshotInfo(s))
	}
	return list
}

func snapshotInfo(s block.SnapshotInfo) *schema.SnapshotInfo {
	info := &schema.SnapshotInfo{
		Id: s.ID, Name: s.Name, VmStateSize: int64(s.VMStateSize),
		DateSec: int64(s.DateSec), DateNsec: int64(s.DateNsec),
		VmClockSec: int64(s.VMClockNsec / 1e9), VmClockNsec: int64(s.VMClockNsec % 1e9),
	}
	if icount := int64(s.Icount); icount != -1 {
		info.Icount = &icount
	}
	return info
}

// formatSpecific gives what only the node's driver knows.
func formatSpecific(co *aio.Co, n *block.Node) (*schema.ImageInfoSpecific, error) {
	g, ok := n.Instance().(block.SpecificInfoGetter)
	if !ok {
		return nil, nil
	}
	info, err := g.SpecificInfo(co)
	if err != nil || info == nil {
		return nil, err
	}
	switch data := info.Data.(type) {
	case block.FileSpecific:
		return fileSpecific(data), nil
	case qcow2.Specific:
		return qcow2Specific(data), nil
	case crypto.Info:
		return luksSpecific(data), nil
	}
	return nil, nil
}

func fileSpecific(file block.FileSpecific) *schema.ImageInfoSpecific {
	specific := schema.ImageInfoSpecificFile{}
	if file.ExtentSizeHint != 0 {
		hint := uint64(file.ExtentSizeHint)
		specific.ExtentSizeHint = &hint
	}
	return &schema.ImageInfoSpecific{
		Type:    schema.ImageInfoSpecificKindFile,
		Variant: &schema.ImageInfoSpecificFileWrapper{Data: specific},
	}
}

func qcow2Specific(q qcow2.Specific) *schema.ImageInfoSpecific {
	specific := schema.ImageInfoSpecificQCow2{Compat: q.Compat, RefcountBits: q.RefcountBits}
	if q.CompressionType == schema.Qcow2CompressionTypeZstd.String() {
		specific.CompressionType = schema.Qcow2CompressionTypeZstd
	}
	if v3 := q.V3; v3 != nil {
		specific.LazyRefcounts, specific.Corrupt, specific.ExtendedL2 = &v3.LazyRefcounts, &v3.Corrupt, &v3.ExtendedL2
		if v3.DataFile != "" {
			specific.DataFile = &v3.DataFile
		}
		if v3.External {
			specific.DataFileRaw = &v3.DataFileRaw
		}
	}
	if e := q.Encrypt; e != nil {
		encrypt := &schema.ImageInfoSpecificQCow2Encryption{}
		encrypt.Format, _ = schema.ParseEnum[schema.BlockdevQcow2EncryptionFormat](e.Format)
		if e.LUKS != nil {
			encrypt.Variant = new(luksInfo(*e.LUKS))
		}
		specific.Encrypt = encrypt
	}
	for _, b := range q.Bitmaps {
		specific.Bitmaps = append(specific.Bitmaps, bitmapInfo(b))
	}
	return &schema.ImageInfoSpecific{
		Type:    schema.ImageInfoSpecificKindQcow2,
		Variant: &schema.ImageInfoSpecificQCow2Wrapper{Data: specific},
	}
}

func luksSpecific(l crypto.Info) *schema.ImageInfoSpecific {
	return &schema.ImageInfoSpecific{
		Type:    schema.ImageInfoSpecificKindLuks,
		Variant: &schema.ImageInfoSpecificLUKSWrapper{Data: luksInfo(l)},
	}
}

// luksInfo describes a header; what it names are values of the schema.
func luksInfo(l crypto.Info) schema.QCryptoBlockInfoLUKS {
	info := schema.QCryptoBlockInfoLUKS{
		DetachedHeader: l.Detached,
		PayloadOffset:  l.PayloadOffset,
		MasterKeyIters: l.MasterKeyIters,
		Uuid:           l.UUID,
	}
	info.CipherAlg, _ = schema.ParseEnum[schema.QCryptoCipherAlgo](l.CipherAlg)
	info.CipherMode, _ = schema.ParseEnum[schema.QCryptoCipherMode](l.CipherMode)
	info.IvgenAlg, _ = schema.ParseEnum[schema.QCryptoIVGenAlgo](l.IVGenAlg)
	info.HashAlg, _ = schema.ParseEnum[schema.QCryptoHashAlgo](l.HashAlg)
	if hash, ok := schema.ParseEnum[schema.QCryptoHashAlgo](l.IVGenHashAlg); ok {
		info.IvgenHashAlg = &hash
	}
	for _, s := range l.Slots {
		slot := &schema.QCryptoBlockInfoLUKSSlot{Active: s.Active, KeyOffset: s.KeyOffset}
		if s.Active {
			slot.Iters, slot.Stripes = &s.Iters, &s.Stripes
		}
		info.Slots = append(info.Slots, slot)
	}
	return info
}

func bitmapInfo(b qcow2.Bitmap) *schema.Qcow2BitmapInfo {
	info := &schema.Qcow2BitmapInfo{Name: b.Name, Granularity: b.Granularity, Flags: []schema.Qcow2BitmapInfoFlags{}}
	if b.InUse {
		info.Flags = append(info.Flags, schema.Qcow2BitmapInfoFlagsInUse)
	}
	if b.Auto {
		info.Flags = append(info.Flags, schema.Qcow2BitmapInfoFlagsAuto)
	}
	return info
}

// queryBlockGraph lists what the dump visited, the last first.
func (i *Instance) queryBlockGraph(*aio.Lock) (*schema.XDbgBlockGraph, error) {
	dump := i.graph.Dump()
	g := &schema.XDbgBlockGraph{}
	for _, n := range slices.Backward(dump.Nodes) {
		g.Nodes = append(g.Nodes, &schema.XDbgBlockGraphNode{Id: uint64(n.ID), Type: dumpedKinds[n.Kind], Name: n.Name})
	}
	for _, e := range slices.Backward(dump.Edges) {
		g.Edges = append(g.Edges, &schema.XDbgBlockGraphEdge{
			Parent: uint64(e.Parent), Child: uint64(e.Child), Name: e.Name,
			Perm: permissions(e.Perm), SharedPerm: permissions(e.Shared),
		})
	}
	return g, nil
}

var dumpedKinds = map[block.GraphDumpKind]schema.XDbgBlockGraphNodeType{
	block.DumpedNode:    schema.XDbgBlockGraphNodeTypeBlockDriver,
	block.DumpedBackend: schema.XDbgBlockGraphNodeTypeBlockBackend,
	block.DumpedJob:     schema.XDbgBlockGraphNodeTypeBlockJob,
}

// permissions lists a set, the last of the enumeration first.
func permissions(p block.Perm) []schema.BlockPermission {
	list := []schema.BlockPermission{}
	for _, b := range slices.Backward(permissionBits) {
		if p&b.perm != 0 {
			list = append(list, b.value)
		}
	}
	return list
}

var permissionBits = []struct {
	perm  block.Perm
	value schema.BlockPermission
}{
	{block.PermConsistentRead, schema.BlockPermissionConsistentRead},
	{block.PermWrite, schema.BlockPermissionWrite},
	{block.PermWriteUnchanged, schema.BlockPermissionWriteUnchanged},
	{block.PermResize, schema.BlockPermissionResize},
}
