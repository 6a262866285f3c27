package qcow2

import (
	"math"
	"syscall"
	"unsafe"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/qerr"
)

// Driver is the driver qcow2.
func Driver() *block.Driver {
	return &block.Driver{
		Name:            "qcow2",
		Kind:            block.Format,
		SupportsBacking: true,
		StrongOptions:   []string{optEncryptSecret},
		MutableOptions:  mutable(),
		Probe:           probe,
		Open:            open,
		Create:          create,
		NewDefaults: [2]string{
			"cluster_size=65536 extended_l2=off compression_type=zlib",
			"lazy_refcounts=off refcount_bits=16",
		},
	}
}

func probe(head []byte, _ string) int {
	if len(head) >= headerSizeV2 && be.Uint32(head) == magic && be.Uint32(head[4:]) >= 2 {
		return 100
	}
	return 0
}

// open reads the header first, since the options' defaults and the children
// depend on it, and the tables when all children are there.
func open(a *block.OpenArgs) (block.Instance, error) {
	file, err := a.File()
	if err != nil {
		return nil, err
	}
	i := &image{node: a.Node, file: file, data: file}
	if err := i.load(a); err != nil {
		// The data file, if there is one, is given up before all else (observed:
		// own/jobs/drains-failed).
		a.Graph().DrainAll(a.Lock)
		return nil, err
	}
	a.Node.SetImageBacking(block.ImageBacking{Filename: i.hdr.backing, Format: i.hdr.backingFormat})
	i.startCleaner()
	return i, nil
}

// load reads the image's metadata.
func (i *image) load(a *block.OpenArgs) error {
	err := i.coroutine(a.Lock, "qcow2_open", func(co *aio.Co) error { return i.loadHeader(co, a.Options, a.Flags) })
	if err != nil {
		return err
	}
	if err := i.openDataFile(a); err != nil {
		return err
	}
	return i.coroutine(a.Lock, "qcow2_open", func(co *aio.Co) error { return i.loadTables(co) })
}

func (i *image) coroutine(l *aio.Lock, op string, f func(co *aio.Co) error) error {
	_, err := aio.Mixed(l, i.node.Context(), op, func(co *aio.Co) (struct{}, error) {
		return struct{}{}, f(co)
	})
	return err
}

// loadHeader reads what is in the first cluster, and the L1 table.
func (i *image) loadHeader(co *aio.Co, o *block.Options, flags block.Flags) error {
	fixed := block.AlignedMemory(headerSizeMax)
	if err := i.file.CoPreadv(co, 0, block.Vec{fixed}, 0); err != nil {
		return qerr.Prepend(err, "Could not read qcow2 header: ")
	}
	h, err := parseHeader(fixed)
	if err != nil {
		return err
	}
	cluster := block.AlignedMemory(int(h.clusterSize()))
	if err := i.file.CoPreadv(co, 0, block.Vec{cluster}, 0); err != nil {
		return qerr.Prepend(err, "Could not read qcow2 header: ")
	}
	if _, err := h.extensionsEnd(); err != nil {
		return err
	}
	if err := h.checkCompression(); err != nil {
		return err
	}
	if err := h.parseFeatures(cluster); err != nil {
		return err
	}
	if h.incompatible&featureCorrupt != 0 && flags&block.FlagRDWR != 0 && flags&block.FlagCheck == 0 {
		return qerr.WithErrnoOnly(syscall.EACCES, "qcow2: Image is corrupt; cannot be opened read/write")
	}
	if err := h.checkGeometry(i.node.Graph().RefusesOldEncryption()); err != nil {
		return err
	}
	i.hdr, i.geo = h, newGeometry(h)
	i.size.Store(int64(h.size))
	if err := i.loadL1(co); err != nil {
		return err
	}
	var secret string
	if i.opts, secret, err = takeOptions(o, flags, h); err != nil {
		return err
	}
	openLUKS := func() error { return i.openLUKS(co, secret) }
	if err := h.parseExtensions(cluster, openLUKS); err != nil {
		return err
	}
	h.parseBacking(cluster)
	i.secret = secret
	i.geo.setSlice(i.opts.sliceSize)
	i.codec = newCodec(h.compression)
	return nil
}

// readTable reads a table of 64-bit numbers.
func (i *image) readTable(co *aio.Co, offset uint64, entries int64) ([]uint64, error) {
	raw := block.AlignedMemory(int(entries * 8))
	if err := i.file.CoPreadv(co, int64(offset), block.Vec{raw}, 0); err != nil {
		return nil, err
	}
	// In place: the tables of large disks take megabytes.
	table := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(raw))), entries)
	for n := range table {
		table[n] = be.Uint64(raw[n*8:])
	}
	return table, nil
}

// openDataFile attaches the file that holds the guest's data, if the image has
// one.
func (i *image) openDataFile(a *block.OpenArgs) error {
	c, err := a.Child(optDataFile, block.RoleData, true)
	if err != nil {
		return err
	}
	if i.hdr.incompatible&featureDataFile == 0 {
		if c != nil {
			return qerr.New("'data-file' can only be set for images with an external data file")
		}
		if i.hdr.dataRaw() {
			return qerr.New("data-file-raw requires a data file")
		}
		return nil
	}
	if c == nil && i.hdr.hasDataFileName && i.hdr.dataFile == "" {
		return qerr.New("The 'file' block driver requires a file name")
	}
	if c == nil && i.hdr.hasDataFileName {
		if c, err = a.ChildFile(i.hdr.dataFile, optDataFile, block.RoleData); err != nil {
			return err
		}
	}
	if c == nil {
		return qerr.New("'data-file' is required for this image")
	}
	i.data = c
	return nil
}

// loadTables reads the rest, and repairs what a process that was killed has
// left behind.
func (i *image) loadTables(co *aio.Co) error {
	if err := i.openCrypt(); err != nil {
		return err
	}
	if i.hdr.backingTooLong {
		return qerr.New("Backing file name too long")
	}
	if err := i.loadRefcounts(co); err != nil {
		return err
	}
	i.newL2Cache()
	i.frees = frees{cluster: i.geo.clusterSize}
	i.compressEnd = 0
	length, err := i.file.Node().CoGetLength(co)
	if err != nil {
		return err
	}
	i.end = i.geo.clusterEnd(length)
	if err := i.loadSnapshots(co); err != nil {
		return err
	}
	if err := i.loadBitmaps(co); err != nil {
		return err
	}
	i.dirtyBit = i.hdr.incompatible&featureDirty != 0
	i.unrepaired, i.unsure = i.dirtyBit, false
	if i.writable() {
		if err := i.prepareWrites(co); err != nil {
			return err
		}
	}
	return i.adoptBitmaps(co)
}

// prepareWrites brings an image up to date that may be written to.
func (i *image) prepareWrites(co *aio.Co) error {
	err := i.clearStale(co)
	if err == nil && i.hdr.staleBitmaps {
		err = i.setExtension(co, bitmapsExtension{})
	}
	if err != nil {
		return qerr.Prepend(err, "Could not update qcow2 header: ")
	}
	if i.unrepaired {
		return i.repair(co)
	}
	return nil
}

// writable tells whether this process may change the image.
func (i *image) writable() bool { return !i.node.ReadOnly() && i.node.Active() }

func (i *image) newL2Cache() {
	i.l2 = newCache(i.file, i.opts.sliceSize, i.opts.l2Tables)
	i.l2.loads, i.l2.updates = block.DebugL2Load, block.DebugL2Update
	i.l2.before = i.beforeMapping
	i.l2.check = func(co *aio.Co, offset, bytes int64) error {
		return i.checkOverlap(co, offset, bytes, overlapActiveL2)
	}
}

// sizeCaches gives the caches the sizes of the options; the one of L2 tables, in
// which nothing has changed, begins anew.
func (i *image) sizeCaches() {
	i.newL2Cache()
	i.refs.cache.most = i.opts.refTables
}

func (i *image) loadRefcounts(co *aio.Co) error {
	entries := int64(i.hdr.refTableClusters) << i.geo.clusterBits / 8
	i.file.Debug(block.DebugReftableLoad)
	table, err := i.readTable(co, i.hdr.refTableOffset, entries)
	if err != nil {
		return qerr.Prepend(err, "Could not initialize refcount handling: ")
	}
	i.refs = refcounts{
		img:    i,
		table:  table,
		cache:  newCache(i.file, i.geo.clusterSize, i.opts.refTables),
		blocks: offsetsOf(math.MaxUint64&^reservedRef, table),
	}
	i.refs.cache.loads, i.refs.cache.updates = block.DebugRefblockLoad, block.DebugRefblockUpdatePart
	i.refs.cache.check = func(co *aio.Co, offset, bytes int64) error {
		return i.checkOverlap(co, offset, bytes, overlapRefBlock)
	}
	return nil
}

// Close writes what has changed. It has nobody to report a failure to; the
// refcounts on disk are then too high at worst, or marked as too low.
func (i *image) Close(l *aio.Lock) {
	i.stopCleaner()
	if !i.node.Active() || i.node.Ejected() {
		return
	}
	_ = i.coroutine(l, "qcow2_close", func(co *aio.Co) error {
		i.mu.lock(co)
		defer i.mu.unlock()
		if err := i.storeBitmaps(co); err != nil {
			i.node.Complain("Lost persistent bitmaps during inactivation of node '%s': %v", i.node.Name(), err)
		}
		if !i.writable() {
			return nil
		}
		return i.markClean(co)
	})
}

// CoGetLength is the length of the guest's disk.
func (i *image) CoGetLength(*aio.Co) (int64, error) {
	size := i.size.Load()
	if size < 0 {
		return 0, qerr.From(syscall.EFBIG)
	}
	return size &^ (sectorSize - 1), nil
}

// RefreshLimits: requests of any alignment are taken, unless sectors are
// encrypted as a whole, and at once, unless ciphers take their time; zeroes and
// discards are best whole.
func (i *image) RefreshLimits(l *block.Limits) error {
	if i.crypt != nil {
		l.RequestAlignment = crypto.SectorSize
	} else {
		below := i.data.Node().Limits()
		l.ReadFlags |= below.ReadFlags & block.ReqImmediate
		l.WriteFlags |= below.WriteFlags & block.ReqImmediate
	}
	l.PWriteZeroesAlignment = i.geo.subSize
	l.PDiscardAlignment = i.geo.clusterSize
	l.WriteFlags |= block.ReqCompressed
	l.ZeroFlags |= block.ReqMayUnmap | block.ReqNoFallback
	l.TruncateFlags |= block.ReqZeroWrite
	return nil
}

// What an image can do.
var (
	_ block.Reader             = (*image)(nil)
	_ block.Writer             = (*image)(nil)
	_ block.ZeroWriter         = (*image)(nil)
	_ block.Discarder          = (*image)(nil)
	_ block.Flusher            = (*image)(nil)
	_ block.LengthGetter       = (*image)(nil)
	_ block.Truncater          = (*image)(nil)
	_ block.StatusGetter       = (*image)(nil)
	_ block.InfoGetter         = (*image)(nil)
	_ block.LimitsRefresher    = (*image)(nil)
	_ block.ChildPermer        = (*image)(nil)
	_ block.Reopener           = (*image)(nil)
	_ block.ReopenFinisher     = (*image)(nil)
	_ block.BitmapStorer       = (*image)(nil)
	_ block.SpecificInfoGetter = (*image)(nil)
	_ block.Snapshotter        = (*image)(nil)
	_ block.Encrypter          = (*image)(nil)
	_ block.Amender            = (*image)(nil)
	_ block.Invalidator        = (*image)(nil)
	_ block.Inactivator        = (*image)(nil)
)
