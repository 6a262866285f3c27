package qcow2

import (
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/qerr"
)

// The options of a new image, besides those of a node.
const (
	optFile            = "file"
	optSize            = "size"
	optVersion         = "version"
	optExtendedL2      = "extended-l2"
	optClusterSize     = "cluster-size"
	optPreallocation   = "preallocation"
	optBackingFile     = "backing-file"
	optBackingFormat   = "backing-fmt"
	optRefcountBits    = "refcount-bits"
	optDataFileRaw     = "data-file-raw"
	optCompressionType = "compression-type"
)

const (
	defaultClusterSize  = 65536
	defaultRefcountBits = 16
	// minExtendedCluster is the smallest cluster that has subclusters.
	minExtendedCluster = minSubcluster * subclusters
)

var (
	versionNames  = []string{"v2", "v3"}
	preallocNames = []string{
		block.PreallocOff.String(), block.PreallocMetadata.String(), block.PreallocFalloc.String(), block.PreallocFull.String(),
	}
)

// newImage is an image that is to be made.
type newImage struct {
	args *block.CreateArgs
	file *block.Node
	data *block.Node // nil: the file holds the data as well

	size     uint64
	prealloc block.PreallocMode
	header   header
	// backing: there is a backing file, whose name may be empty.
	backing                    bool
	backingFile, backingFormat string
	// crypt is the encryption method, and secret the id of the one for it, once
	// the image is encrypted.
	crypt  uint32
	secret string
}

// create makes an image in three steps, as the reference does: an empty one is
// written, opened and completed; then it is opened once more, and closed, to be
// durable. Each opening counts in the names of nodes.
func create(co *aio.Co, a *block.CreateArgs) (err error) {
	n := &newImage{args: a}
	defer n.close(co)
	if n.file, err = a.Node(co, optFile); err != nil {
		return err
	}
	if err := n.takeOptions(co); err != nil {
		return err
	}
	if err := n.writeEmpty(co); err != nil {
		return err
	}
	if err := n.complete(co); err != nil {
		return err
	}
	return n.settle(co)
}

func (n *newImage) close(co *aio.Co) {
	for _, node := range []*block.Node{n.data, n.file} {
		if node != nil {
			n.args.Unref(co, node)
		}
	}
}

// takeOptions takes and checks all options, and opens the data file. What is
// checked first is the reference's choice, and so are the words.
func (n *newImage) takeOptions(co *aio.Co) (err error) {
	o, h := n.args.Options, &n.header
	if n.size, err = o.TakeSize(optSize, 0); err != nil {
		return err
	}
	if n.size%sectorSize != 0 {
		return qerr.New("Image size must be a multiple of %d bytes", sectorSize)
	}
	version, err := o.TakeEnum(optVersion, versionNames, 1)
	if err != nil {
		return err
	}
	h.version = uint32(version) + 2
	for _, take := range []func(*block.Options) error{n.takeGeometry, n.takeBacking, n.takeRefcounts} {
		if err := take(o); err != nil {
			return err
		}
	}
	if err := n.takeDataFile(co, o); err != nil {
		return err
	}
	return n.takeCompression(o)
}

func (n *newImage) takeGeometry(o *block.Options) error {
	h := &n.header
	extended, err := o.TakeBool(optExtendedL2, false)
	if err != nil {
		return err
	}
	if extended && h.version < 3 {
		return needsVersion3("Extended L2 entries are only supported with compatibility level 1.1 and above")
	}
	size, err := o.TakeSize(optClusterSize, defaultClusterSize)
	if err != nil {
		return err
	}
	if size < 1<<minClusterBits || size > 1<<maxClusterBits || size&(size-1) != 0 {
		return qerr.New("Cluster size must be a power of two between %d and %dk", 1<<minClusterBits, 1<<(maxClusterBits-10))
	}
	if extended && size < minExtendedCluster {
		return qerr.New("Extended L2 entries are only supported with cluster sizes of at least %d bytes", minExtendedCluster)
	}
	h.clusterBits = uint32(log2(size))
	if extended {
		h.incompatible |= featureExtendedL2
	}
	return nil
}

func needsVersion3(why string) error { return qerr.New("%s (use version=v3 or greater)", why) }

func (n *newImage) takeBacking(o *block.Options) error {
	mode, err := o.TakeEnum(optPreallocation, preallocNames, int(block.PreallocOff))
	if err != nil {
		return err
	}
	n.prealloc = block.PreallocMode(mode)
	n.backing = o.Has(optBackingFile)
	n.backingFile = o.TakeString(optBackingFile, "")
	n.backingFormat = o.TakeString(optBackingFormat, "")
	switch {
	case n.prealloc != block.PreallocOff && n.backing && !n.header.extendedL2():
		return qerr.New("Backing file and preallocation can only be used at the same time if extended_l2 is on")
	case n.backingFormat != "" && !n.backing:
		return qerr.New("Backing format cannot be used without backing file")
	}
	return nil
}

func (n *newImage) takeRefcounts(o *block.Options) error {
	h := &n.header
	lazy, err := o.TakeBool(optLazyRefcounts, false)
	if err != nil {
		return err
	}
	if lazy {
		if h.version < 3 {
			return needsVersion3("Lazy refcounts only supported with compatibility level 1.1 and above")
		}
		h.compatible |= featureLazy
	}
	width, given := o.Get(optRefcountBits)
	if !given {
		width = block.IntOpt(defaultRefcountBits)
	}
	o.Delete(optRefcountBits)
	order, ok := refcountOrder(width.String())
	switch {
	case !ok:
		return qerr.New("Refcount width must be a power of two and may not exceed 64 bits")
	case h.version < 3 && order != 4:
		return needsVersion3("Different refcount widths than 16 bits require compatibility level 1.1 or above")
	}
	h.refcountOrder = order
	return nil
}

// refcountOrder is the binary logarithm of a refcount's width in bits.
func refcountOrder(width string) (order uint32, ok bool) {
	for order := range uint32(7) {
		if width == refcountWidths[order] {
			return order, true
		}
	}
	return 0, false
}

var refcountWidths = []string{"1", "2", "4", "8", "16", "32", "64"}

func (n *newImage) takeDataFile(co *aio.Co, o *block.Options) (err error) {
	h, given := &n.header, n.args.Has(optDataFile)
	raw, err := o.TakeBool(optDataFileRaw, false)
	switch {
	case err != nil:
		return err
	case raw && !given:
		return qerr.New("data-file-raw requires data-file")
	case raw && n.backing:
		return qerr.New("Backing file and data-file-raw cannot be used at the same time")
	case !given:
		return nil
	case h.version < 3:
		return needsVersion3("External data files are only supported with compatibility level 1.1 and above")
	}
	h.incompatible |= featureDataFile
	if raw {
		h.autoclear |= autoclearDataRaw
	}
	n.data, err = n.args.Node(co, optDataFile)
	return err
}

func (n *newImage) takeCompression(o *block.Options) error {
	h := &n.header
	kind, err := o.TakeEnum(optCompressionType, compressionNames, compressDeflate)
	if err != nil || kind == compressDeflate {
		return err
	}
	if h.version < 3 {
		return needsVersion3("Non-zlib compression type is only supported with compatibility level 1.1 and above")
	}
	h.compression = uint8(kind)
	h.incompatible |= featureCompression
	return nil
}

// writeEmpty writes the header, the refcount table and one refcount block of a
// disk of no length, a cluster each.
func (n *newImage) writeEmpty(co *aio.Co) error {
	b, err := n.args.UseNode(co, n.file, block.PermWrite|block.PermResize, block.PermAll)
	if err != nil {
		return err
	}
	defer n.args.Done(co, b)
	h := &n.header
	h.refTableOffset, h.refTableClusters = uint64(h.clusterSize()), 1
	first, table, counts := block.AlignedMemory(int(h.clusterSize())), block.AlignedMemory(int(h.clusterSize())), block.AlignedMemory(int(h.clusterSize()))
	h.appendFixed(first[:0])
	be.PutUint64(table, 2*uint64(h.clusterSize()))
	for i := range int64(3) {
		writeRefcount(counts, uint(h.refcountOrder), i, 1)
	}
	if err := b.CoPwritev(co, 0, block.Vec{first}, 0); err != nil {
		return qerr.Prepend(err, "Could not write qcow2 header: ")
	}
	if err := b.CoPwritev(co, h.clusterSize(), block.Vec{table, counts}, 0); err != nil {
		return qerr.Prepend(err, "Could not write refcount table: ")
	}
	return nil
}

// options are those with which the image is opened while it is made.
func (n *newImage) options() *block.Options {
	o := block.NewOptions()
	o.Set("driver", block.StringOpt("qcow2"))
	o.Set(optFile, block.StringOpt(n.file.Name()))
	if n.data != nil {
		o.Set(optDataFile, block.StringOpt(n.data.Name()))
	}
	if n.crypt != cryptNone {
		o.Set(optEncryptFormat, block.StringOpt(cryptNames[n.crypt]))
		o.Set(optEncryptSecret, block.StringOpt(n.secret))
	}
	return o
}

// complete gives the image its length and its names.
func (n *newImage) complete(co *aio.Co) error {
	o := n.options()
	o.Set("cache.no-flush", block.BoolOpt(true))
	b, err := n.args.UseImage(co, o, block.FlagRDWR)
	if err != nil {
		return err
	}
	defer n.args.Done(co, b)
	i := b.Node().Instance().(*image)
	i.unfinished = true
	if err := i.changeHeader(co, n.nameDataFile); err != nil {
		return qerr.Prepend(err, "Could not update qcow2 header: ")
	}
	if n.size > maxLength {
		err = qerr.New("Image size cannot be negative")
	} else {
		err = b.Truncate(co, int64(n.size), false, n.prealloc, 0)
	}
	if err != nil {
		return qerr.Prepend(err, "Could not resize image: ")
	}
	if n.backing {
		if err := i.changeBacking(co, n.backingFile, n.backingFormat); err != nil {
			format := n.backingFormat
			if format == "" {
				format = "(null)"
			}
			return qerr.Prepend(err, "Could not assign backing file '"+n.backingFile+"' with format '"+format+"': ")
		}
	}
	if err := n.encrypt(co, i); err != nil {
		return err
	}
	if err := i.writeAll(co); err != nil {
		return err
	}
	return b.CoFlush(co)
}

// maxLength is the greatest number that is a length at all.
const maxLength = 1<<63 - 1

func (n *newImage) nameDataFile(h *header) {
	if n.data != nil {
		h.dataFile, h.hasDataFileName = n.data.Filename(), true
	}
}

// writeAll writes what has changed; closing the image would not tell of a
// failure.
func (i *image) writeAll(co *aio.Co) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	return i.markClean(co)
}

// changeHeader is updateHeader for who does not hold the mutex.
func (i *image) changeHeader(co *aio.Co, change func(*header)) error {
	i.mu.lock(co)
	defer i.mu.unlock()
	return i.updateHeader(co, change)
}

// changeBacking makes the image name a backing file.
func (i *image) changeBacking(co *aio.Co, name, format string) error {
	if len(name) > maxBackingName {
		return qerr.From(syscall.EINVAL)
	}
	return i.changeHeader(co, func(h *header) { h.setBacking(name, format) })
}

// settle opens the image without its backing file, and makes it durable.
func (n *newImage) settle(co *aio.Co) error {
	b, err := n.args.UseImage(co, n.options(), block.FlagRDWR|block.FlagNoBacking)
	if err != nil {
		return err
	}
	defer n.args.Done(co, b)
	return b.CoFlush(co)
}

// encrypt makes the encryption that the options ask for. From then on they are
// those with which the image can be opened.
func (n *newImage) encrypt(co *aio.Co, i *image) error {
	o := n.args.Options.Sub(optEncrypt, true)
	if o.Len() == 0 {
		return nil
	}
	n.secret, n.crypt = o.GetString("key-secret"), cryptLUKS
	if o.GetString("format") != cryptNames[cryptLUKS] {
		n.crypt = cryptAES
		if _, err := crypto.OpenQCow(n.secret, optEncrypt+".", n.args.Graph().Secret); err != nil {
			return err
		}
	} else if err := n.writeLUKS(co, i, o); err != nil {
		return err
	}
	return i.changeHeader(co, func(h *header) {
		h.cryptMethod = n.crypt
		h.haveCrypto = n.crypt == cryptLUKS
	})
}

// writeLUKS writes a LUKS header to clusters of its own.
func (n *newImage) writeLUKS(co *aio.Co, i *image, o *block.Options) error {
	options, err := crypto.TakeCreateOptions(o, optEncrypt+".")
	if err != nil {
		return err
	}
	_, _, err = crypto.CreateLUKS(options, n.args.Graph().Secret, func(size int64) (crypto.Storage, error) {
		co.LeaveTurn()
		i.mu.lock(co)
		defer i.mu.unlock()
		clusters := i.geo.clusters(size)
		at, err := i.alloc(co, clusters, "encryption header")
		if err != nil {
			return nil, err
		}
		i.hdr.cryptoOffset, i.hdr.cryptoLength = uint64(at), uint64(size)
		return cryptHeader{co, i}, i.file.CoPwritev(co, at, block.Vec{block.AlignedMemory(int(clusters << i.geo.clusterBits))}, 0)
	})
	return err
}
