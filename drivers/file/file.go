package file

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// Driver is the driver of regular files.
func Driver() *block.Driver {
	d := driver(regularFile, func() opener { return &regular{} })
	d.Create = create
	return d
}

// HostDevice is the driver of block and character devices.
func HostDevice() *block.Driver {
	d := driver(hostDevice, func() opener { return &device{} })
	d.VariableLength = true
	d.MakesOfExisting = true
	d.ProbeDevice = namesDevice
	return d
}

func namesDevice(filename string) bool {
	info, err := os.Stat(filename)
	return err == nil && info.Mode()&os.ModeDevice != 0
}

// HostCdrom is the driver of CD-ROM drives.
func HostCdrom() *block.Driver {
	d := driver(hostCdrom, func() opener { return &cdrom{} })
	d.VariableLength = true
	return d
}

// opener is an instance before it is open.
type opener interface {
	block.Instance
	open(a *block.OpenArgs, k *kind) error
}

func driver(k *kind, fresh func() opener) *block.Driver {
	return &block.Driver{
		Name:           k.name,
		Kind:           block.Protocol,
		Prefix:         k.name,
		NeedsFilename:  true,
		StrongOptions:  []string{optFilename},
		MutableOptions: []string{optCheckCacheDropped},
		ParseFilename:  parseFilename(k.name + ":"),
		Open: func(a *block.OpenArgs) (block.Instance, error) {
			n := fresh()
			if err := n.open(a, k); err != nil {
				return nil, err
			}
			return n, nil
		},
	}
}

// node is what the drivers share: a descriptor and its care.
type node struct {
	graph *block.Graph
	kind  *kind
	name  string // of the file
	flags block.Flags

	file *descriptor
	// next takes file's place when the change under way is certain; nil if
	// file stays.
	next *descriptor
	// reopen is what a blockdev-reopen under way will set.
	reopen *reopening

	locking locking
	// locks are those that the users of the node need; wanted are those they
	// will need once the change under way is certain.
	locks, wanted lockSet

	cache   cacheOptions
	bounce  bouncePool
	flushed flushState
}

// regular is a node of the driver file, device one of host_device.
type (
	regular struct {
		node
		abilities
		discards discardStats
	}
	device struct {
		node
		abilities
		discards discardStats
	}
)

var (
	_ block.Reader            = (*node)(nil)
	_ block.Writer            = (*node)(nil)
	_ block.Flusher           = (*node)(nil)
	_ block.LengthGetter      = (*node)(nil)
	_ block.AllocatedSizer    = (*node)(nil)
	_ block.LimitsRefresher   = (*node)(nil)
	_ block.PermChecker       = (*node)(nil)
	_ block.Reopener          = (*node)(nil)
	_ block.FilenameRefresher = (*node)(nil)
	_ block.Invalidator       = (*node)(nil)

	_ block.ZeroWriter         = (*regular)(nil)
	_ block.FileDeleter        = (*regular)(nil)
	_ block.Discarder          = (*regular)(nil)
	_ block.Truncater          = (*regular)(nil)
	_ block.StatusGetter       = (*regular)(nil)
	_ block.InfoGetter         = (*regular)(nil)
	_ block.SpecificInfoGetter = (*regular)(nil)
	_ block.StatsGetter        = (*regular)(nil)
	_ block.CopyRanger         = (*regular)(nil)

	_ block.ZeroWriter         = (*device)(nil)
	_ block.Discarder          = (*device)(nil)
	_ block.Truncater          = (*device)(nil)
	_ block.InfoGetter         = (*device)(nil)
	_ block.SpecificInfoGetter = (*device)(nil)
	_ block.StatsGetter        = (*device)(nil)

	_ block.Discarder = (*cdrom)(nil)
	_ block.Truncater = (*cdrom)(nil)
)

// open takes the options and opens the file, for reading only as long as
// nobody writes if the options allow that.
func (n *node) open(a *block.OpenArgs, k *kind) error {
	o, err := takeOptions(a.Options)
	if err != nil {
		return err
	}
	n.graph, n.kind, n.name = a.Graph(), k, o.filename
	n.flags, n.cache = a.Flags, o.cache
	n.file, err = n.openDescriptor(n.accessFlags(n.flags, 0))
	if err != nil {
		return err
	}
	if err := n.checkOpened(n.file, o); err != nil {
		n.file.close()
		return err
	}
	n.locking = o.locking.resolve(n.file)
	return nil
}

func (n *node) checkOpened(d *descriptor, o *options) error {
	if err := o.checkAIO(n.flags); err != nil {
		return err
	}
	return n.checkKind(d)
}

// Close gives up the file and with it every lock.
func (n *node) Close(*aio.Lock) { n.file.close() }

// writers are the permissions that need a file open for writing.
const writers = block.PermWrite | block.PermWriteUnchanged | block.PermResize

// accessFlags are the flags of open(2) for a node with the given flags whose
// users take perm.
func (n *node) accessFlags(flags block.Flags, perm block.Perm) int {
	access := n.kind.openFlags
	onDemand := flags&block.FlagAutoRDOnly != 0
	if flags&block.FlagRDWR != 0 && (!onDemand || perm&writers != 0) {
		access |= unix.O_RDWR
	}
	if flags&block.FlagNoCache != 0 {
		access |= unix.O_DIRECT
	}
	return access
}

// ExactFilename is the path: it says all about a node.
func (n *node) ExactFilename(*block.Options) string { return n.name }
