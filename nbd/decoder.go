package nbd

import "encoding/binary"

// decoder takes apart the data of an option or of a reply to one. After a
// mistake everything is zero.
type decoder struct {
	b       []byte
	short   bool   // there was less than announced
	tooLong uint32 // the length of a string beyond [MaxString]
}

func (d *decoder) bytes(n uint32) []byte {
	if d.short || uint64(n) > uint64(len(d.b)) {
		d.short = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
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
		d.tooLong, d.short = n, true
		return ""
	}
	return string(d.bytes(n))
}
