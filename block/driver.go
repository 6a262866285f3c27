package block

import (
	"github.com/qmpblock/qmpblock/block/aio"
)

// Kind says where in a chain of nodes a driver stands.
type Kind uint8

// A protocol is at the bottom of a chain, a format interprets the bytes of its
// file child, a filter passes requests through and may change them on the way.
const (
	Protocol Kind = iota
	Format
	Filter
)

// Driver describes a kind of node. It is a constant: what belongs to one node
// lives in the [Instance] that Open returns.
type Driver struct {
	// Name is the driver's name in options: "qcow2".
	Name string
	Kind Kind
	// Prefix is the protocol name of file names ("nbd" in "nbd:host:10809"),
	// empty if the driver has no such names.
	Prefix string
	// Transports can follow Prefix behind a plus ("unix" in "nbd+unix:///").
	Transports []string
	// NeedsFilename demands a file name in the options.
	NeedsFilename bool
	// SupportsBacking says that nodes may have a backing child.
	SupportsBacking bool
	// FilterThroughBacking marks filters whose filtered child is 'backing'.
	FilterThroughBacking bool
	// StrongOptions are the options that decide which data a node holds, and so
	// appear in json: file names.
	StrongOptions []string
	// MutableOptions may be left out on reopen although they were given
	// before; they then return to their defaults.
	MutableOptions []string
	// VariableLength says that the length can change behind our back and is
	// asked anew each time.
	VariableLength bool
	// ParseFilename turns a file name into options. Nil: the name is the
	// option "filename".
	ParseFilename func(filename string, o *Options) error
	// ProbeDevice tells whether a file name is that of a device which is the
	// driver's own. Nil: never.
	ProbeDevice func(filename string) bool
	// Probe scores how sure the driver is that a file which begins with head
	// is its own, 0 to 100. Nil: never.
	Probe func(head []byte, filename string) int
	// Open makes a node's instance. It takes the options it knows out of o;
	// what is left over is refused by the caller. Children are opened with
	// [OpenArgs.File] and [OpenArgs.Child]; if Open fails they are closed by
	// the caller.
	Open func(a *OpenArgs) (Instance, error)
	// Create makes an image. It takes the options it knows out of a.Options,
	// which the schema has checked. Nil: the driver makes no images.
	Create func(co *aio.Co, a *CreateArgs) error
	// NewDefaults are options of a new image with their values, as the line shows
	// them that tells of it: in front of its size, and behind it.
	NewDefaults [2]string
	// PlainImages says that an image is a file of its length and nothing else.
	PlainImages bool
	// MakesOfExisting says that a protocol makes no files: an image is made in
	// what is there.
	MakesOfExisting bool
}

// ByName tells whether nodes are named as files are: protocols, and filters that
// have a protocol name of their own ("blkdebug:CONFIG:IMAGE").
func (d *Driver) ByName() bool { return d.Kind == Protocol || d.Prefix != "" }

// OpenArgs is what a driver's Open works with.
type OpenArgs struct {
	// Lock is the main context's: opening runs there.
	Lock *aio.Lock
	// Node is being opened; its name, flags and children are set.
	Node *Node
	// Options are those left for the driver.
	Options *Options
	// Flags are the node's open flags.
	Flags Flags

	// file is the node opened for the child 'file', until it is attached.
	file *Node
	// depth is the number of openings that this one is part of.
	depth int
}

// Instance is a driver's part of one node.
type Instance interface {
	// Close releases what Open took. No request is under way, children are
	// still attached.
	Close(l *aio.Lock)
}

// The abilities of an instance. Offsets and lengths are bytes, within the
// node's length and aligned to its limits. Vectors hold exactly the length of
// the request.
type (
	// Amender changes options of the image, which the schema has checked; with
	// force also in ways that may lose data.
	Amender interface {
		CoAmend(co *aio.Co, o *Options, force bool) error
	}
	// AmendPreparer is told before an amendment begins, which it may refuse,
	// and when nobody asks about it any more, also if it was refused.
	AmendPreparer interface {
		AmendBegin(l *aio.Lock) error
		AmendEnd(l *aio.Lock)
	}
	// Reader reads. Flags may hold Immediate if Limits.ReadFlags does.
	Reader interface {
		CoPreadv(co *aio.Co, offset int64, v Vec, flags ReqFlags) error
	}
	// Writer writes. Flags may hold FUA and Immediate if Limits.WriteFlags
	// does.
	Writer interface {
		CoPwritev(co *aio.Co, offset int64, v Vec, flags ReqFlags) error
	}
	// ZeroWriter writes zeroes faster than Writer; ENOTSUP makes the block
	// layer write them by hand. Parts that are smaller than the limits'
	// alignment for zeroes are offered as well.
	ZeroWriter interface {
		CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags ReqFlags) error
	}
	// CopyRanger writes what src, a node without children, has at srcOffset,
	// without moving it through memory. ENOTSUP: the two do not fit together.
	CopyRanger interface {
		CoCopyRange(co *aio.Co, src *Node, srcOffset, offset, bytes int64) error
	}
	// Discarder drops data. ENOTSUP is no failure.
	Discarder interface {
		CoPdiscard(co *aio.Co, offset, bytes int64) error
	}
	// Flusher makes finished writes durable. The children are flushed by the
	// block layer after it.
	Flusher interface {
		CoFlush(co *aio.Co) error
	}
	// FlushForwarder replaces what a flush does altogether: the block layer
	// does not go on to the children.
	FlushForwarder interface {
		CoFlushAll(co *aio.Co) error
	}
	// LengthGetter tells the length in bytes, not rounded.
	LengthGetter interface {
		CoGetLength(co *aio.Co) (int64, error)
	}
	// Truncater resizes.
	Truncater interface {
		CoTruncate(co *aio.Co, offset int64, exact bool, prealloc PreallocMode, flags ReqFlags) error
	}
	// AllocatedSizer tells the bytes the node itself takes on disk. Without
	// it the sum over storage children is taken.
	AllocatedSizer interface {
		CoGetAllocatedFileSize(co *aio.Co) (int64, error)
	}
	// StatusGetter tells what lies at offset. The extent begins there; it may
	// go on behind bytes if the driver knows, which spares it questions.
	StatusGetter interface {
		CoBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (Status, error)
	}
	// InfoGetter tells the image's geometry and state.
	InfoGetter interface {
		CoGetInfo(co *aio.Co) (DriverInfo, error)
	}
	// LimitsRefresher states or tightens the node's limits; l starts from
	// those of the children.
	LimitsRefresher interface {
		RefreshLimits(l *Limits) error
	}
	// ChildPermer says what the node takes and shares on a child, given what
	// its users take and share of it. Without it: [DefaultPerms] by role.
	ChildPermer interface {
		ChildPerm(c *Child, role Role, reopen *ReopenState, perm, shared Perm) (Perm, Perm)
	}
	// PermChecker takes part in permission changes of its own node: Check may
	// refuse and prepare; then either Set or Abort follows. Check must not
	// refuse what takes less and shares more than before.
	PermChecker interface {
		CheckPerm(perm, shared Perm) error
		SetPerm(perm, shared Perm)
		AbortPerm()
	}
	// Reopener can change its options in place. Prepare takes the options it
	// knows out of st.Options, as Open does, and changes nothing yet.
	Reopener interface {
		ReopenPrepare(l *aio.Lock, st *ReopenState) error
		ReopenCommit(st *ReopenState)
		ReopenAbort(st *ReopenState)
	}
	// FilenameRefresher knows the plain file name by which a node with the
	// given options (strong ones, children and driver) can be opened again;
	// "" if there is none.
	FilenameRefresher interface {
		ExactFilename(full *Options) string
	}
	// ChildNamer tells what a child is called in the options with which the
	// node can be opened again, if that is not the child's name.
	ChildNamer interface {
		ChildOption(c *Child) string
	}
	// ChildChanger can get further children, and lose some of those that it
	// has; [Node.ChangeChildren] and [Write.ShareChild] help with it.
	ChildChanger interface {
		AddChild(l *aio.Lock, n *Node) error
		RemoveChild(l *aio.Lock, c *Child) error
	}
	// SpecificInfoGetter gives the driver-specific part of ImageInfo.
	SpecificInfoGetter interface {
		SpecificInfo(co *aio.Co) (*SpecificInfo, error)
	}
	// Encrypter tells whether the image is encrypted.
	Encrypter interface {
		Encrypted() bool
	}
	// BackingFileChanger writes into the image what its backing file is called;
	// an empty name: there is none.
	BackingFileChanger interface {
		CoChangeBackingFile(co *aio.Co, b ImageBacking) error
	}
	// FileDeleter deletes the file that the node shows, in which no image could be
	// made.
	FileDeleter interface {
		DeleteFile() error
	}
	// Prefetcher copies an area to where reading it is cheap, and reads nothing.
	Prefetcher interface {
		CoPrefetch(co *aio.Co, offset, bytes int64) error
	}
	// SnapshotLister lists the snapshots within an image.
	SnapshotLister interface {
		Snapshots(co *aio.Co) []SnapshotInfo
	}
	// Snapshotter takes snapshots within an image, and deletes them. No
	// request is under way.
	Snapshotter interface {
		SnapshotLister
		// CanSnapshot tells whether this image can have snapshots.
		CanSnapshot() bool
		// CoSnapshotCreate takes one; its ID is chosen by the driver.
		CoSnapshotCreate(co *aio.Co, info SnapshotInfo) error
		CoSnapshotDelete(co *aio.Co, id string) error
	}
	// StatsGetter gives the driver-specific part of BlockStats.
	StatsGetter interface {
		DriverStats() *DriverStats
	}
	// Invalidator and Inactivator hand a node over to another process and
	// take it back.
	Invalidator interface {
		CoInvalidateCache(co *aio.Co) error
	}
	// ReopenFinisher goes on when a node was reopened, and its children with
	// it: permissions and flags are the new ones.
	ReopenFinisher interface {
		ReopenFinish(l *aio.Lock)
	}
	// Inactivator writes back what another process must see.
	Inactivator interface {
		Inactivate(l *aio.Lock) error
	}
	// BitmapStorer keeps dirty bitmaps in the image.
	BitmapStorer interface {
		// CoCanStoreDirtyBitmap fails if there is no room for one more, or not
		// for one like this.
		CoCanStoreDirtyBitmap(co *aio.Co, name string, granularity int64) error
		// CoRemoveDirtyBitmap takes one out of the image, if it is there.
		CoRemoveDirtyBitmap(co *aio.Co, name string) error
	}
	// Inserter tells whether a removable medium is there; without one no
	// request gets through.
	Inserter interface {
		CoIsInserted(co *aio.Co) bool
	}
	// Debugger is told of what happens on the way of a request, so that it can
	// make requests fail.
	Debugger interface {
		DebugEvent(e DebugEvent)
	}
	// Dropper is told that its filter was taken out of the graph, while somebody
	// may still hold the node.
	Dropper interface {
		Dropped()
	}
	// Drainer is told when a drained section begins and ends.
	Drainer interface {
		DrainBegin()
		DrainEnd()
	}
)

// DriverInfo is what an InfoGetter knows.
type DriverInfo struct {
	// ClusterSize in bytes, 0 if there are no clusters.
	ClusterSize int64
	// SubclusterSize in bytes.
	SubclusterSize int64
	// VMStateOffset is where saved machine states begin.
	VMStateOffset int64
	// Dirty says that the image was not closed cleanly.
	Dirty bool
}

// SpecificInfo is the driver-specific part of an image's description.
type SpecificInfo struct {
	// Type is the member that tells the variants apart ("qcow2").
	Type string
	// Data is the variant; control/ knows the types that drivers use.
	Data any
}

// FileSpecific is what the file driver tells of a file.
type FileSpecific struct {
	// ExtentSizeHint in bytes, 0 if the file system has none.
	ExtentSizeHint int64
}

// SnapshotInfo is a snapshot within an image.
type SnapshotInfo struct {
	ID, Name string
	// VMStateSize is the length of the saved machine's state in bytes.
	VMStateSize uint64
	// DateSec and DateNsec are when it was taken, since 1970.
	DateSec, DateNsec uint32
	// VMClockNsec is how long the guest had run.
	VMClockNsec uint64
	// Icount counts the guest's instructions, 2^64-1 if nobody did.
	Icount uint64
}

// DriverStats is the driver-specific part of a node's statistics.
type DriverStats struct {
	// Driver tells the variants apart ("file").
	Driver string
	// Discards counts requests and bytes as the file driver does.
	DiscardsOK, DiscardsFailed, DiscardBytes uint64
}

// PreallocMode says how a resize prepares the new area.
type PreallocMode uint8

// The modes, as in the QAPI type PreallocMode.
const (
	PreallocOff PreallocMode = iota
	PreallocMetadata
	PreallocFalloc
	PreallocFull
)

var preallocNames = [...]string{"off", "metadata", "falloc", "full"}

func (m PreallocMode) String() string { return preallocNames[m] }

// ReqFlags modify one request.
type ReqFlags uint16

// The request flags.
const (
	// ReqFUA: the data is durable when the request ends.
	ReqFUA ReqFlags = 1 << iota
	// ReqMayUnmap: zeroes may be written by deallocating.
	ReqMayUnmap
	// ReqNoFallback: fail with ENOTSUP rather than write zeroes by hand.
	ReqNoFallback
	// ReqWriteUnchanged: the write does not change what a reader sees.
	ReqWriteUnchanged
	// ReqSerialising: no other request overlaps while this one runs.
	ReqSerialising
	// ReqNoWait: fail with EBUSY rather than wait for an overlapping request.
	ReqNoWait
	// ReqZeroWrite: the area that a resize adds must read as zeroes.
	ReqZeroWrite
	// ReqCompressed: write compressed clusters.
	ReqCompressed
	// ReqImmediate: fail with EAGAIN rather than wait for the medium or for
	// another request, see [Limits.ReadFlags]. Part of it may have been done.
	ReqImmediate
)

// Limits are what a node's driver demands of requests and does well. Zero
// means no limit.
type Limits struct {
	// RequestAlignment: offsets and lengths are multiples of it, at least 1,
	// a power of two. Unaligned requests are bounced by the block layer.
	RequestAlignment int64
	// MaxTransfer bounds one read or write, in bytes.
	MaxTransfer int64
	// OptTransfer is the best size of one.
	OptTransfer int64
	// PDiscardAlignment and MaxPDiscard are the same for discards.
	PDiscardAlignment, MaxPDiscard int64
	// PWriteZeroesAlignment and MaxPWriteZeroes are the same for zeroes.
	PWriteZeroesAlignment, MaxPWriteZeroes int64
	// MinMemAlignment and OptMemAlignment are for the addresses of buffers.
	MinMemAlignment, OptMemAlignment int64
	// MaxIov bounds the number of buffers of a request.
	MaxIov int
	// ReadFlags, WriteFlags, ZeroFlags, TruncateFlags are the request flags the
	// driver understands itself.
	ReadFlags, WriteFlags, ZeroFlags, TruncateFlags ReqFlags
}

// StatusFlags say what lies in an extent.
type StatusFlags uint8

// The flags, with the meaning of the QAPI type MapEntry.
const (
	// StatusData: the extent has data of its own in this layer.
	StatusData StatusFlags = 1 << iota
	// StatusZero: it reads as zeroes.
	StatusZero
	// StatusOffsetValid: Map and File tell where the data is.
	StatusOffsetValid
	// StatusAllocated: this layer decides what is read, not the backing file.
	StatusAllocated
	// StatusRecurse, with StatusOffsetValid: File knows more. Where there is
	// data, it may know that it is zero; without StatusData, StatusZero and
	// StatusAllocated, it alone decides.
	StatusRecurse
	// StatusEOF: the extent ends at the end of the node.
	StatusEOF
	// StatusCompressed: the data is compressed.
	StatusCompressed
)

// Status describes one extent.
type Status struct {
	Flags StatusFlags
	// Bytes is the extent's length from the asked offset on.
	Bytes int64
	// Map is where in File the extent begins, with StatusOffsetValid.
	Map int64
	// File holds the data; nil means the node itself.
	File *Node
}
