package file

import (
	"errors"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The options of a new file, besides its name.
const (
	optSize           = "size"
	optPreallocation  = "preallocation"
	optNoCOW          = "nocow"
	optExtentSizeHint = "extent-size-hint"
)

// defaultExtentSizeHint spares large files many small extents, in bytes.
const defaultExtentSizeHint = 1 << 20

// newFile is a file that is to be made.
type newFile struct {
	name     string
	length   int64
	prealloc block.PreallocMode
	noCOW    bool
	hint     uint32 // 0: none
}

// create makes a file, or empties one that is there and that nobody else
// resizes or keeps from being resized. One that cannot be completed stays, as
// it is in the reference.
func create(co *aio.Co, a *block.CreateArgs) error {
	f, err := takeNewFile(a.Options)
	if err != nil {
		return err
	}
	d, err := f.open(a.Graph())
	if err != nil {
		return err
	}
	defer d.close()
	// What follows happens behind the reply to the command.
	co.BeginBlocking()
	defer co.EndBlocking()
	if err := d.resize(0); err != nil {
		return err
	}
	d.shape(f)
	return d.setLength(f.length, f.prealloc)
}

func takeNewFile(o *block.Options) (*newFile, error) {
	f := &newFile{name: o.TakeString(optFilename, "")}
	length, err := o.TakeSize(optSize, 0)
	if err != nil {
		return nil, err
	}
	f.length = int64(length)
	mode, err := o.TakeEnum(optPreallocation, preallocNames, int(block.PreallocOff))
	if err != nil {
		return nil, err
	}
	f.prealloc = block.PreallocMode(mode)
	if f.noCOW, err = o.TakeBool(optNoCOW, false); err != nil {
		return nil, err
	}
	hint, err := o.TakeSize(optExtentSizeHint, defaultExtentSizeHint)
	if err != nil {
		return nil, err
	}
	if hint > math.MaxUint32 {
		return nil, qerr.New("Extent size hint is too large")
	}
	f.hint = uint32(hint)
	return f, nil
}

var preallocNames = []string{
	block.PreallocOff.String(), block.PreallocMetadata.String(), block.PreallocFalloc.String(), block.PreallocFull.String(),
}

// open opens the file, makes it if there is none, and locks it.
func (f *newFile) open(g *block.Graph) (*descriptor, error) {
	const flags = unix.O_RDWR | unix.O_CREAT
	file, err := g.OpenFile(f.name, flags)
	switch {
	case errors.Is(err, unix.ENOSYS):
		// A descriptor that nobody has passed (observed: own/jobs/file-create).
		return nil, qerr.From(unix.ENOSYS)
	case err != nil:
		return nil, qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "Could not create '%s'", f.name)
	}
	d := newDescriptor(file, f.name, flags)
	if err := d.lockNew(f.name); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// lockNew locks a file that is to be resized and written to.
func (d *descriptor) lockNew(name string) error {
	if lockAuto.resolve(d) == lockOff {
		return nil
	}
	want := lockSetOf(block.PermWrite|block.PermResize, block.PermAll&^block.PermResize)
	if err := d.lock(want); err != nil {
		return err
	}
	return d.checkRivals(want, name)
}

// fsNoCOWFlag is FS_NOCOW_FL of linux/fs.h.
const fsNoCOWFlag = 0x00800000

// shape asks the file system to treat the file in a certain way. Those that do
// not know how leave it alone.
func (d *descriptor) shape(f *newFile) {
	if f.noCOW {
		if flags, err := unix.IoctlGetInt(d.fd, unix.FS_IOC_GETFLAGS); err == nil {
			_ = unix.IoctlSetPointerInt(d.fd, unix.FS_IOC_SETFLAGS, flags|fsNoCOWFlag)
		}
	}
	if f.hint != 0 {
		d.setExtentSizeHint(f.hint)
	}
}

// DeleteFile deletes the file by its name: of a symbolic link, the link. What is
// no regular file stays (observed: own/jobs/image-too-large).
func (n *regular) DeleteFile() error {
	info, err := os.Stat(n.name)
	if err != nil {
		return qerr.From(err)
	}
	if !info.Mode().IsRegular() {
		return qerr.From(syscall.ENOENT)
	}
	return os.Remove(n.name)
}
