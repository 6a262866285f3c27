package crypto

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"sync"
)

// worker en- or decrypts a run of sectors. It keeps what that needs, so that
// nothing is allocated for a request.
type worker struct {
	v *Volume
	// The work: sectors of memory, the number of the first, the direction.
	b       []byte
	sector  uint64
	encrypt bool
	// iv is the initialization vector of a sector, as long as a block; number
	// is where ESSIV takes it from.
	iv, number []byte
	// chain is CBC, one for each direction.
	chain [2]chain
	xts   xts
	// done and others are for work that is shared out.
	done       sync.WaitGroup
	others     []*worker
	background func()
}

// chain is CBC that can begin anew.
type chain interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

func newWorker(v *Volume) *worker {
	w := &worker{v: v, iv: make([]byte, v.alg.block), number: make([]byte, v.alg.block)}
	if v.mode == modeCBC {
		w.chain[0] = cipher.NewCBCDecrypter(v.data, w.iv).(chain)
		w.chain[1] = cipher.NewCBCEncrypter(v.data, w.iv).(chain)
	}
	w.background = func() {
		defer w.done.Done()
		w.run()
	}
	return w
}

func (w *worker) set(b []byte, sector uint64, encrypt bool) {
	w.b, w.sector, w.encrypt = b, sector, encrypt
}

// rest lets others have the worker.
func (w *worker) rest() {
	w.b = nil
	w.v.workers.Put(w)
}

func (w *worker) run() {
	for b := w.b; len(b) > 0; b = b[SectorSize:] {
		w.one(b[:SectorSize:SectorSize])
		w.sector++
	}
}

// one en- or decrypts one sector.
func (w *worker) one(b []byte) {
	switch w.v.mode {
	case modeECB:
		w.blocks(b)
	case modeCBC:
		w.makeIV()
		c := w.chain[0]
		if w.encrypt {
			c = w.chain[1]
		}
		c.SetIV(w.iv)
		c.CryptBlocks(b, b)
	case modeCTR:
		w.makeIV()
		w.count(b)
	case modeXTS:
		w.makeIV()
		w.v.tweak.Encrypt(w.iv, w.iv)
		w.xts.start(w.iv)
		w.xts.mask(b)
		w.blocks(b)
		w.xts.mask(b)
	}
}

// blocks en- or decrypts each block alone.
func (w *worker) blocks(b []byte) {
	block, size := w.v.data, w.v.alg.block
	if w.encrypt {
		for ; len(b) >= size; b = b[size:] {
			block.Encrypt(b, b)
		}
		return
	}
	for ; len(b) >= size; b = b[size:] {
		block.Decrypt(b, b)
	}
}

// count combines the sector with encrypted numbers, of which the
// initialization vector is the first.
func (w *worker) count(b []byte) {
	pad := w.number
	for ; len(b) > 0; b = b[len(pad):] {
		w.v.data.Encrypt(pad, w.iv)
		subtle.XORBytes(b, b[:len(pad)], pad)
		for n := len(w.iv) - 1; n >= 0; n-- {
			w.iv[n]++
			if w.iv[n] != 0 {
				break
			}
		}
	}
}

// makeIV makes the sector's initialization vector.
func (w *worker) makeIV() {
	clear(w.iv)
	switch w.v.suite.iv {
	case ivPlain:
		binary.LittleEndian.PutUint32(w.iv, uint32(w.sector))
	case ivPlain64:
		binary.LittleEndian.PutUint64(w.iv, w.sector)
	case ivESSIV:
		clear(w.number)
		binary.LittleEndian.PutUint64(w.number, w.sector)
		w.v.essiv.Encrypt(w.iv, w.number)
	}
}
