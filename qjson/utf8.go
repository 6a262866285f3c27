package qjson

import "unicode/utf8"

// decode reads one character of modified UTF-8 (the bytes of s[0] and behind;
// s[0] is 0x80 or above). It returns the character, -1 when the bytes are not
// one that a string may contain, and how many bytes belong to the sequence,
// at least 1. A lead byte takes the continuation bytes it promises, as far as
// they are there, also those of five- and six-byte sequences.
func decode[T string | []byte](s T) (r rune, n int) {
	c := s[0]
	var want int
	switch {
	case c < 0xC0, c >= 0xFE:
		return -1, 1
	case c < 0xE0:
		want, r = 2, rune(c&0x1F)
	case c < 0xF0:
		want, r = 3, rune(c&0x0F)
	case c < 0xF8:
		want, r = 4, rune(c&0x07)
	case c < 0xFC:
		want, r = 5, rune(c&0x03)
	default:
		want, r = 6, rune(c&0x01)
	}
	for n = 1; n < want; n++ {
		if n == len(s) || s[n]&0xC0 != 0x80 {
			return -1, n
		}
		r = r<<6 | rune(s[n]&0x3F)
	}
	if want == 2 && r == 0 {
		return 0, 2 // C0 80
	}
	if want != utf8.RuneLen(r) || noncharacter(r) {
		return -1, n
	}
	return r, n
}

// noncharacter reports U+FDD0…U+FDEF and the last two of each plane.
func noncharacter(r rune) bool {
	return r >= 0xFDD0 && r <= 0xFDEF || r&0xFFFE == 0xFFFE
}

// appendModified appends r in modified UTF-8.
func appendModified(dst []byte, r rune) []byte {
	if r == 0 {
		return append(dst, 0xC0, 0x80)
	}
	return utf8.AppendRune(dst, r)
}
