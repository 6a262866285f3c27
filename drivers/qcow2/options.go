package qcow2

import (
	"math"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// The driver's options.
const (
	optLazyRefcounts = "lazy-refcounts"
	optDiscardReq    = "pass-discard-request"
	optDiscardSnap   = "pass-discard-snapshot"
	optDiscardOther  = "pass-discard-other"
	optNoUnref       = "discard-no-unref"
	optCacheSize     = "cache-size"
	optL2CacheSize   = "l2-cache-size"
	optL2EntrySize   = "l2-cache-entry-size"
	optRefCacheSize  = "refcount-cache-size"
	optCleanInterval = "cache-clean-interval"
	optDataFile      = "data-file"
	optEncrypt       = "encrypt"
	optEncryptFormat = "encrypt.format"
	optEncryptSecret = "encrypt.key-secret"
)

// mutable lists what can be left out on reopen.
func mutable() []string {
	m := []string{
		optLazyRefcounts, optDiscardReq, optDiscardSnap, optDiscardOther, optNoUnref, optCacheSize,
		optL2CacheSize, optL2EntrySize, optRefCacheSize, optCleanInterval, optOverlap, optOverlap + ".template",
	}
	for _, n := range overlapNames {
		m = append(m, optOverlap+"."+n.option)
	}
	return m
}

// options are those of one node, as they are in force.
type options struct {
	lazyRefcounts bool
	passDiscard   [freeReasons]bool
	noUnref       bool
	overlap       overlap
	// l2Tables and refTables bound the caches, in tables; sliceSize is the
	// length of one of the L2 cache, in bytes.
	l2Tables, refTables int
	sliceSize           int64
	caches              cacheSizes
	// cleanInterval is in seconds.
	cleanInterval uint64
}

const (
	defaultSliceSize     = 4096
	defaultL2Cache       = 32 << 20
	minL2Tables          = 2
	minRefTables         = 4
	defaultCleanInterval = 600
)

// takeOptions takes the options out of o. The name of the secret that
// decrypts the image is returned besides.
func takeOptions(o *block.Options, flags block.Flags, h *header) (opts options, secret string, err error) {
	if err := opts.takeCaches(o, h); err != nil {
		return opts, "", err
	}
	if opts.cleanInterval, err = o.TakeNumber(optCleanInterval, defaultCleanInterval); err != nil {
		return opts, "", err
	}
	if opts.cleanInterval > math.MaxUint32 {
		return opts, "", qerr.New("Cache clean interval too big")
	}
	if opts.lazyRefcounts, err = o.TakeBool(optLazyRefcounts, h.compatible&featureLazy != 0); err != nil {
		return opts, "", err
	}
	if opts.lazyRefcounts && h.version < 3 {
		return opts, "", qerr.New("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level")
	}
	if opts.overlap, err = takeOverlap(o); err != nil {
		return opts, "", err
	}
	for _, d := range []struct {
		key    string
		reason freeReason
		def    bool
	}{
		{optDiscardReq, freeRequest, flags&block.FlagUnmap != 0},
		{optDiscardSnap, freeSnapshot, true},
		{optDiscardOther, freeOther, false},
	} {
		if opts.passDiscard[d.reason], err = o.TakeBool(d.key, d.def); err != nil {
			return opts, "", err
		}
	}
	opts.passDiscard[freeAlways] = true
	if opts.noUnref, err = o.TakeBool(optNoUnref, false); err != nil {
		return opts, "", err
	}
	if opts.noUnref && h.version < 3 {
		return opts, "", qerr.New("discard-no-unref is only supported since qcow2 version 3")
	}
	secret, err = takeEncrypt(o, h)
	return opts, secret, err
}

// cacheSizes is what the options say of the caches' memory, in bytes.
type cacheSizes struct {
	both, l2, refs          uint64
	bothSet, l2Set, refsSet bool
}

func (opts *options) takeCaches(o *block.Options, h *header) (err error) {
	s := &opts.caches
	cluster := uint64(h.clusterSize())
	s.bothSet, s.l2Set, s.refsSet = o.Has(optCacheSize), o.Has(optL2CacheSize), o.Has(optRefCacheSize)
	if s.both, err = o.TakeSize(optCacheSize, 0); err != nil {
		return err
	}
	if s.l2, err = o.TakeSize(optL2CacheSize, defaultL2Cache); err != nil {
		return err
	}
	if s.refs, err = o.TakeSize(optRefCacheSize, minRefTables*cluster); err != nil {
		return err
	}
	slice, err := o.TakeSize(optL2EntrySize, min(cluster, defaultSliceSize))
	if err != nil {
		return err
	}
	switch {
	case !s.bothSet:
	case s.l2Set && s.refsSet:
		return qerr.New("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
	case s.l2Set && s.l2 > s.both:
		return qerr.New("l2-cache-size may not exceed cache-size")
	case s.refsSet && s.refs > s.both:
		return qerr.New("refcount-cache-size may not exceed cache-size")
	}
	if slice < minSubcluster || slice > cluster || slice&(slice-1) != 0 {
		return qerr.New("L2 cache entry size must be a power of two between %d and the cluster size (%d)", minSubcluster, cluster)
	}
	opts.sliceSize = int64(slice)
	return opts.divideCaches(h)
}

// divideCaches divides memory between the caches. What is not said is as much as
// the whole disk takes, up to a bound, for L2 tables, and little for refcounts.
func (opts *options) divideCaches(h *header) error {
	s := &opts.caches
	cluster := uint64(h.clusterSize())
	needed := h.l1Needed(h.size) * cluster // all L2 tables of the disk: whole clusters
	l2, refs := s.l2, s.refs
	switch {
	case !s.bothSet:
	case s.l2Set:
		refs = s.both - l2
	case s.refsSet:
		l2 = s.both - refs
	case s.both >= needed+minRefTables*cluster:
		l2 = needed
		refs = s.both - l2
	default:
		refs = min(s.both, minRefTables*cluster)
		l2 = s.both - refs
	}
	l2Tables, refTables := max(min(l2, needed)/uint64(opts.sliceSize), minL2Tables), max(refs/cluster, minRefTables)
	switch {
	case l2Tables > math.MaxInt32:
		return qerr.New("L2 cache size too big")
	case refTables > math.MaxInt32:
		return qerr.New("Refcount cache size too big")
	}
	opts.l2Tables, opts.refTables = int(l2Tables), int(refTables)
	return nil
}

var cryptNames = map[uint32]string{cryptAES: "aes", cryptLUKS: "luks"}

// takeEncrypt compares what the options say of encryption with the image.
func takeEncrypt(o *block.Options, h *header) (secret string, err error) {
	format := o.TakeString(optEncryptFormat, "")
	secret = o.TakeString(optEncryptSecret, "")
	name := cryptNames[h.cryptMethod]
	switch {
	case h.cryptMethod > cryptLUKS:
		return "", qerr.New("Unsupported encryption method %d", int32(h.cryptMethod))
	case h.cryptMethod == cryptNone && format != "":
		return "", qerr.New("No encryption in image header, but options specified format '%s'", format)
	case format != "" && format != name:
		return "", qerr.New("Header reported '%s' encryption format but options specify '%s'", name, format)
	}
	return secret, nil
}
