package qjson

import (
	"math"
	"strconv"
)

const hexDigits = "0123456789ABCDEF"

// plain tells the bytes which a string may contain as they are on output.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7F; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return
}()

// AppendString appends s as a JSON string: ASCII only, escapes in upper-case
// hex, characters beyond the BMP as surrogate pairs. What is no modified
// UTF-8, and noncharacters, come out as \uFFFD, one for each sequence.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		if c < 0x80 {
			dst = appendEscape(dst, c)
			i++
		} else {
			r, n := decode(s[i:])
			dst = appendRune(dst, r)
			i += n
		}
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return appendHex(dst, rune(c))
}

func appendRune(dst []byte, r rune) []byte {
	if r < 0 {
		r = 0xFFFD
	}
	if r < 0x10000 {
		return appendHex(dst, r)
	}
	r -= 0x10000
	dst = appendHex(dst, 0xD800+r>>10)
	return appendHex(dst, 0xDC00+r&0x3FF)
}

func appendHex(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// AppendInt appends a signed integer.
func AppendInt(dst []byte, i int64) []byte { return strconv.AppendInt(dst, i, 10) }

// AppendUint appends an unsigned integer.
func AppendUint(dst []byte, u uint64) []byte { return strconv.AppendUint(dst, u, 10) }

// AppendDouble appends a double as C's "%.17g" prints it: 1.0 is 1, 0.1 is
// 0.10000000000000001, infinity is inf (which is no JSON, but what the
// reference sends; observed: transcript protocol/numbers).
func AppendDouble(dst []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-inf"...)
	case math.IsNaN(f):
		return append(dst, "nan"...)
	}
	return strconv.AppendFloat(dst, f, 'g', 17, 64)
}

// AppendBool appends true or false.
func AppendBool(dst []byte, b bool) []byte { return strconv.AppendBool(dst, b) }

// AppendNull appends null.
func AppendNull(dst []byte) []byte { return append(dst, "null"...) }

// AppendValue appends v in output format, members in dict order. An absent
// value appends nothing.
func AppendValue(dst []byte, v Value) []byte {
	switch v.Kind() {
	case Null:
		return AppendNull(dst)
	case Bool:
		return AppendBool(dst, v.Bool())
	case Int:
		return AppendInt(dst, v.Int())
	case Uint:
		return AppendUint(dst, v.Uint())
	case Double:
		return AppendDouble(dst, v.Float())
	case String:
		return AppendString(dst, v.Bytes())
	case Array:
		return appendArray(dst, v)
	case Object:
		return appendObject(dst, v)
	}
	return dst
}

func appendArray(dst []byte, v Value) []byte {
	dst = append(dst, '[')
	first := true
	for e := range v.Elems() {
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
		dst = AppendValue(dst, e)
	}
	return append(dst, ']')
}

func appendObject(dst []byte, v Value) []byte {
	dst = append(dst, '{')
	first := true
	for k, m := range v.DictOrder() {
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
		dst = AppendString(dst, k)
		dst = append(dst, ": "...)
		dst = AppendValue(dst, m)
	}
	return append(dst, '}')
}
