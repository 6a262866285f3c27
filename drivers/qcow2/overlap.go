package qcow2

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// overlap is a set of kinds of metadata which writes are kept away from.
type overlap uint16

const (
	overlapHeader overlap = 1 << iota
	overlapActiveL1
	overlapActiveL2
	overlapRefBlock
	overlapRefTable
	overlapSnapshots
	overlapInactiveL1
	overlapInactiveL2
	overlapBitmaps
	overlapKinds = 9

	overlapNone     overlap = 0
	overlapConstant         = overlapHeader | overlapRefTable | overlapSnapshots | overlapBitmaps | overlapActiveL1
	overlapCached           = overlapConstant | overlapActiveL2 | overlapRefBlock | overlapInactiveL1
	overlapAll              = overlapCached | overlapInactiveL2
)

// overlapNames are the options' names and the words in messages, in the order
// of the bits.
var overlapNames = [overlapKinds]struct{ option, words string }{
	{"main-header", "qcow2_header"},
	{"active-l1", "active L1 table"},
	{"active-l2", "active L2 table"},
	{"refcount-block", "refcount block"},
	{"refcount-table", "refcount table"},
	{"snapshot-table", "snapshot table"},
	{"inactive-l1", "inactive L1 table"},
	{"inactive-l2", "inactive L2 table"},
	{"bitmap-directory", "bitmap directory"},
}

// overlapTemplates are the sets that have a name.
var overlapTemplates = map[string]overlap{
	"none": overlapNone, "constant": overlapConstant, "cached": overlapCached, "all": overlapAll,
}

const optOverlap = "overlap-check"

// takeOverlap takes the option, which is a template or an object.
func takeOverlap(o *block.Options) (overlap, error) {
	plain := o.TakeString(optOverlap, "")
	template := o.TakeString(optOverlap+".template", "")
	if plain != "" && template != "" && plain != template {
		return 0, qerr.New("Conflicting values for qcow2 options '%s' ('%s') and '%s.template' ('%s')",
			optOverlap, plain, optOverlap, template)
	}
	if plain == "" {
		plain = template
	}
	if plain == "" {
		plain = "cached"
	}
	set, ok := overlapTemplates[plain]
	if !ok {
		return 0, qerr.New("Unsupported value '%s' for qcow2 option '%s'. Allowed are any of the following: none, constant, cached, all",
			plain, optOverlap)
	}
	for bit, name := range overlapNames {
		mask := overlap(1) << bit
		on, err := o.TakeBool(optOverlap+"."+name.option, set&mask != 0)
		if err != nil {
			return 0, err
		}
		set &^= mask
		if on {
			set |= mask
		}
	}
	return set, nil
}

// checkOverlap refuses a write to the file that would hit metadata.
func (i *image) checkOverlap(co *aio.Co, offset, bytes int64, except overlap) error {
	hit := i.overlapping(offset, bytes, i.opts.overlap&^except)
	if hit == 0 {
		return nil
	}
	var words string
	for bit, name := range overlapNames {
		if hit == 1<<bit {
			words = name.words
		}
	}
	return i.corrupt(co, true, offset, bytes, "Preventing invalid write on metadata (overlaps with %s)", words)
}

// overlapping tells which metadata lies in an area, the first kind found.
func (i *image) overlapping(offset, bytes int64, kinds overlap) overlap {
	if bytes == 0 {
		return 0
	}
	size := i.geo.clusterSize
	start := i.geo.clusterStart(offset)
	bytes = i.geo.clusterEnd(offset+bytes) - start
	in := func(at, length int64) bool { return at != 0 && at < start+bytes && start < at+length }
	switch {
	case kinds&overlapHeader != 0 && start < size:
		return overlapHeader
	case kinds&overlapActiveL1 != 0 && in(int64(i.hdr.l1Offset), i.l1.bytes()):
		return overlapActiveL1
	case kinds&overlapActiveL2 != 0 && i.tables.touches(start, bytes, size):
		return overlapActiveL2
	case kinds&overlapRefTable != 0 && in(int64(i.hdr.refTableOffset), int64(len(i.refs.table))*8):
		return overlapRefTable
	case kinds&overlapSnapshots != 0 && in(int64(i.hdr.snapshotsOffset), i.snapshotTableSize()):
		return overlapSnapshots
	case kinds&overlapBitmaps != 0 && in(int64(i.hdr.bitmaps.directoryOffset), int64(i.hdr.bitmaps.directorySize)):
		return overlapBitmaps
	case kinds&overlapRefBlock != 0 && i.refs.blocks.touches(start, bytes, size):
		return overlapRefBlock
	}
	for n := range i.snapshots {
		s := &i.snapshots[n]
		if kinds&overlapInactiveL1 != 0 && in(s.l1Offset, int64(s.l1Size)*8) {
			return overlapInactiveL1
		}
		if kinds&overlapInactiveL2 != 0 && s.tables.touches(start, bytes, size) {
			return overlapInactiveL2
		}
	}
	return 0
}
