package qcow2

import (
	"bytes"
	"io"
	"sync"
	"syscall"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/qmpblock/qmpblock/qerr"
)

// codec packs clusters.
type codec interface {
	// decompress fills dst from src, behind whose data there may be anything.
	decompress(dst, src []byte) error
	// compress packs src into dst and returns how much it takes; 0 if it
	// does not fit.
	compress(dst, src []byte) (int, error)
}

func newCodec(kind uint8) codec {
	if kind == compressZstd {
		return &zstdCodec{}
	}
	return &deflateCodec{}
}

// bounded is memory that takes only so much.
type bounded struct {
	b []byte
	n int
}

func (w *bounded) Write(p []byte) (int, error) {
	n := copy(w.b[w.n:], p)
	w.n += n
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// deflateCodec is deflate without a header. Readers of the format may have a
// window of 4 KiB only.
type deflateCodec struct{ readers, writers sync.Pool }

const deflateWindow = 4096

func (c *deflateCodec) decompress(dst, src []byte) error {
	r, ok := c.readers.Get().(io.ReadCloser)
	if !ok {
		r = flate.NewReader(nil)
	}
	defer c.readers.Put(r)
	if err := r.(flate.Resetter).Reset(bytes.NewReader(src), nil); err != nil {
		return qerr.From(syscall.EIO)
	}
	if _, err := io.ReadFull(r, dst); err != nil {
		return qerr.From(syscall.EIO)
	}
	return nil
}

func (c *deflateCodec) compress(dst, src []byte) (int, error) {
	out := &bounded{b: dst}
	w, ok := c.writers.Get().(*flate.Writer)
	if !ok {
		var err error
		if w, err = flate.NewWriterWindow(out, deflateWindow); err != nil {
			return 0, err
		}
	}
	defer c.writers.Put(w)
	w.Reset(out)
	if _, err := w.Write(src); err != nil {
		return 0, nil
	}
	if err := w.Close(); err != nil {
		return 0, nil
	}
	return out.n, nil
}

// zstdCodec is Zstandard.
type zstdCodec struct{ readers, writers sync.Pool }

// maxZstdWindow bounds the memory that a cluster can ask for.
const maxZstdWindow = 8 << 20

func (c *zstdCodec) decompress(dst, src []byte) error {
	r, ok := c.readers.Get().(*zstd.Decoder)
	if !ok {
		var err error
		r, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return err
		}
	}
	defer c.readers.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return qerr.From(syscall.EIO)
	}
	if _, err := io.ReadFull(r, dst); err != nil {
		return qerr.From(syscall.EIO)
	}
	return nil
}

func (c *zstdCodec) compress(dst, src []byte) (int, error) {
	out := &bounded{b: dst}
	w, ok := c.writers.Get().(*zstd.Encoder)
	if !ok {
		var err error
		if w, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true)); err != nil {
			return 0, err
		}
	}
	defer c.writers.Put(w)
	w.Reset(out)
	if _, err := w.Write(src); err != nil {
		return 0, nil
	}
	if err := w.Close(); err != nil {
		return 0, nil
	}
	return out.n, nil
}
