// Package base64 decodes base64 the way QEMU does, which is GLib's way behind
// a check of the alphabet: it is more lenient than RFC 4648 in everything but
// white space. Encoding is the standard library's.
package base64

import (
	"bytes"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// Decode decodes text of the standard alphabet. Newlines are skipped, no
// other white space. A group of less than four characters at the end is
// dropped; padding may stand anywhere and only shortens its own group.
func Decode(text []byte) ([]byte, error) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, qerr.New("Base64 data contains embedded NUL characters")
	}
	out := make([]byte, 0, len(text)/4*3)
	var bits uint32
	var group []byte
	for _, c := range text {
		if c == '\n' {
			continue
		}
		value := strings.IndexByte(alphabet, c)
		if value < 0 && c != '=' {
			return nil, qerr.New("Base64 data contains invalid characters")
		}
		bits = bits<<6 | uint32(max(value, 0))
		if group = append(group, c); len(group) == 4 {
			out = appendGroup(out, bits, group)
			group = group[:0]
		}
	}
	return out, nil
}

// appendGroup appends the bytes of four characters: each of the last two
// stands for one if it is no padding.
func appendGroup(out []byte, bits uint32, group []byte) []byte {
	out = append(out, byte(bits>>16))
	if group[2] != '=' {
		out = append(out, byte(bits>>8))
	}
	if group[3] != '=' {
		out = append(out, byte(bits))
	}
	return out
}
