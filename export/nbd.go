package export

import (
	"sync/atomic"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qerr"
)

// nbdExport is what the kind nbd adds to an export.
type nbdExport struct {
	*Export
	server   *nbdServer
	name     string // as clients call it
	desc     string
	size     int64 // in bytes; nobody may resize the node
	align    int64 // of the node's requests
	flags    nbd.TransmissionFlags
	contexts []nbd.MetaContext
	bitmaps  []*block.DirtyBitmap // in the order of their contexts
	gone     atomic.Bool          // no client can enter any more

	// immediateReads and immediateWrites tell whether it is worth trying to
	// serve a request without a worker.
	immediateReads, immediateWrites bool
}

// The ids of meta contexts (observed).
const (
	idAllocation = iota
	idAllocationDepth
	idBitmap // the first one's
)

// preferredBlock is the least size of requests that clients are told to
// prefer, in bytes.
const preferredBlock = 4096

// writableFlags are those of an export that can be written to.
const writableFlags = nbd.FlagSendTrim | nbd.FlagSendWriteZeroes | nbd.FlagSendFastZero

func (s *Set) newNBD() kind { return &nbdExport{} }

// create publishes the export at the server.
func (e *nbdExport) create(l *aio.Lock, of *Export, o *Options) error {
	e.Export, e.server = of, of.set.server
	if e.server == nil {
		return errNotRunning()
	}
	e.name = of.backend.Node().Name()
	if o.NBD.Name != nil {
		e.name = *o.NBD.Name
	}
	switch {
	case len(e.name) > nbd.MaxString:
		return qerr.New("export name '%s' too long", e.name)
	case o.NBD.Description != nil && len(*o.NBD.Description) > nbd.MaxString:
		return qerr.New("description '%s' too long", *o.NBD.Description)
	case e.server.find(e.name) != nil:
		return qerr.New("NBD server already has export named '%s'", e.name)
	}
	if err := of.keepSize(l); err != nil {
		return err
	}
	if o.NBD.Description != nil {
		e.desc = *o.NBD.Description
	}
	e.contexts = []nbd.MetaContext{{ID: idAllocation, Name: nbd.ContextAllocation}}
	if o.NBD.AllocationDepth {
		e.contexts = append(e.contexts, nbd.MetaContext{ID: idAllocationDepth, Name: nbd.ContextAllocationDepth})
	}
	e.flags = nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagSendCache | nbd.FlagCanMultiConn
	if of.writable {
		e.flags |= writableFlags
	} else {
		e.flags |= nbd.FlagReadOnly
	}
	limits := of.backend.Node().Limits()
	e.align = limits.RequestAlignment
	e.immediateReads = limits.ReadFlags&block.ReqImmediate != 0
	e.immediateWrites = limits.WriteFlags&block.ReqImmediate != 0
	var err error
	if e.size, err = of.backend.GetLength(l); err != nil {
		return qerr.Prepend(err, "Failed to determine the NBD export's length: ")
	}
	if err := e.takeBitmaps(o.NBD.Bitmaps); err != nil {
		return err
	}
	e.server.publish(e)
	return nil
}

// requestShutdown cuts the clients off.
func (e *nbdExport) requestShutdown(*aio.Lock) {
	if e.gone.Swap(true) {
		return
	}
	for _, c := range e.server.withdraw(e) {
		c.cutOff()
	}
}

// delete lets go of the bitmaps.
func (e *nbdExport) delete(*aio.Lock) { e.giveBitmapsBack() }

// Describe tells a client of the export.
func (e *nbdExport) Describe() nbd.Export {
	align := uint32(e.align)
	return nbd.Export{
		Name: e.name, Description: e.desc, Size: uint64(e.size), Flags: e.flags,
		MinBlock: align, PreferredBlock: max(preferredBlock, align), MaxBlock: nbd.MaxPayload,
	}
}

// MetaContexts lists the kinds of block status that can be asked.
func (e *nbdExport) MetaContexts() []nbd.MetaContext { return e.contexts }

// Enter counts a client; [nbdClient] gives the reference back.
func (e *nbdExport) Enter() bool {
	e.server.mu.Lock()
	defer e.server.mu.Unlock()
	if e.gone.Load() {
		return false
	}
	e.ref()
	return true
}
