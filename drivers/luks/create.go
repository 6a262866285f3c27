package luks

import (
	"errors"
	"math"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/qerr"
)

// The options of a new volume, besides those of its encryption.
const (
	optFile          = "file"
	optSize          = "size"
	optPreallocation = "preallocation"
)

var preallocNames = []string{
	block.PreallocOff.String(), block.PreallocMetadata.String(), block.PreallocFalloc.String(), block.PreallocFull.String(),
}

// newVolume is a volume that is to be made.
type newVolume struct {
	size         uint64 // of the disk, in bytes
	prealloc     block.PreallocMode
	header, file *block.Backend // nil if not given
}

// create makes a volume. With a node for the header, that of the data, if there
// is one, only gets its length.
func create(co *aio.Co, a *block.CreateArgs) error {
	n, err := takeNewVolume(a)
	if err != nil {
		return err
	}
	options, err := crypto.TakeCreateOptions(a.Options, "")
	if err != nil {
		return err
	}
	defer n.done(co, a)
	if err := n.use(co, a); err != nil {
		return err
	}
	secrets := a.Graph().Secret
	if n.header == nil {
		_, _, err := crypto.CreateLUKS(options, secrets, func(size int64) (crypto.Storage, error) {
			return storage{co, n.file}, n.makeRoom(co, uint64(size))
		})
		return err
	}
	options.Detached = true
	_, _, err = crypto.CreateLUKS(options, secrets, func(size int64) (crypto.Storage, error) {
		return storage{co, n.header}, n.header.Truncate(co, size, false, block.PreallocOff, 0)
	})
	if err != nil || n.file == nil {
		return err
	}
	err = n.makeRoom(co, 0)
	if err != nil && err != errTooLarge {
		// The reference only knows the number (observed).
		return qerr.From(qerr.ErrnoOf(err, syscall.EIO))
	}
	return err
}

func takeNewVolume(a *block.CreateArgs) (*newVolume, error) {
	size, err := a.Options.TakeSize(optSize, 0)
	if err != nil {
		return nil, err
	}
	mode, err := a.Options.TakeEnum(optPreallocation, preallocNames, int(block.PreallocOff))
	if err != nil {
		return nil, err
	}
	switch hasFile := a.Has(optFile); {
	case !hasFile && !a.Has(optHeader):
		return nil, qerr.New("Either the parameter 'header' or 'file' must be specified")
	case !hasFile && mode != int(block.PreallocOff):
		return nil, qerr.New("Parameter 'preallocation' requires 'file' to be specified for formatting LUKS disk")
	}
	n := &newVolume{size: size, prealloc: block.PreallocMode(mode)}
	if n.prealloc == block.PreallocMetadata {
		n.prealloc = block.PreallocOff // the header is there anyway
	}
	return n, nil
}

// use opens the nodes, that of the header first.
func (n *newVolume) use(co *aio.Co, a *block.CreateArgs) (err error) {
	if a.Has(optHeader) {
		if n.header, err = a.Use(co, optHeader, block.PermWrite|block.PermResize, block.PermAll); err != nil {
			return err
		}
	}
	if a.Has(optFile) {
		n.file, err = a.Use(co, optFile, block.PermWrite|block.PermResize, block.PermAll)
	}
	return err
}

func (n *newVolume) done(co *aio.Co, a *block.CreateArgs) {
	for _, b := range []*block.Backend{n.file, n.header} {
		if b != nil {
			a.Done(co, b)
		}
	}
}

// makeRoom gives the file the length of the disk and of what comes before it.
func (n *newVolume) makeRoom(co *aio.Co, before uint64) error {
	if n.size > math.MaxInt64-before {
		return errTooLarge
	}
	err := n.file.Truncate(co, int64(n.size+before), false, n.prealloc, 0)
	if errors.Is(err, syscall.EFBIG) {
		return errTooLarge
	}
	return err
}
