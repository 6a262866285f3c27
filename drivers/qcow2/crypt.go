package qcow2

import (
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/crypto"
	"github.com/qmpblock/qmpblock/qerr"
)

// encryption is how the guest's data is encrypted. Metadata and compressed
// clusters are not.
type encryption struct {
	*crypto.Volume
	secret string // id of the one it was opened with
	// luks is the header, nil for the old way. It changes as a whole, by one
	// amendment at a time.
	luks  atomic.Pointer[crypto.LUKS]
	amend sync.Mutex
}

// Encryption describes an image's encryption.
type Encryption struct {
	Format string       // "aes" or "luks"
	LUKS   *crypto.Info // nil for aes
}

// openLUKS opens the volume whose header an extension names. An image that is
// read anew keeps the one it has.
func (i *image) openLUKS(co *aio.Co, secret string) error {
	if i.crypt != nil {
		return nil
	}
	l, v, err := crypto.OpenLUKS(cryptHeader{co, i}, false, secret, optEncrypt+".", i.node.Graph().Secret)
	if err != nil {
		return err
	}
	i.crypt = &encryption{Volume: v, secret: secret}
	i.crypt.luks.Store(l)
	return nil
}

// openAES opens an image encrypted in the old way.
func (i *image) openAES(secret string) error {
	if i.crypt != nil {
		return nil
	}
	v, err := crypto.OpenQCow(secret, optEncrypt+".", i.node.Graph().Secret)
	if err != nil {
		return err
	}
	i.crypt = &encryption{Volume: v, secret: secret}
	return nil
}

// openCrypt opens what no extension has opened.
func (i *image) openCrypt() error {
	switch {
	case i.hdr.cryptMethod == cryptLUKS && !i.hdr.haveCrypto:
		return qerr.New("Missing CRYPTO header for crypt method %d", i.hdr.cryptMethod)
	case i.hdr.cryptMethod == cryptAES:
		return i.openAES(i.secret)
	}
	return nil
}

// place is what decides how a sector is encrypted: where it is in the file, or
// in the old way, on the guest's disk.
func (c *encryption) place(guest, host int64) int64 {
	if c.luks.Load() == nil {
		return guest
	}
	return host
}

// readData reads clusters of the guest.
func (i *image) readData(co *aio.Co, guest, host int64, v block.Vec, flags block.ReqFlags) error {
	err := i.data.CoPreadv(co, host, v, flags)
	if err == nil && i.crypt != nil {
		i.crypt.DecryptVec(v, i.crypt.place(guest, host))
	}
	return err
}

// writeData writes clusters of the guest. What is encrypted is a copy, piece
// by piece: the buffers of a write belong to the caller.
func (i *image) writeData(co *aio.Co, guest, host int64, v block.Vec, flags block.ReqFlags) error {
	if i.crypt == nil {
		return i.data.CoPwritev(co, host, v, flags)
	}
	total := v.Len()
	mem := i.getBuffer(min(total, 2*i.geo.clusterSize))
	defer i.putBuffer(mem)
	for done := int64(0); done < total; {
		b := (*mem)[:min(total-done, int64(len(*mem)))]
		v.Slice(done, int64(len(b))).CopyTo(b)
		i.crypt.Encrypt(b, i.crypt.place(guest+done, host+done))
		if err := i.data.CoPwritev(co, host+done, block.Vec{b}, flags); err != nil {
			return err
		}
		done += int64(len(b))
	}
	return nil
}

// cryptHeader is the area with the LUKS header and its key slots. What package
// crypto does between two requests takes time, so the turn is left to others.
type cryptHeader struct {
	co  *aio.Co
	img *image
}

func (c cryptHeader) ReadAt(b []byte, offset int64) (int, error) {
	return c.do(b, offset, c.img.file.CoPreadv)
}

func (c cryptHeader) WriteAt(b []byte, offset int64) (int, error) {
	if c.img.node.ReadOnly() {
		return 0, qerr.New("Block node is read-only")
	}
	return c.do(b, offset, c.img.file.CoPwritev)
}

// do says that it could not read also if it could not write, as the reference
// does (observed).
func (c cryptHeader) do(b []byte, offset int64, f func(*aio.Co, int64, block.Vec, block.ReqFlags) error) (int, error) {
	h := c.img.hdr
	if uint64(offset)+uint64(len(b)) > h.cryptoLength {
		return 0, qerr.New("Request for data outside of extension header")
	}
	c.co.LeaveTurn()
	err := error(syscall.EIO)
	if h.cryptoOffset <= math.MaxInt64-uint64(offset) {
		err = f(c.co, int64(h.cryptoOffset)+offset, block.Vec{b}, 0)
	}
	if err != nil {
		return 0, qerr.WithErrno(qerr.ErrnoOf(err, syscall.EIO), "Could not read encryption header")
	}
	return len(b), nil
}

// Encrypted tells whether the guest's data is encrypted.
func (i *image) Encrypted() bool { return i.crypt != nil }

func (i *image) describeCrypt() *Encryption {
	if i.crypt == nil {
		return nil
	}
	e := &Encryption{Format: cryptNames[i.hdr.cryptMethod]}
	if l := i.crypt.luks.Load(); l != nil {
		info := l.Info()
		e.LUKS = &info
	}
	return e
}

// CoAmend changes the key slots: nothing else of an image can be amended.
// Queries see the header as it was until all is done.
func (i *image) CoAmend(co *aio.Co, o *block.Options, force bool) error {
	if !o.HasSub(optEncrypt) {
		return nil
	}
	o = o.Sub(optEncrypt, true)
	switch {
	case i.crypt == nil:
		return qerr.New("image is not encrypted, can't amend")
	case o.GetString("format") != cryptNames[cryptLUKS]:
		return qerr.New("Amend can't be used to change the qcow2 encryption format")
	case i.crypt.luks.Load() == nil:
		return qerr.New("Only LUKS encryption options can be amended for qcow2 with blockdev-amend")
	}
	options, err := crypto.TakeAmendOptions(o)
	if err != nil {
		return err
	}
	options.Force, options.Opened = force, i.crypt.secret
	if !i.crypt.amend.TryLock() {
		co.Yield(i.crypt.amend.Lock)
	}
	defer i.crypt.amend.Unlock()
	next := *i.crypt.luks.Load()
	err = next.Amend(cryptHeader{co, i}, options, i.node.Graph().Secret)
	i.crypt.luks.Store(&next)
	if err != nil {
		return err
	}
	return i.barrier(co)
}
