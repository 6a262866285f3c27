package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
)

// decoder takes apart the data of an option as it comes, so that an option may
// be long and take little memory. After a mistake everything is zero.
type decoder struct {
	in      io.Reader
	left    uint32 // of the data, in bytes
	err     error  // of the connection
	short   bool   // there was less than announced
	tooLong uint32 // the length of a string beyond [MaxString]
	nul     bool   // a string had one
}

// failed tells whether a mistake was found.
func (d *decoder) failed() bool { return d.err != nil || d.short || d.tooLong > 0 || d.nul }

// announced tells whether n more bytes may come.
func (d *decoder) announced(n uint32) bool {
	if d.failed() {
		return false
	}
	d.short = n > d.left
	return !d.short
}

func (d *decoder) bytes(n uint32) []byte {
	if !d.announced(n) {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.in, b); err != nil {
		d.err = readError(err)
		return nil
	}
	d.left -= n
	return b
}

// skip takes n bytes for nothing.
func (d *decoder) skip(n uint32) {
	if d.announced(n) {
		d.discard(n)
	}
}

// drop takes what is left for nothing, also after a mistake.
func (d *decoder) drop() error {
	if d.err == nil {
		d.discard(d.left)
	}
	return d.err
}

func (d *decoder) discard(n uint32) {
	d.left -= n
	if _, err := io.CopyN(io.Discard, d.in, int64(n)); err != nil {
		d.err = readError(err)
	}
}

func (d *decoder) uint16() uint16 {
	if b := d.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// string is a length and as many bytes.
func (d *decoder) string() string {
	n := d.uint32()
	if n > MaxString {
		d.tooLong = n
		return ""
	}
	return d.text(n)
}

// text is a string of n bytes.
func (d *decoder) text(n uint32) string {
	b := d.bytes(n)
	d.nul = bytes.IndexByte(b, 0) >= 0
	return string(b)
}
