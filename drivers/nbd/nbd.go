// Package nbd is a disk that an NBD server exports: qemu-nbd, nbdkit, another
// daemon, or this one itself.
//
// # Options
//
//   - server: where the server listens: an address of type inet, unix, vsock or
//     fd.
//   - export: the name of the export, at most 4096 bytes; by default the empty
//     one.
//   - tls-creds: the id of TLS credentials; without, there is no TLS.
//   - tls-hostname: the name that the server's certificate must have; by
//     default the host of server.
//   - x-dirty-bitmap: the meta context of which block status is asked, in place
//     of base:allocation. Its flags are shown as if they were that one's: what
//     is dirty in a context qemu:dirty-bitmap:NAME shows as unallocated.
//   - open-timeout: for how many seconds opening tries again, after 1, 2, 4, 8
//     and then every 16 seconds; by default it does not.
//   - reconnect-delay: for how many seconds requests wait for a lost connection
//     to come back; by default they do not, and fail.
//
// In place of server there can be path, or host and port. None of these can
// change on reopen.
//
// The names nbd://HOST:PORT/EXPORT and nbd+unix:///EXPORT?socket=PATH stand for
// a node, and the older nbd:HOST:PORT:exportname=EXPORT and
// nbd:unix:PATH:exportname=EXPORT.
//
// # A lost connection
//
// A request that finds the connection lost begins to connect anew, in the
// background, until that succeeds or the node is closed. Requests that were
// under way are sent again. Within reconnect-delay after the loss they wait for
// it, and with them drained sections; after that they fail with EIO until there
// is a connection.
//
// # Limits
//
// Nodes do not grow or shrink: resizing to less than the export's size does
// nothing, as in the reference. If the export has another size after the
// connection was lost, the next resize finds it. A server that now is read-only
// or demands larger blocks is no replacement for one that was not and did not.
// A server that says nothing for a minute when it should lead the handshake is
// given up, where the reference waits for ever.
package nbd

import (
	"math"
	"sync/atomic"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qerr"
)

// Driver is the driver nbd.
func Driver() *block.Driver {
	return &block.Driver{
		Name:          "nbd",
		Kind:          block.Protocol,
		Prefix:        "nbd",
		Transports:    []string{"tcp", "unix"},
		StrongOptions: []string{optPath, optHost, optPort, optExport, optTLSCreds, optTLSHostname, optServer + "."},
		ParseFilename: parseFilename,
		Open:          open,

		MakesOfExisting: true,
	}
}

// disk is one nbd node.
type disk struct {
	options  *options
	server   *connection
	writable atomic.Bool // a server that only lets read will not do
	first    nbd.Export  // what the server told at first
}

func open(a *block.OpenArgs) (block.Instance, error) {
	o, err := takeOptions(a)
	if err != nil {
		return nil, err
	}
	d := &disk{options: o}
	d.server = newConnection(o, d.acceptable)
	// The server may be this process itself, and need the lock to answer.
	a.Lock.Unlocked(func() { err = d.server.open() })
	if err == nil {
		err = d.begin(a.Node)
	}
	if err != nil {
		d.server.close()
		return nil, err
	}
	return d, nil
}

// begin checks what the server has told in the first handshake.
func (d *disk) begin(n *block.Node) error {
	c := d.server.current()
	if d.options.context != nbd.ContextAllocation && !c.HasContext() {
		return qerr.WithErrno(syscall.EINVAL, "Could not open image")
	}
	d.first = c.Export()
	if d.first.Flags&nbd.FlagReadOnly != 0 {
		if err := n.ApplyAutoReadOnly(qerr.WithErrno(syscall.EACCES, "Could not open image")); err != nil {
			return err
		}
	}
	d.writable.Store(!n.ReadOnly())
	return nil
}

// acceptable tells whether a server that was found again will do.
func (d *disk) acceptable(c *nbd.Client) error {
	e := c.Export()
	switch {
	case d.writable.Load() && e.Flags&nbd.FlagReadOnly != 0:
		return qerr.New("The server has become read-only")
	case d.options.context != nbd.ContextAllocation && !c.HasContext():
		return qerr.New("The server does not know the meta context any more")
	case alignment(e) > alignment(d.first) || maxTransfer(e) < maxTransfer(d.first):
		return qerr.New("The server demands other blocks than before")
	case c.Mode() < nbd.Extended && d.server.mode == nbd.Extended:
		return qerr.New("The server does not know extended headers any more")
	}
	return nil
}

// Close ends the connection, in due form.
func (d *disk) Close(*aio.Lock) { d.server.close() }

// do sends a request as often as it takes. It may last: the graph's lock is
// given up meanwhile.
func (d *disk) do(co *aio.Co, f func(c *nbd.Client) error) (err error) {
	co.Yield(func() { err = d.server.do(f) })
	return err
}

// CoPreadv: the node ends at a sector's end, the export perhaps before. What is
// between reads as zeroes (observed).
func (d *disk) CoPreadv(co *aio.Co, offset int64, v block.Vec, _ block.ReqFlags) error {
	bytes := v.Len()
	return d.do(co, func(c *nbd.Client) error {
		inside, err := d.inside(c, offset, bytes)
		switch {
		case err != nil:
			return err
		case inside == bytes:
			return c.Read(uint64(offset), v)
		}
		v.Slice(inside, bytes-inside).Zero()
		if inside == 0 {
			return nil
		}
		return c.Read(uint64(offset), v.Slice(0, inside))
	})
}

// inside is how much of an area the export has. An area that is not even in its
// last block is an error: the export has shrunk.
func (d *disk) inside(c *nbd.Client, offset, bytes int64) (int64, error) {
	size := c.Export().Size
	end := uint64(offset + bytes)
	if end <= size {
		return bytes, nil
	}
	block := uint64(max(alignment(d.first), block.SectorSize))
	if end > (size+block-1)/block*block {
		return 0, syscall.EIO
	}
	return max(int64(size)-offset, 0), nil
}

// CoPwritev makes up for a server that understood FUA once and does no more.
func (d *disk) CoPwritev(co *aio.Co, offset int64, v block.Vec, flags block.ReqFlags) error {
	return d.do(co, func(c *nbd.Client) error {
		command, flush := fua(c, flags)
		if err := c.Write(uint64(offset), v, command); err != nil || !flush {
			return err
		}
		return flushAll(c)
	})
}

// fua is how durability is asked of a server: by the command's flag, or by a
// flush behind it.
func fua(c *nbd.Client, flags block.ReqFlags) (command nbd.CommandFlags, flush bool) {
	if flags&block.ReqFUA == 0 {
		return 0, false
	}
	if c.Export().Flags&nbd.FlagSendFUA == 0 {
		return 0, true
	}
	return nbd.CmdFlagFUA, false
}

func (d *disk) CoPwriteZeroes(co *aio.Co, offset, bytes int64, flags block.ReqFlags) error {
	return d.do(co, func(c *nbd.Client) error {
		can := c.Export().Flags
		command, flush := fua(c, flags)
		if can&nbd.FlagSendWriteZeroes == 0 || flags&block.ReqNoFallback != 0 && can&nbd.FlagSendFastZero == 0 {
			return syscall.ENOTSUP
		}
		if flags&block.ReqMayUnmap == 0 {
			command |= nbd.CmdFlagNoHole
		}
		if flags&block.ReqNoFallback != 0 {
			command |= nbd.CmdFlagFastZero
		}
		if err := c.WriteZeroes(uint64(offset), uint64(bytes), command); err != nil || !flush {
			return err
		}
		return flushAll(c)
	})
}

func (d *disk) CoPdiscard(co *aio.Co, offset, bytes int64) error {
	return d.do(co, func(c *nbd.Client) error {
		if c.Export().Flags&nbd.FlagSendTrim == 0 {
			return nil
		}
		return c.Trim(uint64(offset), uint64(bytes), 0)
	})
}

// CoFlushAll always asks the server: others write there too (observed, with
// cache.no-flush as well).
func (d *disk) CoFlushAll(co *aio.Co) error { return d.do(co, flushAll) }

func flushAll(c *nbd.Client) error {
	if c.Export().Flags&nbd.FlagSendFlush == 0 {
		return nil
	}
	return c.Flush()
}

// CoBlockStatus asks for the first extent only. Behind the export's end there
// are zeroes; of a server without the context nothing is known.
func (d *disk) CoBlockStatus(co *aio.Co, _ bool, offset, bytes int64) (st block.Status, err error) {
	err = d.do(co, func(c *nbd.Client) error {
		st, err = d.status(c, offset, bytes)
		return err
	})
	return st, err
}

func (d *disk) status(c *nbd.Client, offset, bytes int64) (block.Status, error) {
	if !c.HasContext() {
		return block.Status{Flags: block.StatusData | block.StatusOffsetValid, Bytes: bytes, Map: offset}, nil
	}
	inside, err := d.inside(c, offset, bytes)
	if err != nil {
		return block.Status{}, err
	}
	if inside == 0 {
		return block.Status{Flags: block.StatusZero, Bytes: bytes}, nil
	}
	if limit := d.lengthLimit(); limit > 0 {
		inside = min(inside, limit)
	}
	var extents [1]nbd.Extent
	if _, err := c.BlockStatus(uint64(offset), uint64(inside), nbd.CmdFlagReqOne, extents[:]); err != nil {
		return block.Status{}, err
	}
	return d.extentStatus(extents[0], offset, inside), nil
}

// extentStatus rounds what a server told to whole blocks: half a block that is
// a hole or zero says nothing of the block (observed).
func (d *disk) extentStatus(e nbd.Extent, offset, bytes int64) block.Status {
	unit := uint64(alignment(d.first))
	length := min(e.Length, uint64(bytes))
	if length != uint64(bytes) {
		length -= length % unit
	}
	if length == 0 {
		length, e.Flags = min(unit, uint64(bytes)), 0
	}
	st := block.Status{Flags: block.StatusOffsetValid, Bytes: int64(length), Map: offset}
	if e.Flags&nbd.StateHole == 0 {
		st.Flags |= block.StatusData
	}
	if e.Flags&nbd.StateZero != 0 {
		st.Flags |= block.StatusZero
	}
	return st
}

// CoGetLength is the size that the server told last.
func (d *disk) CoGetLength(*aio.Co) (int64, error) {
	size := d.server.size.Load()
	if size > math.MaxInt64 {
		return 0, qerr.From(syscall.EFBIG)
	}
	return int64(size), nil
}

// CoTruncate cannot do anything, which is enough if nothing is to be done.
func (d *disk) CoTruncate(_ *aio.Co, offset int64, exact bool, _ block.PreallocMode, _ block.ReqFlags) error {
	size := d.server.size.Load()
	switch {
	case uint64(offset) != size && exact:
		return qerr.WithErrnoOnly(syscall.ENOTSUP, "Cannot resize NBD nodes")
	case uint64(offset) > size:
		return qerr.WithErrnoOnly(syscall.EINVAL, "Cannot grow NBD nodes")
	}
	return nil
}

// alignment is that of requests, in bytes.
func alignment(e nbd.Export) int64 { return max(int64(e.MinBlock), 1) }

// maxTransfer bounds requests with data, in bytes.
func maxTransfer(e nbd.Export) int64 {
	if e.MaxBlock == 0 {
		return nbd.MaxPayload
	}
	return max(min(int64(e.MaxBlock), nbd.MaxPayload), int64(e.MinBlock))
}

// lengthLimit bounds requests without data, in bytes; 0: there is no limit.
func (d *disk) lengthLimit() int64 {
	if d.server.mode == nbd.Extended {
		return 0
	}
	return math.MaxInt32 &^ (alignment(d.first) - 1)
}

// RefreshLimits: without extended headers even zeroes count as data (observed).
func (d *disk) RefreshLimits(l *block.Limits) error {
	l.RequestAlignment = alignment(d.first)
	l.MaxTransfer = maxTransfer(d.first)
	if d.first.PreferredBlock > d.first.MinBlock {
		l.OptTransfer = int64(d.first.PreferredBlock)
	}
	l.MaxPDiscard = d.lengthLimit()
	if l.MaxPDiscard > 0 {
		l.MaxPWriteZeroes = l.MaxTransfer
	}
	l.ZeroFlags |= block.ReqMayUnmap | block.ReqNoFallback
	if d.first.Flags&nbd.FlagSendFUA != 0 {
		l.WriteFlags |= block.ReqFUA
		l.ZeroFlags |= block.ReqFUA
	}
	return nil
}

// ReopenPrepare only lets the node become writable if the server does. Nothing
// else can change but what the block layer does by itself.
func (d *disk) ReopenPrepare(_ *aio.Lock, st *block.ReopenState) error {
	if st.Flags&block.FlagRDWR != 0 && d.first.Flags&nbd.FlagReadOnly != 0 {
		return qerr.WithErrnoOnly(syscall.EACCES, "Can't reopen read-only NBD mount as read/write")
	}
	return nil
}

// ReopenCommit is the good end of a reopen.
func (d *disk) ReopenCommit(st *block.ReopenState) {
	d.writable.Store(st.Flags&block.FlagRDWR != 0)
}

// ReopenAbort is the other.
func (d *disk) ReopenAbort(*block.ReopenState) {}

// ExactFilename is a URL that says where the disk is.
func (d *disk) ExactFilename(*block.Options) string { return d.options.filename() }

// What an NBD disk can do.
var (
	_ block.Reader            = (*disk)(nil)
	_ block.Writer            = (*disk)(nil)
	_ block.ZeroWriter        = (*disk)(nil)
	_ block.Discarder         = (*disk)(nil)
	_ block.FlushForwarder    = (*disk)(nil)
	_ block.LengthGetter      = (*disk)(nil)
	_ block.Truncater         = (*disk)(nil)
	_ block.StatusGetter      = (*disk)(nil)
	_ block.LimitsRefresher   = (*disk)(nil)
	_ block.Reopener          = (*disk)(nil)
	_ block.FilenameRefresher = (*disk)(nil)
)
